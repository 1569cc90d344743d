"""Hostile bytes for the parsers of the wire: random ones, and honest messages with changes.

    python -m tests.fuzz.wire --inputs 1000000 --seed 7 [--target records]

That many inputs go to each target. Nothing but a RemoteProtocolError with a reason of that parser
may come of one, and what is accepted must keep the parser's promises (see each `…_outcome`). The
seed and number of an input that breaks this are in the message; `--first` goes on from there.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from random import Random
from typing import Any, Final

from appliance.errors import RemoteProtocolError
from appliance.network import Endpoint
from appliance.wire import kaspa_codec, kaspa_rpc, multiaddr, peer_ids
from appliance.wire.capability import (
    MAX_CAPACITY,
    MAX_LIFETIME,
    PrivateClaim,
    PublicClaim,
    aged,
    claimed_address,
    claiming,
    makes_claim,
    read_claim,
    read_version,
)
from appliance.wire.kaspa_messages import (
    Addresses,
    LabChunk,
    Message,
    NetAddress,
    Payload,
    Ping,
    Pong,
    Ready,
    Reject,
    RequestAddresses,
    Verack,
    Version,
)
from appliance.wire.pb import kaspa_rpc_pb2 as rpc_pb
from appliance.wire.synthetic import can_be_dialled, plain
from appliance.wire.ways import MAX_HINT, RelayWay, parse_hint
from tests.fuzz.running import Broken, changed, check
from tests.fuzz.wire_signed import (
    REASONS,
    autonat_input,
    autonat_outcome,
    gossip_input,
    gossip_outcome,
    record_input,
    record_outcome,
)
from tests.wire.signing import peer, signer

ALICE, BOB = peer("alice"), peer("bob")


# --- Kaspa's messages

_RELAY: Final = claimed_address(
    PublicClaim(node=Endpoint("203.0.113.7", 16111), relay_port=16112, peer_id=ALICE, capacity=9)
)
_HIDDEN: Final = claimed_address(
    PrivateClaim(peer_id=ALICE, via=RelayWay(Endpoint("203.0.113.9", 16112), BOB))
)
_PLAIN: Final = NetAddress(ip=IPv4Address("203.0.113.7"), port=16111)
_VERSION: Final = Version(
    protocol_version=10,
    network="kaspa-simnet",
    peer_id=bytes(16),
    user_agent="/kaspad:1.1.0/",
    timestamp_ms=1,
    address=_RELAY,
    subnetwork_id=bytes(20),
    extra=b"\x38\x05\xa2\x06\x01x",
)
_PAYLOADS: Final[tuple[Payload, ...]] = (
    _VERSION,
    replace(_VERSION, address=None, extra=b""),
    Verack(),
    Ready(),
    Ping(2**64 - 1),
    Pong(1),
    Reject("LOOPBACK_CONNECTION"),
    RequestAddresses(include_all_subnetworks=True, subnetwork_id=bytes(20)),
    Addresses((_PLAIN, _RELAY, _HIDDEN, replace(_PLAIN, extra=b"\xa2\x06\x01x"))),
    LabChunk(echo=True, total=10, offset=4, data=b"abcdef", sha256=bytes(32)),
)
_MESSAGES: Final = (
    *(kaspa_codec.encode(Message(payload, request_id=3)) for payload in _PAYLOADS),
    kaspa_codec.encode(Message(Ping(1), extra=b"\xa2\x3e\x01x\x82\x01\x03\x7a\x01x")),
    bytes.fromhex("72240a220a20") + bytes(32) + bytes.fromhex("b00603"),
)


def kaspa_input(rng: Random) -> bytes:
    if rng.random() < 0.1:
        return rng.randbytes(rng.randrange(80))
    data = changed(rng, rng.choice(_MESSAGES))
    return data + changed(rng, rng.choice(_MESSAGES)) if rng.random() < 0.05 else data


def kaspa_outcome(data: bytes) -> object:
    """What is read is written so that it reads the same, and from then on always as the same bytes.

    Only the order of fields may change, and only if no encoder wrote them.
    """
    message = kaspa_codec.decode(data)
    again = kaspa_codec.encode(message)
    read = kaspa_codec.decode(again)
    check(_unordered(read) == _unordered(message), f"{message} was written and read as {read}")
    check(kaspa_codec.encode(read) == again, "written differently the second time")
    return type(message.payload)


def _unordered(message: Message) -> object:
    """The message with the bytes of what we do not know in an order of their own."""

    def sort(value: Any) -> Any:
        return None if value is None else replace(value, extra=bytes(sorted(value.extra)))

    payload = message.payload
    match payload:
        case Version():
            payload = sort(replace(payload, address=sort(payload.address)))
        case Addresses(addresses):
            payload = Addresses(tuple(map(sort, addresses)))
    return sort(replace(message, payload=payload))


# --- claims


def _odd_text(rng: Random, texts: tuple[str, ...]) -> str:
    text = rng.choice(texts)
    if rng.random() < 0.5:
        return text
    return changed(rng, text.encode()).decode(errors="replace")


_IDS: Final = (ALICE, BOB, "", "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N")
_HINTS: Final = (
    "",
    "203.0.113.9:16112",
    "[2001:db8::9]:16112",
    "[::ffff:240.0.0.1]:1",
    f"/ip4/203.0.113.9/tcp/16112/p2p/{BOB}",
    f"/ip6/2001:db8::9/tcp/16112/p2p/{BOB}/p2p-circuit",
    "/ip4/240.0.0.1/tcp/1",
)
_HOSTS: Final = (
    IPv4Address("203.0.113.7"),
    IPv6Address("2001:db8::1"),
    _HIDDEN.ip,
    IPv4Address(0),
    IPv4Address("255.255.255.255"),
    IPv6Address("ff02::1"),
)


def claim_input(rng: Random) -> NetAddress:
    def number(*likely: int) -> int:
        return rng.choice(likely) if rng.random() < 0.8 else rng.getrandbits(rng.choice((8, 16)))

    return NetAddress(
        ip=rng.choice(_HOSTS),
        port=rng.choice((16111, _HIDDEN.port, 0, 65535)),
        services=number(0, 1, 3, 2**64 - 1),
        relay_port=number(0, 16112, 65535, 65536, 2**32 - 1),
        relay_capacity=number(0, 64, 2**32 - 1),
        relay_ttl_ms=number(0, 1, 900_000, 2**64 - 1),
        relay_role=number(0, 1, 2, 9),
        libp2p_peer_id=_odd_text(rng, _IDS),
        relay_circuit_hint=_odd_text(rng, _HINTS),
    )


def claim_outcome(address: NetAddress) -> object:
    """A claim leads to hosts only, and not for longer than an hour."""
    older = aged(address, 1800.0)
    if older is not None and makes_claim(older):
        check(0 < older.relay_ttl_ms <= 1_800_000, "grew younger")
    claim = read_claim(address)
    if claim is None:
        return None
    check(0 < claim.lifetime <= MAX_LIFETIME, f"lives for {claim.lifetime}")
    if isinstance(claim, PublicClaim):
        check(can_be_dialled(claim.node) and can_be_dialled(claim.relay), f"{claim.relay}")
        check(claim.capacity <= MAX_CAPACITY, f"capacity {claim.capacity}")
    else:
        assert claim.via is not None
        check(claim.node is None or can_be_dialled(claim.node), f"{claim.node}")
        check(can_be_dialled(claim.via.endpoint), f"{claim.via}")
        check(claim.via.peer_id != claim.peer_id, "through itself")
    if claim.lifetime >= 0.001:
        check(read_version(claiming(_VERSION, claim)) == claim, f"{claim} does not come back")
    return type(claim)


def hint_input(rng: Random) -> str:
    return _odd_text(rng, _HINTS[1:])


def hint_outcome(text: str) -> object:
    """A way is a host's, in its plain form, and its text means the same."""
    way = parse_hint(text)
    check(len(text) <= MAX_HINT, "too long")
    check(can_be_dialled(way.endpoint), f"{way}")
    check(parse_hint(str(way)) == way, f"{way} does not come back")
    return way.peer_id is not None


def peer_id_input(rng: Random) -> tuple[bytes, str]:
    multihash = rng.choice((signer("alice").key.peer_id, b"\x12\x20" + bytes(32)))
    return changed(rng, multihash), _odd_text(rng, _IDS)


def peer_id_outcome(either: tuple[bytes, str]) -> object:
    """Both forms lead to each other. One of the pair may be refused, the other then not tried."""
    multihash, text = either
    check(peer_ids.to_text(peer_ids.to_bytes(text)) == text, f"{text!r} does not come back")
    check(peer_ids.to_bytes(peer_ids.to_text(multihash)) == multihash, f"{multihash!r}")
    return True


def multiaddr_input(rng: Random) -> bytes:
    family = rng.choice(("203.0.113.9", "2001:db8::9", "::ffff:203.0.113.9"))
    identity = rng.choice((None, signer("bob").key.peer_id))
    return changed(rng, multiaddr.encode(Endpoint(family, 16112), identity))


def multiaddr_outcome(data: bytes) -> object:
    """What is understood is an address of ours and can be written again."""
    address = multiaddr.decode(data)
    if address is None:
        return None
    again = multiaddr.encode(address.endpoint, address.peer_id)
    check(multiaddr.decode(again) == address, f"{address} does not come back")
    ip = IPv6Address(address.endpoint.host) if address.endpoint.is_ipv6 else None
    check(ip is None or plain(ip) == ip, "an IPv4-mapped address came out")
    return True


# --- kaspad's answers

_KNOWN: Final = rpc_pb.KaspadResponse(id=1)
for _text in ("203.0.113.7:16111", "[2001:db8::1]:16111", "[::ffff:1.2.3.4]:1"):
    _KNOWN.getPeerAddressesResponse.addresses.add(Addr=_text)
_PEERS: Final = rpc_pb.KaspadResponse(id=2)
_PEERS.getConnectedPeerInfoResponse.infos.add(address="203.0.113.7:16111", isOutbound=True)
_REFUSAL: Final = rpc_pb.KaspadResponse(id=3)
_REFUSAL.addPeerResponse.error.message = "unavailable in safe mode"
_ANSWERS: Final = tuple(each.SerializeToString() for each in (_KNOWN, _PEERS, _REFUSAL))


def rpc_input(rng: Random) -> bytes:
    return changed(rng, rng.choice(_ANSWERS))


def rpc_outcome(data: bytes) -> object:
    """Addresses come out in plain form."""
    _, response = kaspa_rpc.decode_response(data)
    if isinstance(response, kaspa_rpc.PeerAddresses):
        for endpoint in response.known:
            check(Endpoint.parse(str(endpoint)) == endpoint, f"{endpoint}")
            ip = ip_address(endpoint.host)
            check(plain(ip) == ip and "%" not in endpoint.host, f"{endpoint}")
    return type(response)


TARGETS: Final[dict[str, tuple[Callable[[Random], Any], Callable[[Any], object]]]] = {
    "kaspa": (kaspa_input, kaspa_outcome),
    "claims": (claim_input, claim_outcome),
    "hints": (hint_input, hint_outcome),
    "peer-ids": (peer_id_input, peer_id_outcome),
    "multiaddrs": (multiaddr_input, multiaddr_outcome),
    "rpc": (rpc_input, rpc_outcome),
    "records": (record_input, record_outcome),
    "gossip": (gossip_input, gossip_outcome),
    "autonat": (autonat_input, autonat_outcome),
}


def try_input(target: str, seed: int, number: int) -> bool:
    """One input; whether it was refused. Raises Broken."""
    make, mean = TARGETS[target]
    rng = Random(f"{target} {seed} {number}")
    hostile = make(rng)
    place = f"{target}, seed {seed}, input {number}"
    try:
        mean(hostile)
    except RemoteProtocolError as error:
        if error.reason not in REASONS:
            raise Broken(f"{place}: reason {error.reason.value}") from error
        return True
    except Broken as error:
        raise Broken(f"{place}: {error}") from None
    except Exception as error:  # whatever else it is, it is the find of this program
        raise Broken(f"{place}: {error!r}") from error
    return False


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tests.fuzz.wire", description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000, help="to each target")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--target", choices=TARGETS, action="append")
    options = parser.parse_args(arguments)
    for target in options.target or TARGETS:
        started = time.monotonic()
        counts: Counter[bool] = Counter()
        try:
            for number in range(options.first, options.first + options.inputs):
                counts[try_input(target, options.seed, number)] += 1
        except Broken as broken:
            print(broken, file=sys.stderr)
            return 1
        seconds = time.monotonic() - started
        print(
            f"{target}: {options.inputs} inputs in {seconds:.0f} s, seed {options.seed}; "
            f"{counts[True]} refused",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
