"""What strangers say, and what of it the book and the shelf hold afterwards."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from appliance.addresses.keys import pack, synthetic
from appliance.addresses.model import Learned, Origin, Source, Want
from appliance.addresses.store import AddressBook
from appliance.discovery.counts import DiscoveryCounts
from appliance.discovery.intake import RECORD_BURST, Intake
from appliance.discovery.shelf import Shelf
from appliance.network import Endpoint, Network
from appliance.reasons import Reason
from appliance.wire.capability import PrivateClaim, PublicClaim, claimed_address, claiming
from appliance.wire.kaspa_messages import NetAddress
from appliance.wire.records import (
    MAX_LIFETIME,
    MAX_SKEW,
    CapabilityRecord,
    expiry,
    next_sequence,
    seal,
    withdrawal,
)
from appliance.wire.ways import RelayWay
from tests.node.peers import STRANGER
from tests.wire.signing import NOW, peer, private, record, resigned, signer

TELLER = Origin(Source.GOSSIP, "198.18.0.1")
HOST = "93.184.10.7"
RELAY = Endpoint(HOST, 16112)
NODE = Endpoint(HOST, 16111)


class Listener:
    """An intake with what it feeds."""

    def __init__(self, book: AddressBook, *, allow_private: bool = False) -> None:
        self.book = book
        self.shelf = Shelf()
        self.counts = DiscoveryCounts()
        self.intake = Intake(
            book, self.shelf, self.counts, Network.SIMNET, peer("us"), allow_private=allow_private
        )

    def hears(self, sealed: bytes, now: float = NOW) -> Learned | None:
        return self.intake.record(sealed, TELLER, now)

    def chosen(self, want: Want, now: float = NOW) -> list[Endpoint]:
        found = self.book.select(16, now, random.Random(1), want)
        return [candidate.endpoint for candidate in found]


@pytest.fixture
def us(tmp_path: Path) -> Iterator[Listener]:
    with AddressBook.open(tmp_path / "book", Network.SIMNET) as book:
        yield Listener(book)


def relay(name: str = "alice", issued: float = NOW) -> CapabilityRecord:
    return record(name, issued, addresses=(RELAY,), node=NODE)


def way_through(name: str = "bob", host: str = HOST) -> CapabilityRecord:
    return private(name, relays=(RelayWay(Endpoint(host, 16112), peer("alice")),))


def sealed(said: CapabilityRecord, name: str = "alice") -> bytes:
    return seal(said, signer(name))


def test_a_signed_relay_is_one_to_choose_and_its_node_is_known(us: Listener) -> None:
    assert us.hears(sealed(relay())) is Learned.NEW
    assert us.chosen(Want.RELAY) == [RELAY]
    assert pack(NODE) in us.book
    assert us.shelf.relays(NOW) != []
    assert us.hears(sealed(relay())) is None  # the same again
    assert us.counts.records_rejected == {Reason.RECORD_SUPERSEDED: 1}


def test_a_relay_that_withdraws_is_none_and_cannot_be_brought_back(us: Listener) -> None:
    old, said = sealed(relay()), relay()
    us.hears(old)
    gone = withdrawal(said.peer_id, said.network, said.sequence + 1)
    assert us.hears(sealed(gone)) is Learned.WITHDRAWN
    assert us.chosen(Want.RELAY) == []
    assert us.shelf.relays(NOW) == []
    assert us.hears(old) is None
    assert us.chosen(Want.RELAY) == []


def test_a_private_peer_is_one_to_reach_through_its_relay(us: Listener) -> None:
    us.hears(sealed(way_through(), "bob"))
    (found,) = us.book.select(4, NOW, random.Random(1), Want.PRIVATE)
    assert found.capability is not None
    assert found.capability.peer_id == peer("bob")
    assert found.capability.hint == f"/ip4/{HOST}/tcp/16112/p2p/{peer('alice')}"
    assert us.shelf.private(NOW) != []


def test_a_peer_s_own_word_replaces_hearsay_about_it(us: Listener) -> None:
    wrong = PrivateClaim(peer_id=peer("bob"), via=RelayWay(Endpoint("93.184.66.6", 16112)))
    us.intake.addresses([claimed_address(wrong)], TELLER, NOW)
    us.hears(sealed(way_through(), "bob"))
    us.intake.addresses([claimed_address(wrong)], Origin(Source.GOSSIP, "198.51.7.7"), NOW)
    said = us.book.capability(synthetic(peer("bob")), NOW)
    assert said is not None
    assert HOST in said.hint


def test_a_private_peer_that_withdraws_is_not_to_be_reached(us: Listener) -> None:
    said = way_through()
    us.hears(sealed(said, "bob"))
    us.hears(sealed(withdrawal(said.peer_id, said.network, said.sequence + 1), "bob"))
    assert us.chosen(Want.PRIVATE) == []
    assert us.shelf.private(NOW) == []


def test_a_relay_that_became_private_is_no_relay_any_more(us: Listener) -> None:
    us.hears(sealed(relay()))
    moved = replace(
        relay(issued=NOW + 1),
        addresses=(),
        offer=None,
        node=None,
        relays=(RelayWay(Endpoint("93.184.10.8", 16112), peer("carol")),),
    )
    assert us.hears(sealed(moved), NOW + 1) is not None
    assert us.chosen(Want.RELAY, NOW + 1) == []
    assert us.chosen(Want.PRIVATE, NOW + 1) != []


def lies() -> dict[str, tuple[bytes, Reason]]:
    good = sealed(relay())
    future = next_sequence(NOW + MAX_SKEW + 60)
    long = replace(relay(), expires=expiry(relay().sequence, MAX_LIFETIME))
    return {
        "another network": (
            sealed(replace(relay(), network=Network.DEVNET)),
            Reason.WRONG_NETWORK,
        ),
        "from the future": (
            sealed(replace(relay(), sequence=future, expires=expiry(future))),
            Reason.RECORD_FROM_FUTURE,
        ),
        "over": (sealed(relay(issued=NOW - 8 * 3600)), Reason.RECORD_EXPIRED),
        "signed by somebody else": (resigned(good, "mallory"), Reason.BAD_SIGNATURE),
        "a bit changed": (good[:-1] + bytes([good[-1] ^ 1]), Reason.BAD_SIGNATURE),
        "padded": (good + b"\x7a\x04junk", Reason.MALFORMED_MESSAGE),
        "too large": (good + bytes(5000), Reason.MESSAGE_TOO_LARGE),
        "nothing": (b"", Reason.MALFORMED_MESSAGE),
        "fine, to show that this test sees": (sealed(long), Reason.IDLE),
    }


@pytest.mark.parametrize("name", list(lies()))
def test_a_lie_leaves_nothing_behind_but_a_count(us: Listener, name: str) -> None:
    data, reason = lies()[name]
    heard = us.hears(data)
    if reason is Reason.IDLE:
        assert heard is Learned.NEW
        return
    assert heard is None
    assert us.counts.records_rejected == {reason: 1}
    assert len(us.book) == len(us.shelf) == 0


def test_addresses_of_the_home_network_are_not_for_strangers_to_name(tmp_path: Path) -> None:
    at = Endpoint("192.168.1.1", 16112)
    inside = sealed(replace(relay(), addresses=(at,), node=Endpoint("10.0.0.1", 16111)))
    behind = sealed(way_through(host="192.168.1.1"), "bob")
    for allowed in (False, True):
        place = tmp_path / str(allowed)
        with AddressBook.open(place, Network.SIMNET, allow_private=allowed) as book:
            us = Listener(book, allow_private=allowed)
            us.hears(inside)
            us.hears(behind)
            assert (us.chosen(Want.RELAY) == [at]) is allowed
            assert (us.chosen(Want.PRIVATE) != []) is allowed
            assert (len(book) == 3) is allowed


def test_what_we_said_ourselves_comes_back_and_is_nothing_new(us: Listener) -> None:
    assert us.hears(sealed(relay("us"), "us")) is None
    own = PublicClaim(node=NODE, relay_port=16112, peer_id=peer("us"))
    us.intake.addresses([claimed_address(own)], TELLER, NOW)
    assert len(us.book) == len(us.shelf) == 0


def test_a_claim_of_gossip_is_no_relay_before_somebody_was_there(us: Listener) -> None:
    claim = PublicClaim(node=NODE, relay_port=16112)
    broken = replace(claimed_address(claim), relay_port=0)
    nobody = NetAddress(ip=ip_address("240.1.2.3"), port=1)
    plain = NetAddress(ip=ip_address("94.1.20.1"), port=16111)
    us.intake.addresses([claimed_address(claim), broken, nobody, plain], TELLER, NOW)
    assert us.chosen(Want.RELAY) == []
    assert us.chosen(Want.CLAIMED) == [NODE]
    assert set(us.chosen(Want.DIRECT)) == {NODE, Endpoint("94.1.20.1", 16111)}
    assert us.counts.addresses["malformed"] == 1


def test_who_looks_for_relays_is_told_of_new_ones_only(us: Listener) -> None:
    told: list[str] = []
    us.intake.on_relays.append(lambda: told.append("relays"))
    us.hears(sealed(way_through(), "bob"))
    us.intake.endpoints([Endpoint("94.1.20.1", 16111)], TELLER, NOW)
    assert told == []
    us.hears(sealed(relay()))
    us.hears(sealed(relay()))
    assert len(told) == 1
    claim = claimed_address(PublicClaim(node=Endpoint("95.1.20.1", 16111), relay_port=16112))
    us.intake.addresses([claim], TELLER, NOW)
    us.intake.addresses([claim], TELLER, NOW + 1)
    assert len(told) == 2


def test_what_a_node_says_of_itself_replaces_what_others_said(us: Listener) -> None:
    claim = PublicClaim(node=NODE, relay_port=16112, capacity=5)
    us.intake.addresses([claimed_address(claim)], TELLER, NOW)
    itself = Origin(Source.GOSSIP, HOST)
    now = replace(claim, relay_port=4001)
    us.intake.version(claiming(STRANGER, now), NODE, itself, NOW)
    said = us.book.capability(pack(NODE), NOW)
    assert said is not None
    assert said.relay_port == 4001
    us.intake.version(STRANGER, NODE, itself, NOW)  # it relays no more, and says nothing of it
    assert us.chosen(Want.CLAIMED) == []
    assert us.chosen(Want.DIRECT) == [NODE]


def test_a_flood_of_keys_from_one_teller_takes_a_bounded_part(us: Listener) -> None:
    for number in range(900):
        net = number % 200
        said = record(
            f"sybil{number}", addresses=(Endpoint(f"93.{net}.1.{number // 200}", 16112),), node=None
        )
        us.hears(seal(said, signer(f"sybil{number}")))
    assert len(us.book) <= 4096 // 16
    assert len(us.shelf) <= 1024 // 8


def test_what_leads_nowhere_is_not_counted_as_news(us: Listener) -> None:
    """Addresses of a home network: nothing of the record is kept, and nothing handed on."""
    inside = replace(relay(), addresses=(Endpoint("192.168.1.1", 16112),), node=None)
    assert us.hears(sealed(inside)) is Learned.UNUSABLE
    assert us.hears(sealed(way_through(host="10.0.0.1"), "bob")) is Learned.UNUSABLE
    assert len(us.book) == len(us.shelf) == 0
    assert us.counts.records == {"unusable": 2}


def test_a_relay_of_many_addresses_is_one_relay(us: Listener) -> None:
    hosts = [Endpoint(f"93.{n}.10.7", 16112) for n in range(5)]
    us.hears(sealed(replace(relay(), addresses=tuple(hosts))))
    assert len(us.chosen(Want.RELAY)) == 5
    assert us.book.counts()["relays"] == 1


def test_one_network_cannot_keep_us_busy_with_signatures(us: Listener) -> None:
    rejected, flood = us.counts.records_rejected, RECORD_BURST + 40
    for number in range(flood):
        said = record(f"s{number}", addresses=(Endpoint("93.1.1.1", 1024 + number),), node=None)
        us.hears(seal(said, signer(f"s{number}")))
    assert rejected == {Reason.TOO_MANY_RECORDS: 40}
    other = Origin(Source.GOSSIP, "94.1.1.1")
    assert us.intake.record(sealed(relay()), other, NOW) is Learned.NEW
    late = record("s0", NOW + 50, addresses=(Endpoint("93.1.1.1", 1024),), node=None)
    assert us.hears(seal(late, signer("s0")), NOW + 50) is not None


def test_the_records_of_one_network_leave_room_for_others(us: Listener) -> None:
    """Identities are free: peers that do not exist, in as many networks as there are relays."""
    for number in range(600):
        name, net = f"ghost{number}", number % 100
        said = private(name, relays=(RelayWay(Endpoint(f"94.{net}.1.1", 16112), peer("alice")),))
        us.hears(seal(said, signer(name)), NOW)
    assert us.book.counts()["peers"] <= 4096 // 4 // 8
    teller = Origin(Source.GOSSIP, "95.1.1.1")
    assert us.intake.record(sealed(way_through(), "bob"), teller, NOW) is Learned.NEW
    assert us.book.capability(peer("bob")) is not None
