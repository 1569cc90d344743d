"""Peer ids and multiaddrs, against the library that the rest of the world uses."""

from __future__ import annotations

import hashlib

import base58
import multiaddr
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.declaration.addresses import (
    PrivatePeer,
    RelayAddress,
    is_assignable,
    peer_id,
)
from tests.declaration.test_faults import PEER_ID, RELAY, RELAY_ID

RSA_ID = base58.b58encode(b"\x12\x20" + hashlib.sha256(b"key").digest()).decode()
SECP_ID = base58.b58encode(b"\x00\x25\x08\x02\x12\x21\x02" + b"\x11" * 32).decode()


@pytest.mark.parametrize("text", [RELAY_ID, RSA_ID, SECP_ID])
def test_each_form_of_peer_id_is_taken(text: str) -> None:
    assert peer_id(text) == text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty"),
        ("1", "holds no key"),
        ("hello", "base58 character"),
        ("box", "holds no key"),
        (RELAY_ID + "1", "not a peer id"),
        (RELAY_ID[:-2], "not a peer id"),
        ("l" + RELAY_ID[1:], "'l' is not a base58 character"),
        ("1" * 52, "not a peer id"),
        ("z" * 65, "too long"),
        ("z" * 100_000, "too long"),
        ("bafzbeie5745rpv2m6tjyuugywy4d5ewrqgqqhfnf445he3omzpjbx5xqxe", "CID form"),
        ("12D3KooWPLttQvztS48b8FKqHMqcajDACcTqaKgnuYfq4FiekR4é", "base58 character"),
    ],
)
def test_what_is_no_peer_id_is_refused_with_a_reason(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        peer_id(text)


@given(st.binary(min_size=1, max_size=42))
def test_inline_keys_of_any_bytes_survive(key: bytes) -> None:
    text = base58.b58encode(bytes([0, len(key)]) + key).decode()
    assert peer_id(text) == text


@given(st.text(max_size=80))
def test_any_text_is_a_peer_id_or_a_value_error(text: str) -> None:
    try:
        peer_id(text)
    except ValueError:
        return
    assert base58.b58decode(text)


@given(
    st.ip_addresses(v=4) | st.ip_addresses(v=6),
    st.integers(1, 65535),
    st.sampled_from([RELAY_ID, RSA_ID, SECP_ID]),
)
def test_a_relay_reads_as_the_multiaddr_library_reads_it(host: object, port: int, key: str) -> None:
    family = "ip6" if ":" in str(host) else "ip4"
    text = f"/{family}/{host}/tcp/{port}/p2p/{key}"
    try:
        relay = RelayAddress.parse(text)
    except ValueError:
        assert not is_assignable(str(host))
        return
    assert str(relay) == text
    assert multiaddr.Multiaddr(text) == multiaddr.Multiaddr(str(relay))
    circuit = f"{text}/p2p-circuit/p2p/{PEER_ID}"
    assert str(PrivatePeer.parse(circuit)) == circuit


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("198.51.100.20:16112", "does not begin with '/'"),
        (RELAY + "/", "ends with '/'"),
        ("/dns4/relay.example/tcp/1/p2p/" + RELAY_ID, "DNS name"),
        ("/ip4/relay/tcp/1/p2p/" + RELAY_ID, "where an IPv4 address belongs"),
        ("/ip4/2001:db8::1/tcp/1/p2p/" + RELAY_ID, "where an IPv4 address belongs"),
        ("/ip6/198.51.100.20/tcp/1/p2p/" + RELAY_ID, "where an IPv6 address belongs"),
        ("/ip6/fe80::1%eth0/tcp/1/p2p/" + RELAY_ID, "cannot be dialled"),
        ("/ip4/0.0.0.0/tcp/1/p2p/" + RELAY_ID, "cannot be dialled"),
        ("/ip4/224.0.0.1/tcp/1/p2p/" + RELAY_ID, "cannot be dialled"),
        ("/ip6/::ffff:240.1.2.3/tcp/1/p2p/" + RELAY_ID, "cannot be dialled"),
        ("/ip4/198.51.100.20/tcp/0/p2p/" + RELAY_ID, "where a port"),
        ("/ip4/198.51.100.20/tcp/65536/p2p/" + RELAY_ID, "where a port"),
        ("/ip4/198.51.100.20/tcp/٣/p2p/" + RELAY_ID, "where a port"),
        ("/ip4/198.51.100.20/tcp/1/ws/p2p/" + RELAY_ID, "only /p2p/PEERID"),
        (f"{RELAY}/p2p-circuit", "names a circuit"),
        (f"{RELAY}/p2p/{PEER_ID}", "only /p2p/PEERID"),
        ("/", "ends with '/'"),
        ("//", "ends with '/'"),
        ("/ip4", "does not begin with /ip4/IP"),
    ],
)
def test_what_is_no_relay_is_refused_with_a_reason(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        RelayAddress.parse(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (RELAY, "no /p2p-circuit"),
        (f"{RELAY}/p2p-circuit", "no /p2p/PEERID after"),
        (f"{RELAY}/p2p-circuit/p2p/", "no /p2p/PEERID after"),
        (f"{RELAY}/p2p-circuit/p2p/{PEER_ID}/p2p-circuit/p2p/{RSA_ID}", "base58 character"),
        (f"/ip4/198.51.100.20/tcp/1/p2p-circuit/p2p/{PEER_ID}", "no /p2p/PEERID"),
        (f"{RELAY}/p2p-circuitp2p/{PEER_ID}", "no /p2p/PEERID after"),
    ],
)
def test_what_is_no_private_peer_is_refused_with_a_reason(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        PrivatePeer.parse(text)
