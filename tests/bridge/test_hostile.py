"""Strangers that mean harm. Each is survived, bounded and counted; then a good peer is served."""

from __future__ import annotations

import contextlib
import struct

import pytest
import trio
from libp2p.crypto.x25519 import create_new_key_pair as new_x25519
from libp2p.peer.id import ID
from libp2p.security.noise.messages import NoiseHandshakePayload
from libp2p.security.noise.patterns import PatternXX

from appliance.bridge.host import HostLimits
from appliance.bridge.identity import Identity
from appliance.bridge.negotiate import NegotiatedStream
from appliance.bridge.secure import Noise, _Raw
from appliance.dataplane.tcp import TcpStream
from appliance.errors import Fault, StreamReset
from appliance.network import Endpoint
from appliance.reasons import Reason
from appliance.wire import multistream
from appliance.wire.framing import encode_varint
from tests.bridge.strangers import (
    assert_serves,
    ended,
    is_cut,
    living_tasks,
    open_files,
    shout,
    socket_to,
)
from tests.bridge.world import World, endpoint_of, until

# --- before anybody is authenticated


async def test_endless_proposals_before_the_handshake(world: World) -> None:
    host = await world.host()
    flood = multistream.line(multistream.HEADER) + multistream.line("/nothing") * 10_000
    assert await shout(host, flood)
    assert host.telemetry.refusals == {("connection", Reason.UNSUPPORTED_PROTOCOL): 1}
    await assert_serves(world, host)


async def test_an_endless_line_before_the_handshake(world: World) -> None:
    host = await world.host()
    assert await shout(host, encode_varint(100_000) + bytes(100_000))
    assert host.telemetry.refusals == {("connection", Reason.MESSAGE_TOO_LARGE): 1}
    await assert_serves(world, host)


async def test_many_half_open_handshakes(world: World) -> None:
    host = await world.host(limits=HostLimits(200, connections_per_ip=8))
    tasks, files = living_tasks(), open_files()
    waiting: list[trio.SocketStream] = []
    for _ in range(100):
        with contextlib.suppress(OSError):
            waiting.append(await socket_to(host))
    await until(lambda: host.telemetry.refusals["connection", Reason.CONNECTIONS_PER_IP_FULL] == 92)
    assert len(host.connections()) == 0
    for stream in waiting:
        await stream.aclose()
    await until(lambda: living_tasks() == tasks and open_files() == files)
    await assert_serves(world, host)


class Pretender(PatternXX):
    """Shows somebody else's public key, with a signature that is its own."""

    victim: Identity

    def make_handshake_payload(self, extensions: object = None) -> NoiseHandshakePayload:
        payload = super().make_handshake_payload()
        payload.id_pubkey = self.victim.keys.public_key
        return payload


async def test_pretending_another_id(world: World) -> None:
    host, victim, thief = await world.host(), Identity.generate(), Identity.generate()
    carrier = TcpStream((await socket_to(host)).socket)
    raw = NegotiatedStream.propose(carrier, "/noise")
    await raw.confirmed()
    pattern = Pretender(ID.from_pubkey(thief.keys.public_key), thief.keys.private_key,
                        new_x25519().private_key)  # fmt: skip
    pattern.victim = victim
    await pattern.handshake_outbound(_Raw(raw, True), None)
    await ended(raw)
    raw.reset()
    await until(host.telemetry.refusals.total)
    assert host.telemetry.refusals == {("connection", Reason.HANDSHAKE_FAILED): 1}
    assert not host.connections(victim.peer_id)
    assert not host.telemetry.faults
    await assert_serves(world, host)


@pytest.mark.parametrize(
    "payload",
    [b"", b"\xff" * 60, b"\x0a\x02\x08\x00\x12\x01x", b"\x0a\x04\x08\x01\x12\x00\x12\x01x",
     b"\x0a\x24\x08\x02\x12\x20" + bytes(32) + b"\x12\x01x"],
    ids=["empty", "garbage", "rsa-none", "ed25519-none", "secp256k1-zero"],
)  # fmt: skip
async def test_a_handshake_with_a_nonsense_identity(
    world: World, monkeypatch: pytest.MonkeyPatch, payload: bytes
) -> None:
    host = await world.host()
    carrier = TcpStream((await socket_to(host)).socket)
    raw = NegotiatedStream.propose(carrier, "/noise")
    await raw.confirmed()
    with monkeypatch.context() as patched:
        # Both sides run in this process: only the attacker's payload is replaced.
        honest = NoiseHandshakePayload.serialize
        own = Noise(attacker := Identity.generate())

        def serialize(self: NoiseHandshakePayload) -> bytes:
            mine = self.id_pubkey.to_bytes() == attacker.keys.public_key.to_bytes()
            return payload if mine else honest(self)

        patched.setattr(NoiseHandshakePayload, "serialize", serialize)
        with contextlib.suppress(Fault, StreamReset):
            await own.handshake(raw, client=True, expect=host.peer_id)
    await ended(raw)
    raw.reset()
    await until(host.telemetry.refusals.total)
    assert host.telemetry.refusals == {("connection", Reason.HANDSHAKE_FAILED): 1}
    assert not host.telemetry.faults
    await assert_serves(world, host)


# --- as a server


async def test_a_server_that_floods_its_caller(world: World) -> None:
    async def flood(stream: trio.SocketStream) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            while True:
                await stream.send_all(b"\xff" * 65536)

    host, server = await world.host(), await world.tcp(flood)
    files = open_files()
    with pytest.raises(Fault):
        await host.connect(server, Identity.generate().peer_id)
    await until(lambda: open_files() == files)
    await assert_serves(world, host)


async def test_sockets_that_are_reset_at_once(world: World) -> None:
    host = await world.host()
    files = open_files()
    for _ in range(100):
        stream = await socket_to(host)
        stream.socket.setsockopt(1, 13, struct.pack("ii", 1, 0))  # SO_LINGER: reset on close
        stream.socket.close()
    await until(lambda: open_files() == files)
    assert not await is_cut_at_once(endpoint_of(host))
    await assert_serves(world, host)


async def is_cut_at_once(endpoint: Endpoint) -> bool:
    async with await socket_to(endpoint) as stream:
        with trio.move_on_after(0.1):
            return await is_cut(stream)
    return False
