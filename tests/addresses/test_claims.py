"""Claims: hearsay that repetition does not keep alive, signatures that are ordered, and proof."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from appliance.addresses.claims import CONFIRMED_FOR, MAX_SIGNED, MAX_TTL, QUIET
from appliance.addresses.keys import synthetic
from appliance.addresses.model import Learned, RelayClaim, RelayRole, SignedClaim, Want
from appliance.addresses.store import AddressBook, Candidate
from appliance.network import Network
from tests.addresses.peers import DAY, NOW, heard_from, key, peer_id, relay_claim, signed

A, B = heard_from("90.1.1.1"), heard_from("91.1.1.1")
R = key("12.0.0.1")


@pytest.fixture
def book(tmp_path: Path) -> Iterator[AddressBook]:
    with AddressBook.open(tmp_path / "book", Network.SIMNET) as book:
        yield book


def chosen(book: AddressBook, want: Want, now: float) -> list[Candidate]:
    return book.select(9, now, Random(1), want)


def test_hearsay_is_a_claim_until_a_connection_proves_it(book: AddressBook) -> None:
    book.learn_claims([relay_claim(R, peer_id=peer_id(1), ttl=3600)], A, NOW)
    assert chosen(book, Want.RELAY, NOW) == []
    (claimed,) = chosen(book, Want.CLAIMED, NOW)
    assert claimed.capability is not None
    assert not claimed.capability.signed
    assert book.confirm_relay(R, peer_id(1), NOW + 60)
    assert chosen(book, Want.CLAIMED, NOW + 60) == []
    (proven,) = chosen(book, Want.RELAY, NOW + 60)
    assert proven.capability is not None
    assert proven.capability.confirmed == NOW + 60
    assert chosen(book, Want.RELAY, NOW + 61 + CONFIRMED_FOR) == []


def test_repetition_keeps_no_claim_alive(book: AddressBook) -> None:
    for minute in range(0, 12 * 60, 5):
        for who in (A, B):
            book.learn_claims([relay_claim(R, ttl=3600)], who, NOW + minute * 60)
    assert chosen(book, Want.CLAIMED, NOW + 3599)
    assert chosen(book, Want.CLAIMED, NOW + 3601) == []
    assert chosen(book, Want.CLAIMED, NOW + 12 * 3600) == []
    book.learn_claims([relay_claim(R, ttl=3600)], A, NOW + 3600 + QUIET + 1)
    assert chosen(book, Want.CLAIMED, NOW + 3600 + QUIET + 2)


def test_a_lifetime_is_capped_whatever_is_said(book: AddressBook) -> None:
    book.learn_claims([relay_claim(R, ttl=10**12)], A, NOW)
    assert chosen(book, Want.CLAIMED, NOW + MAX_TTL - 1)
    assert chosen(book, Want.CLAIMED, NOW + MAX_TTL + 1) == []


def test_who_claimed_may_withdraw_and_others_may_not(book: AddressBook) -> None:
    book.learn_claims([relay_claim(R)], A, NOW)
    book.learn_claims([RelayClaim(R)], B, NOW + 1)
    assert chosen(book, Want.CLAIMED, NOW + 2)
    book.learn_claims([RelayClaim(R)], A, NOW + 3)
    assert chosen(book, Want.CLAIMED, NOW + 4) == []
    book.learn_claims([relay_claim(R)], B, NOW + 5)
    assert chosen(book, Want.CLAIMED, NOW + 6) == []


def test_the_address_itself_has_the_last_word(book: AddressBook) -> None:
    itself = heard_from("12.0.0.1")
    book.learn_claims([relay_claim(R, peer_id=peer_id(7))], A, NOW)
    book.learn_claims([relay_claim(R, peer_id=peer_id(1), capacity=9)], itself, NOW + 1)
    claim = book.capability(R, NOW)
    assert claim is not None
    assert (claim.peer_id, claim.capacity, claim.who) == (peer_id(1), 9, "12.0.0.1")
    book.learn_claims([relay_claim(R, peer_id=peer_id(7))], A, NOW + 2)
    assert book.capability(R, NOW) == claim
    book.learn_claims([RelayClaim(R)], itself, NOW + 3)
    assert chosen(book, Want.CLAIMED, NOW + 4) == []


def test_a_signed_record_counts_and_a_newer_one_replaces_it(book: AddressBook) -> None:
    other = key("13.0.0.1")
    assert book.learn_signed(signed(1, R), A, NOW) is Learned.NEW
    assert [one.address for one in chosen(book, Want.RELAY, NOW)] == [R]
    assert book.learn_signed(signed(1, R), B, NOW + 1) is Learned.KNOWN
    assert book.learn_signed(signed(1, other, seq=3), B, NOW + 2) is Learned.REPLACED
    assert [one.address for one in chosen(book, Want.RELAY, NOW)] == [other]
    assert book.learn_signed(signed(1, R, seq=2), A, NOW + 3) is Learned.REPLAYED
    assert [one.address for one in chosen(book, Want.RELAY, NOW)] == [other]
    assert book.learn_signed(signed(1, seq=4), A, NOW + 4) is Learned.WITHDRAWN
    assert chosen(book, Want.RELAY, NOW + 5) == []
    assert book.learn_signed(signed(1, other, seq=3), B, NOW + 6) is Learned.REPLAYED
    assert [one.seq for one in book.records(NOW, Random(1), 9)] == [4]


def test_a_signed_record_ends_when_it_says_and_soon_enough(book: AddressBook) -> None:
    assert book.learn_signed(signed(1, R, expires=NOW), A, NOW) is Learned.EXPIRED
    assert book.learn_signed(signed(1, R, expires=NOW + 60), A, NOW) is Learned.NEW
    assert chosen(book, Want.RELAY, NOW + 59)
    assert chosen(book, Want.RELAY, NOW + 61) == []
    far = signed(2, key("13.0.0.1"), expires=NOW + 10**9)
    assert book.learn_signed(far, A, NOW) is Learned.NEW
    assert chosen(book, Want.RELAY, NOW + MAX_SIGNED - 1)
    assert chosen(book, Want.RELAY, NOW + MAX_SIGNED + 1) == []


def test_an_address_is_of_one_peer_until_it_fails_the_test(book: AddressBook) -> None:
    assert book.learn_signed(signed(1, R), A, NOW) is Learned.NEW
    assert book.learn_signed(signed(2, R), B, NOW) is Learned.FULL
    book.confirm_relay(R, peer_id(2), NOW + 1)  # whoever is there is not who claimed it first
    (proven,) = chosen(book, Want.RELAY, NOW + 2)
    assert proven.capability is None or proven.capability.peer_id != peer_id(1)
    assert book.learn_signed(signed(2, R, seq=2), B, NOW + 3) is Learned.NEW
    book.deny_relay(R, NOW + 4)
    assert chosen(book, Want.RELAY, NOW + 5) == []


def test_a_newer_record_of_an_address_that_is_not_its_peers_replaces_the_older_one(
    book: AddressBook,
) -> None:
    mine, theirs = key("30.1.0.1"), key("31.1.0.1")
    assert book.learn_signed(signed(1, mine), A, NOW) is Learned.NEW
    assert book.learn_signed(signed(2, theirs), B, NOW) is Learned.NEW
    assert book.learn_signed(signed(2, mine, seq=2), B, NOW) is Learned.REPLACED
    # What was replaced does not come back.
    assert book.learn_signed(signed(2, theirs), B, NOW) is Learned.REPLAYED
    assert book.learn_signed(signed(2, theirs, seq=3), B, NOW) is Learned.REPLACED


def test_a_private_peer_signs_how_it_is_reached(book: AddressBook) -> None:
    record = SignedClaim(
        peer_id(1), 1, NOW + DAY, (), b"e", role=RelayRole.PRIVATE, hint="14.0.0.1:16112"
    )
    assert book.learn_signed(record, A, NOW) is Learned.NEW
    (found,) = chosen(book, Want.PRIVATE, NOW)
    assert found.address == synthetic(peer_id(1))
    assert found.capability is not None
    assert found.capability.signed
    assert found.capability.hint == "14.0.0.1:16112"
    assert chosen(book, Want.DIRECT, NOW) == []


def test_who_is_banned_is_not_heard(book: AddressBook) -> None:
    book.ban_peer(peer_id(1), NOW + 60)
    book.ban_ip("13.0.0.1", NOW + 60)
    assert book.learn_signed(signed(1, R), A, NOW) is Learned.BANNED
    assert book.learn_signed(signed(2, key("13.0.0.1")), A, NOW) is Learned.BANNED
    assert book.add([key("13.0.0.1")], A, NOW).banned == 1
    assert book.add([key("13.0.0.1")], A, NOW + 61).added == 1
    book.learn_claims([relay_claim(R, peer_id=peer_id(1))], A, NOW)
    assert chosen(book, Want.CLAIMED, NOW) == []
    assert book.expire(NOW + 61) == 0
    assert book.bans() == []
    assert book.unban("13.0.0.1") is False


def test_what_lapsed_is_taken_out_in_time(book: AddressBook) -> None:
    for number in range(60):
        where = key(f"{11 + number}.0.0.1")
        book.learn_claims([relay_claim(where)], heard_from(f"90.{number}.1.1"), NOW)
        other = key(f"{11 + number}.0.0.2")
        book.learn_signed(signed(number, other), heard_from(f"91.{number}.1.1"), NOW)
    assert book.counts()["peers"] == 60
    later = NOW + DAY + QUIET + 1
    assert sum(book.expire(later, budget=50) for _ in range(4)) == 120
    counts = book.counts()
    assert (counts["relays"], counts["claimed"], counts["peers"]) == (0, 0, 0)
    assert counts["entries"] == 120
