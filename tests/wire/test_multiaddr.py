"""Binary multiaddrs, compared with bytes written by hand and with the library's own."""

from __future__ import annotations

import base58
import pytest
from hypothesis import given
from hypothesis import strategies as st
from multiaddr import Multiaddr

from appliance.network import Endpoint
from appliance.wire.multiaddr import TcpAddress, decode, encode

PEER = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"
PEER_BYTES = base58.b58decode(PEER)

GOLDEN = {
    # 04 ip4, 06 tcp, port big-endian; 29 ip6 (41); a503 p2p (421), 26 its 38 bytes
    "04cb00710706401f": TcpAddress(Endpoint("203.0.113.7", 16415)),
    "2920010db8000000000000000000000001060050": TcpAddress(Endpoint("2001:db8::1", 80)),
    "047f000001060001a50326" + PEER_BYTES.hex(): TcpAddress(Endpoint("127.0.0.1", 1), PEER_BYTES),
}


@pytest.mark.parametrize(("wire", "meaning"), GOLDEN.items())
def test_golden_addresses(wire: str, meaning: TcpAddress) -> None:
    assert decode(bytes.fromhex(wire)) == meaning
    assert encode(meaning.endpoint, meaning.peer_id).hex() == wire


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)), st.integers(0, 65535), st.booleans())
def test_the_library_agrees(ip: object, port: int, with_peer: bool) -> None:
    endpoint = Endpoint(str(ip), port)
    text = f"/ip{6 if endpoint.is_ipv6 else 4}/{ip}/tcp/{port}" + (
        f"/p2p/{PEER}" if with_peer else ""
    )
    wire = encode(endpoint, PEER_BYTES if with_peer else None)
    assert wire == Multiaddr(text).to_bytes()
    got = decode(wire)
    assert got is not None and got.peer_id == (PEER_BYTES if with_peer else None)
    if getattr(ip, "ipv4_mapped", None) is None:
        assert got.endpoint == endpoint


def test_a_mapped_address_is_the_ipv4_one() -> None:
    mapped = Multiaddr("/ip6/::ffff:10.1.2.3/tcp/5").to_bytes()
    assert decode(mapped) == TcpAddress(Endpoint("10.1.2.3", 5))


@pytest.mark.parametrize(
    "text",
    [
        "/ip4/1.2.3.4/udp/5",
        "/ip4/1.2.3.4/udp/5/quic-v1",
        "/ip4/1.2.3.4",
        "/ip4/1.2.3.4/tcp/5/ws",
        f"/ip4/1.2.3.4/tcp/5/p2p/{PEER}/p2p-circuit",
        f"/ip4/1.2.3.4/tcp/5/p2p/{PEER}/p2p-circuit/p2p/{PEER}",
        "/dns4/example.org/tcp/5",
        f"/p2p/{PEER}",
    ],
)
def test_other_addresses_are_skipped(text: str) -> None:
    assert decode(Multiaddr(text).to_bytes()) is None


@pytest.mark.parametrize("wire", [bytes.fromhex(wire) for wire in GOLDEN])
def test_truncated_and_extended_addresses_are_skipped(wire: bytes) -> None:
    whole = {decode(wire[:cut]) for cut in range(len(wire))} - {None}
    # Only a cut exactly in front of the peer id leaves an address.
    assert whole <= {TcpAddress(Endpoint("127.0.0.1", 1))}
    assert decode(wire + b"\x00") is None


@given(st.binary(max_size=120))
def test_garbage_is_skipped(wire: bytes) -> None:
    decode(wire)
    decode(b"\x04\x7f\x00\x00\x01\x06\x00\x01" + wire)
