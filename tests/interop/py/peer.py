"""A stock py-libp2p peer for the interoperability tests: a host on loopback, driven by JSON lines.

What each command means is said once, in tests/interop/README.md. Nothing of the appliance is
imported.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Final

import trio
from libp2p import create_yamux_muxer_option, generate_new_ed25519_identity, new_host
from libp2p.abc import IHost, INetConn, INetStream
from libp2p.crypto.x25519 import create_new_key_pair as new_x25519
from libp2p.custom_types import TProtocol
from libp2p.host.ping import PingService
from libp2p.identity.identify.pb.identify_pb2 import Identify
from libp2p.network.stream.exceptions import StreamEOF, StreamError, StreamReset
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.relay.circuit_v2.config import RelayConfig, RelayRole
from libp2p.relay.circuit_v2.dcutr import DCUtRProtocol
from libp2p.relay.circuit_v2.protocol import PROTOCOL_ID, CircuitV2Protocol
from libp2p.relay.circuit_v2.resources import RelayLimits
from libp2p.relay.circuit_v2.transport import CircuitV2Transport
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.tools.anyio_service import background_trio_service
from libp2p.utils.varint import read_length_prefixed_protobuf
from multiaddr import Multiaddr

from tests.interop.bench import EVERYBODY
from tests.interop.py.bench import Bench

ECHO: Final = TProtocol("/echo/1.0.0")
DIGEST: Final = TProtocol("/interop/digest/1.0.0")
RESET: Final = TProtocol("/interop/reset/1.0.0")
IDENTIFY: Final = TProtocol("/ipfs/id/1.0.0")
DEADLINE: Final = 30.0
CHUNK: Final = 64 * 1024
UNLIMITED: Final = 1 << 40  # this relay knows no other way to say it

Reply = dict[str, Any]


def say(message: Reply) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def pattern(size: int) -> bytes:
    """What every peer sends: it shows a lost, repeated or moved block."""
    return bytes((i ^ i >> 8 ^ i >> 16) & 0xFF for i in range(size))


async def read_all(stream: INetStream) -> bytes:
    got = bytearray()
    while True:
        try:
            data = await stream.read(CHUNK)
        except StreamEOF:
            return bytes(got)
        if not data:
            return bytes(got)
        got += data


async def write_all(stream: INetStream, data: bytes) -> None:
    for at in range(0, len(data), CHUNK):
        await stream.write(data[at : at + CHUNK])
    await stream.close_write()


class Peer:
    """The host and what the commands need beside it."""

    def __init__(self, host: IHost, circuits: CircuitV2Transport, nursery: trio.Nursery) -> None:
        self.host = host
        self.circuits = circuits
        self.nursery = nursery
        self.bench: Bench | None = None
        for protocol, handler in (
            (ECHO, self.serve_echo),
            (DIGEST, self.serve_digest),
            (RESET, self.serve_reset),
        ):
            host.set_stream_handler(protocol, handler)

    # --- what it serves

    async def serve_echo(self, stream: INetStream) -> None:
        count = 0
        try:
            while True:
                try:
                    data = await stream.read(CHUNK)
                except StreamEOF:
                    break
                if not data:
                    break
                count += len(data)
                await stream.write(data)
            await stream.close()
        except StreamError:
            await self.served(stream, count, "reset")
        else:
            await self.served(stream, count, "eof")

    async def serve_digest(self, stream: INetStream) -> None:
        try:
            data = await read_all(stream)
            await stream.write(f"{len(data)} {hashlib.sha256(data).hexdigest()}".encode())
            await stream.close()
        except StreamError:
            await self.served(stream, 0, "reset")
        else:
            await self.served(stream, len(data), "eof")

    async def serve_reset(self, stream: INetStream) -> None:
        await stream.read(1)
        await stream.reset()

    async def served(self, stream: INetStream, count: int, ended: str) -> None:
        peer = stream.muxed_conn.peer_id
        say({"event": "served", "protocol": stream.get_protocol(), "peer": str(peer),
             "bytes": count, "ended": ended})  # fmt: skip

    # --- what it is told to do

    async def connect(self, addr: str = "", **_: Any) -> Reply:
        target = Multiaddr(addr)
        if "/p2p-circuit" in addr:
            await self.circuits.dial(target)
            peer_id = self.circuits.parse_circuit_ma(target)[1]
        else:
            info = info_from_p2p_addr(target)
            await self.host.connect(info)
            peer_id = info.peer_id
        return self.describe(self.conns(peer_id)[-1])

    async def open(self, peer: str, protocol: str) -> INetStream:
        peer_id = ID.from_string(peer)
        await self.connected(peer_id)
        return await self.host.new_stream(peer_id, [TProtocol(protocol)])

    async def connected(self, peer_id: ID) -> None:
        """Wait for a connection: one that the peer dialled may be on its way."""
        while not self.conns(peer_id):  # noqa: ASYNC110 - the library has no event for it
            await trio.sleep(0.01)

    def conns(self, peer_id: ID) -> list[INetConn]:
        return list(self.host.get_network().get_connections(peer_id))

    def describe(self, conn: INetConn) -> Reply:
        addrs = [str(addr) for addr in conn.get_transport_addresses()]
        kind = conn.get_connection_type().name
        relayed = kind == "RELAYED" or any("/p2p-circuit" in addr for addr in addrs)
        return {"addr": addrs[0] if addrs else "", "relayed": relayed}

    async def reserve(self, addr: str = "", **_: Any) -> Reply:
        info = info_from_p2p_addr(Multiaddr(addr))
        await self.host.connect(info)
        stream = await self.host.new_stream(info.peer_id, [PROTOCOL_ID])
        if not await self.circuits.reserve(stream, info.peer_id, self.nursery):
            raise ConnectionError("the reservation was refused")
        await stream.close()
        proof = self.circuits._reservation_proofs[info.peer_id]
        return {"expires": proof.expire}

    async def connections(self, peer: str = "", **_: Any) -> Reply:
        return {"connections": [self.describe(c) for c in self.conns(ID.from_string(peer))]}

    async def disconnect(self, peer: str = "", **_: Any) -> Reply:
        await self.host.disconnect(ID.from_string(peer))
        return {}

    async def identify(self, peer: str = "", **_: Any) -> Reply:
        stream = await self.open(peer, IDENTIFY)
        found = Identify.FromString(
            await read_length_prefixed_protobuf(stream, use_varint_format=True)
        )
        await stream.close()
        observed = str(Multiaddr(found.observed_addr)) if found.observed_addr else ""
        return {
            "agent": found.agent_version,
            "protocols": list(found.protocols),
            "listen": [str(Multiaddr(data)) for data in found.listen_addrs],
            "observed": observed,
        }

    async def ping(self, peer: str = "", **_: Any) -> Reply:
        await self.connected(ID.from_string(peer))
        [rtt] = await PingService(self.host).ping(ID.from_string(peer))
        return {"ms": rtt / 1000}

    async def echo(self, peer: str = "", bytes: int = 0, **_: Any) -> Reply:  # noqa: A002 - as the tests say it
        got = await self.send(peer, ECHO, bytes)
        return {"bytes": len(got), "sha256": hashlib.sha256(got).hexdigest()}

    async def digest(self, peer: str = "", bytes: int = 0, **_: Any) -> Reply:  # noqa: A002 - as the tests say it
        return {"answer": (await self.send(peer, DIGEST, bytes)).decode()}

    async def send(self, peer: str, protocol: str, size: int) -> bytes:
        stream = await self.open(peer, protocol)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write_all, stream, pattern(size))
            return await read_all(stream)

    async def reset(self, peer: str = "", **_: Any) -> Reply:
        stream = await self.open(peer, ECHO)
        await stream.write(b"\1")
        await stream.read(1)
        await stream.reset()
        return {}

    async def be_reset(self, peer: str = "", **_: Any) -> Reply:
        stream = await self.open(peer, RESET)
        await stream.write(b"\1")
        try:
            await read_all(stream)
        except StreamReset:
            return {"ended": "reset"}
        return {"ended": "eof"}

    async def exchange(
        self,
        peer: str = "",
        protocol: str = "",
        hex: str = "",  # noqa: A002 - as the tests say it
        **_: Any,
    ) -> Reply:
        stream = await self.open(peer, protocol)
        await stream.write(bytes.fromhex(hex))
        got = await read_all(stream)
        await stream.close()
        return {"hex": got.hex()}

    async def obey(self, line: str) -> None:
        command = json.loads(line)
        number, verb = command.pop("id"), command.pop("do")
        try:
            owner = self if hasattr(self, verb) else self.bench
            body: Callable[..., Awaitable[Reply]] = getattr(owner, verb)
            with trio.fail_after(DEADLINE):
                reply = await body(**command)
        except Exception as error:  # noqa: BLE001 - whatever it was, the test is told
            reply = {"error": f"{type(error).__name__}: {error} {getattr(error, 'exceptions', '')}"}
        say({**reply, "id": number})


def limits(relay: dict[str, int], *, at_once: int) -> RelayLimits:
    return RelayLimits(
        duration=relay.get("seconds") or UNLIMITED >> 20,
        data=relay.get("bytes") or UNLIMITED,
        max_circuit_conns=at_once,
        max_reservations=at_once,
        reservation_ttl=relay.get("reservation") or 3600,
    )


async def main(options: dict[str, Any]) -> None:
    keys, relay, bench = generate_new_ed25519_identity(), options.get("relay"), options.get("bench")
    noise = NoiseTransport(libp2p_keypair=keys, noise_privkey=new_x25519().private_key)
    host = new_host(
        key_pair=keys, sec_opt={NOISE: noise}, muxer_opt=create_yamux_muxer_option(),
    )  # fmt: skip
    async with (
        host.run([Multiaddr("/ip4/127.0.0.1/tcp/0")]),
        trio.open_nursery() as nursery,
    ):
        terms = limits(relay, at_once=EVERYBODY if bench else 16) if relay is not None else None
        circuit = CircuitV2Protocol(host, terms, allow_hop=relay is not None)
        async with background_trio_service(circuit):
            # STOP only: with CLIENT it would reserve before every dial.
            circuits = CircuitV2Transport(host, circuit, RelayConfig(roles=RelayRole.STOP))
            peer = Peer(host, circuits, nursery)
            if bench:
                peer.bench = Bench(host, nursery)
            if options.get("dcutr"):
                await nursery.start(run_dcutr, host)
            addrs = [str(addr) for addr in host.get_transport_addrs()]
            say({"event": "ready", "peer": str(host.get_id()), "addrs": addrs})
            async for line in trio.wrap_file(sys.stdin):
                nursery.start_soon(peer.obey, line)
            nursery.cancel_scope.cancel()


async def run_dcutr(
    host: IHost, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    async with background_trio_service(DCUtRProtocol(host)):
        task_status.started()
        await trio.sleep_forever()


if __name__ == "__main__":
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
    trio.run(main, json.loads(sys.argv[1]))
