"""Claims in Kaspa's own fields: said, heard, bounded, and never dialled where no host is."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import RemoteProtocolError
from appliance.network import Endpoint
from appliance.reasons import Reason
from appliance.wire.capability import (
    DEFAULT_LIFETIME,
    MAX_CAPACITY,
    MAX_LIFETIME,
    Claim,
    PrivateClaim,
    PublicClaim,
    aged,
    claimed_address,
    claiming,
    read_claim,
    read_version,
    understands_claims,
)
from appliance.wire.kaspa_messages import NetAddress, RelayRole, Version
from appliance.wire.synthetic import can_be_dialled, is_synthetic, synthetic_endpoint
from appliance.wire.ways import RelayWay, parse_hint
from tests.wire.signing import peer

ALICE, BOB = peer("alice"), peer("bob")
NODE = Endpoint("203.0.113.7", 16111)
WAY = RelayWay(Endpoint("203.0.113.9", 16112), BOB)
PUBLIC = PublicClaim(node=NODE, relay_port=16112, peer_id=ALICE, capacity=64, lifetime=900)
PRIVATE = PrivateClaim(peer_id=ALICE, via=WAY, lifetime=900)
PLAIN = NetAddress(ip=IPv4Address("203.0.113.7"), port=16111)
VERSION = Version(
    protocol_version=10,
    network="kaspa-simnet",
    peer_id=bytes(16),
    user_agent="/kaspad:1.1.0/kaspad:1.1.0/",
    timestamp_ms=1,
    address=PLAIN,
)


def malformed(address: NetAddress) -> bool:
    with pytest.raises(RemoteProtocolError) as caught:
        read_claim(address)
    return caught.value.reason is Reason.MALFORMED_MESSAGE


@pytest.mark.parametrize("claim", [PUBLIC, PRIVATE, replace(PRIVATE, node=NODE)], ids=str)
def test_what_is_claimed_is_what_is_heard(claim: Claim) -> None:
    assert read_claim(claimed_address(claim)) == claim
    assert read_version(claiming(VERSION, claim)) == claim
    assert understands_claims(claiming(VERSION, claim))


def test_a_public_claim_fills_the_fields_of_the_contract() -> None:
    said = claiming(VERSION, PUBLIC)
    assert said.services == 1
    assert said.address == NetAddress(
        ip=IPv4Address("203.0.113.7"),
        port=16111,
        services=1,
        relay_port=16112,
        relay_capacity=64,
        relay_ttl_ms=900_000,
        relay_role=RelayRole.PUBLIC,
        libp2p_peer_id=ALICE,
    )


def test_a_private_claim_leaves_the_relay_fields_unset() -> None:
    address = claimed_address(PRIVATE)
    assert (address.services, address.relay_port, address.relay_capacity) == (0, 0, 0)
    assert address.relay_role == RelayRole.PRIVATE
    assert address.relay_circuit_hint == f"/ip4/203.0.113.9/tcp/16112/p2p/{BOB}"
    assert is_synthetic(address.ip)


def test_version_never_holds_an_address_that_stock_would_keep_for_a_private_peer() -> None:
    said = claiming(VERSION, PRIVATE)
    assert said.services == 0
    assert said.address is not None and said.address.ip.is_unspecified


def test_the_synthetic_address_is_made_as_the_contract_says() -> None:
    digest = hashlib.sha256(ALICE.encode()).digest()
    low = int.from_bytes(digest[:4], "big") % 2**28
    port = 1024 + int.from_bytes(digest[4:6], "big") % 64512
    assert synthetic_endpoint(ALICE) == Endpoint(str(IPv4Address(240 * 2**24 + low)), port)


@given(st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=64))
def test_no_synthetic_address_is_ever_a_dial_target(peer_id: str) -> None:
    made = synthetic_endpoint(peer_id)
    assert is_synthetic(ip_address(made.host)) and not can_be_dialled(made)
    mapped = IPv6Address(b"\0" * 10 + b"\xff\xff" + IPv4Address(made.host).packed)
    assert is_synthetic(mapped) and not can_be_dialled(Endpoint(str(mapped), made.port))
    assert 1024 <= made.port <= 65535


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "224.0.0.1", "ff02::1", "255.255.255.255", "::ffff:0.0.0.0"]
)
def test_what_is_no_hosts_address_cannot_be_dialled(host: str) -> None:
    assert not can_be_dialled(Endpoint(host, 16111))


def test_stock_and_older_peers_claim_nothing() -> None:
    for version in (VERSION, replace(VERSION, address=None), replace(VERSION, services=2)):
        assert read_version(version) is None
        assert not understands_claims(version)
    assert read_claim(PLAIN) is None


def test_the_service_bit_of_either_place_counts() -> None:
    """Old relay-capable nodes fill only one of them."""
    address = replace(PLAIN, relay_port=16112)
    expected = PublicClaim(node=NODE, relay_port=16112)
    assert read_version(replace(VERSION, services=1, address=address)) == expected
    assert read_version(replace(VERSION, address=replace(address, services=3))) == expected
    assert read_version(replace(VERSION, services=1, address=None)) is None


@pytest.mark.parametrize("said", [0, 1, 900_000, 3_600_000, 3_600_001, 2**64 - 1])
def test_no_claim_lives_longer_than_an_hour(said: int) -> None:
    for claim in (PUBLIC, PRIVATE):
        heard = read_claim(replace(claimed_address(claim), relay_ttl_ms=said))
        assert heard is not None
        assert 0 < heard.lifetime <= MAX_LIFETIME
        if said == 0:
            assert heard.lifetime == DEFAULT_LIFETIME


def test_a_capacity_beyond_reason_is_cut() -> None:
    heard = read_claim(replace(claimed_address(PUBLIC), relay_capacity=2**32 - 1))
    assert isinstance(heard, PublicClaim) and heard.capacity == MAX_CAPACITY


@pytest.mark.parametrize(
    "changes",
    [
        {"relay_port": 0},
        {"relay_port": 65536},
        {"port": 0},
        {"ip": IPv4Address("240.0.0.1")},
        {"ip": IPv4Address("0.0.0.0")},
        {"ip": IPv4Address("239.0.0.1")},
        {"libp2p_peer_id": "not a peer id"},
        {"libp2p_peer_id": ALICE * 10},
    ],
    ids=str,
)
def test_a_public_claim_that_cannot_be(changes: dict[str, Any]) -> None:
    assert malformed(replace(claimed_address(PUBLIC), **changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"libp2p_peer_id": BOB},  # reached through itself
        {"libp2p_peer_id": peer("carol")},  # the synthetic address is alice's
        {"ip": IPv4Address("240.0.0.1")},
        {"port": 1},
        {"relay_circuit_hint": "not an address"},
        {"relay_circuit_hint": "relay.example:16112"},
        {"relay_circuit_hint": "240.0.0.1:16112"},
        {"relay_circuit_hint": "[::ffff:240.0.0.1]:16112"},
        {"relay_circuit_hint": "/ip4/240.0.0.1/tcp/16112"},
        {"relay_circuit_hint": "203.0.113.9:0"},
        {"relay_circuit_hint": "203.0.113.9:65536"},
        {"relay_circuit_hint": "/dns4/relay.example/tcp/16112"},
        {"relay_circuit_hint": "/ip4/203.0.113.9/udp/16112/quic-v1"},
        {"relay_circuit_hint": "/ip4/::1/tcp/1"},
        {"relay_circuit_hint": f"/ip4/203.0.113.9/tcp/1/p2p/{BOB}/p2p-circuit/p2p/{ALICE}"},
        {"relay_circuit_hint": "[fe80::1%eth0]:1"},
        {"relay_circuit_hint": "1" * 257},
    ],
    ids=str,
)
def test_a_private_claim_that_cannot_be(changes: dict[str, Any]) -> None:
    assert malformed(replace(claimed_address(PRIVATE), **changes))


@pytest.mark.parametrize(
    ("text", "way"),
    [
        ("203.0.113.9:16112", RelayWay(WAY.endpoint)),
        ("[2001:db8::9]:16112", RelayWay(Endpoint("2001:db8::9", 16112))),
        ("[::ffff:203.0.113.9]:16112", RelayWay(WAY.endpoint)),
        ("/ip4/203.0.113.9/tcp/16112", RelayWay(WAY.endpoint)),
        ("/ip6/::ffff:203.0.113.9/tcp/16112", RelayWay(WAY.endpoint)),
        (f"/ip4/203.0.113.9/tcp/16112/p2p/{BOB}", WAY),
        (f"/ip4/203.0.113.9/tcp/16112/p2p/{BOB}/p2p-circuit", WAY),
        (f"/ip4/203.0.113.9/tcp/16112/p2p/{BOB}/", WAY),
    ],
)
def test_hints_as_relay_capable_nodes_write_them(text: str, way: RelayWay) -> None:
    assert parse_hint(text) == way
    assert parse_hint(str(way)) == way


def test_a_role_of_private_outweighs_the_service_bit() -> None:
    both = replace(claimed_address(PRIVATE), services=1, relay_port=16112)
    assert read_claim(both) == PRIVATE
    unsaid = replace(claimed_address(PRIVATE), relay_role=RelayRole.UNSPECIFIED)
    assert read_claim(unsaid) == PRIVATE


def test_a_role_without_a_way_claims_nothing_and_shows_who_understands() -> None:
    waiting = claiming(VERSION, replace(PRIVATE, via=None))
    assert read_version(waiting) is None
    assert understands_claims(waiting)


def test_passing_on_prolongs_nothing() -> None:
    said = claimed_address(PUBLIC)
    halfway = aged(said, 450)
    assert halfway == replace(said, relay_ttl_ms=450_000)
    again = aged(halfway, 450)
    assert again == PLAIN  # the address remains, the claim is over
    assert aged(claimed_address(PRIVATE), 900) is None  # and this was no address
    silent = aged(replace(said, relay_ttl_ms=0), 60)
    assert silent is not None
    assert silent.relay_ttl_ms == (DEFAULT_LIFETIME - 60) * 1000
    assert aged(PLAIN, 1e9) == PLAIN


HOSTS = st.one_of(
    st.ip_addresses(v=4, network="203.0.113.0/24"), st.ip_addresses(v=6, network="2001:db8::/32")
).map(str)
ENDPOINTS = st.builds(Endpoint, HOSTS, st.integers(1, 65535))
LIFETIMES = st.integers(1, int(MAX_LIFETIME))
CLAIMS = st.one_of(
    st.builds(
        PublicClaim,
        node=ENDPOINTS,
        relay_port=st.integers(1, 65535),
        peer_id=st.none() | st.just(ALICE),
        capacity=st.integers(0, MAX_CAPACITY),
        lifetime=LIFETIMES,
    ),
    st.builds(
        PrivateClaim,
        peer_id=st.just(ALICE),
        via=st.builds(RelayWay, ENDPOINTS, st.none() | st.just(BOB)),
        node=st.none() | ENDPOINTS,
        lifetime=LIFETIMES,
    ),
)


@given(CLAIMS)
def test_any_claim_comes_back(claim: Claim) -> None:
    assert read_claim(claimed_address(claim)) == claim
    assert read_version(claiming(VERSION, claim)) == claim
