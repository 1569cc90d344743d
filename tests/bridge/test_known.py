"""What the address book offers to the relay pool and to slots."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.addresses.keys import pack, synthetic
from appliance.addresses.model import Origin, RelayClaim, RelayRole, SignedClaim, Source
from appliance.addresses.store import AddressBook
from appliance.bridge.identity import Identity
from appliance.bridge.known import KnownPeers
from appliance.clock import TrioClock
from appliance.network import Endpoint, Network
from appliance.policy.relays import Relay
from appliance.wire.ways import RelayWay

GOSSIP = Origin(Source.GOSSIP, "60.9.9.9")
RELAY = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"


@pytest.fixture
def book(tmp_path: Path) -> Iterator[AddressBook]:
    with AddressBook.open(tmp_path / "book", Network.SIMNET) as opened:
        yield opened


def known(book: AddressBook, *, allow_private: bool = False) -> KnownPeers:
    return KnownPeers(book, random.Random(1), TrioClock(), allow_private=allow_private)


def claim_relay(book: AddressBook, host: str, *, peer_id: str = "", port: int = 16112) -> bytes:
    key = pack(Endpoint(host, 16111))
    claim = RelayClaim(key, relay_port=port, peer_id=peer_id, role=RelayRole.PUBLIC)
    book.learn_claims([claim], GOSSIP, time.time())
    return key


def sign_relay(book: AddressBook, endpoint: Endpoint, peer_id: str) -> None:
    now = time.time()
    record = SignedClaim(peer_id, int(now * 1000), int(now + 3600), (pack(endpoint),), b"sealed")
    book.learn_signed(record, GOSSIP, now)


async def test_a_claimed_relay_is_hearsay_until_a_connection_confirms_it(book: AddressBook) -> None:
    key = claim_relay(book, "60.1.0.1")
    [found] = known(book).relays()
    assert found.relay == Relay(Endpoint("60.1.0.1", 16112))
    assert (found.proven, found.known_as) == (False, key)
    book.confirm_relay(key, RELAY, time.time())
    [found] = known(book).relays()
    assert found.proven
    book.deny_relay(key, time.time())
    assert not known(book).relays()


async def test_a_signed_relay_is_offered_where_it_listens(book: AddressBook) -> None:
    sign_relay(book, Endpoint("60.1.0.1", 4001), RELAY)
    [found] = known(book).relays()
    assert found.relay == Relay(Endpoint("60.1.0.1", 4001), RELAY)
    assert found.proven


async def test_many_relays_of_one_network_are_offered_when_there_is_no_other(
    book: AddressBook,
) -> None:
    for host in range(1, 5):
        sign_relay(book, Endpoint(f"60.1.0.{host}", 4001), Identity.generate().peer_id)
    assert len({one.relay for _ in range(10) for one in known(book).relays()}) >= 2
    sign_relay(book, Endpoint("61.1.0.1", 4001), RELAY)
    # Another network comes first for whoever holds one of the first network.
    first = known(book).relays([Endpoint("60.1.0.1", 4001)])[0]
    assert first.relay.peer_id == RELAY


async def test_a_private_peer_is_offered_with_the_relay_that_hearsay_names(
    book: AddressBook,
) -> None:
    peer = Identity.generate().peer_id
    hint = f"/ip4/60.2.0.1/tcp/16112/p2p/{RELAY}"
    claim = RelayClaim(synthetic(peer), role=RelayRole.PRIVATE, peer_id=peer, hint=hint)
    book.learn_claims([claim], GOSSIP, time.time())
    offers = known(book)
    [found] = offers.private_peers()
    assert (found.peer_id, found.signed) == (peer, False)
    assert found.relays == (Relay(Endpoint("60.2.0.1", 16112), RELAY),)
    assert found.known_as == synthetic(peer)

    # What it signed itself is better, and may name more of them.
    signed = (RelayWay(Endpoint("60.3.0.1", 1), RELAY), RelayWay(Endpoint("10.0.0.1", 1), RELAY))
    offers.signed_ways = lambda peer_id: signed if peer_id == peer else ()
    [found] = offers.private_peers()
    assert found.signed
    assert found.relays == (Relay(Endpoint("60.3.0.1", 1), RELAY),)


async def test_a_private_peer_is_still_known_after_a_restart(tmp_path: Path) -> None:
    """Its row was written before it was known how long the claim counts."""
    peer = Identity.generate().peer_id
    claim = RelayClaim(synthetic(peer), role=RelayRole.PRIVATE, peer_id=peer, hint="60.2.0.1:16112")
    with AddressBook.open(tmp_path / "book", Network.SIMNET) as first:
        first.learn_claims([claim], GOSSIP, time.time())
    with AddressBook.open(tmp_path / "book", Network.SIMNET) as again:
        [found] = known(again).private_peers()
        assert found.relays == (Relay(Endpoint("60.2.0.1", 16112)),)


async def test_strangers_cannot_send_us_into_the_home_network(tmp_path: Path) -> None:
    where = tmp_path / "lab"
    with AddressBook.open(where, Network.SIMNET, allow_private=True) as book:
        sign_relay(book, Endpoint("10.0.0.7", 4001), RELAY)
        assert not known(book).relays()
        assert len(known(book, allow_private=True).relays()) == 1
