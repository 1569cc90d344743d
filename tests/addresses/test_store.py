"""The address book over real RocksDB files and real processes."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from appliance.addresses.keys import synthetic
from appliance.addresses.model import PeerRecord, RelayClaim, RelayRole, Source, Want
from appliance.addresses.options import StoreOptions
from appliance.addresses.rocks import Store
from appliance.addresses.store import AddressBook
from appliance.errors import ApplianceError
from appliance.network import Network
from tests.addresses.books import GOSSIP, NET, OPEN, data_of, refusal
from tests.addresses.peers import DAY, NOW, key, peer_id, relay_claim


def test_what_was_told_is_there_after_a_restart(tmp_path: Path) -> None:
    where = key("11.0.0.1")
    with AddressBook.open(tmp_path / "state" / "book", NET) as book:
        assert len(book) == 0
        assert book.add([where, where, key("10.0.0.1")], GOSSIP, NOW).added == 1
        assert book.record_success(where, NOW + 5) is None
        book.learn_claims([relay_claim(key("12.0.0.1"), peer_id=peer_id(1))], GOSSIP, NOW)
        book.ban_ip("13.0.0.1", NOW + 60, "told lies")
        book.ban_peer(peer_id(2), NOW + 60)
    with AddressBook.open(tmp_path / "state" / "book", NET) as book:
        assert book.counts() == {
            "entries": 2, "tried": 1, "relays": 0, "claimed": 1, "private": 0, "peers": 0,
            "bans": 2,
        }  # fmt: skip
        claim = book.capability(key("12.0.0.1"), NOW)
        assert claim is not None
        assert (claim.peer_id, claim.who, claim.signed) == (peer_id(1), "12.9.9.9", False)
        assert book.is_banned(key("13.0.0.1"), NOW)
        assert book.is_banned(peer_id(2), NOW)
        assert not book.is_banned(peer_id(2), NOW + 61)
        assert book.forget(where)
        assert not book.forget(where)
    with AddressBook.open(tmp_path / "state" / "book", NET) as book:
        assert list(book.addresses()) == [key("12.0.0.1")]


def test_a_range_of_the_book_by_prefix(tmp_path: Path) -> None:
    with AddressBook.open(tmp_path / "book", NET) as book:
        book.add([key("11.1.0.1"), key("11.1.0.1", 5), key("11.2.0.1"), key("2a01::1")], GOSSIP, 1)
        assert list(book.addresses(key("11.1.0.0")[:14])) == [key("11.1.0.1", 5), key("11.1.0.1")]
        assert len(list(book.addresses())) == 4


def test_the_operators_relays_by_their_ids(tmp_path: Path) -> None:
    """What the daemon notes of the relays it keeps."""
    relay = PeerRecord(
        peer_id(1),
        ("/ip4/192.168.1.7/tcp/16112/p2p/" + peer_id(1),),
        is_relay=True,
        last_seen=NOW,
        source=Source.DECLARED,
    )
    where = key("192.168.1.7", 16112)
    with AddressBook.open(tmp_path / "book", NET) as book:
        assert book.remember(relay)
        assert book.counts()["relays"] == 1
        book.record_failure(peer_id(1), NOW + 1)
        book.record_success("nobody", NOW)
    with AddressBook.open(tmp_path / "book", NET) as book:
        assert book.remember(relay)
        (only,) = book.select(5, NOW + 50_000_000, Random(1), Want.RELAY)
        assert only.address == where
        book.record_success(peer_id(1), NOW + 2)
        found = book.capability(peer_id(1))
        assert found is not None
        assert found.confirmed == NOW + 2
        assert not book.remember(PeerRecord(peer_id(3), ("/dns4/a.example/tcp/1",)))


def test_an_address_that_fails_is_chosen_less_and_forgiven(tmp_path: Path) -> None:
    keys = [key(f"{11 + n}.0.0.1") for n in range(20)]
    with AddressBook.open(tmp_path / "book", NET) as book:
        book.add(keys, GOSSIP, NOW)
        for _ in range(4):
            book.record_failure(keys[0], NOW)

        def share(now: float) -> float:
            rng = Random(1)
            found = [book.select(1, now, rng)[0].address for _ in range(2000)]
            return found.count(keys[0]) / len(found)

        assert share(NOW + 1) < 0.005
        assert share(NOW + 3 * DAY) > 0.03


def test_a_choice_is_of_different_networks(tmp_path: Path) -> None:
    with AddressBook.open(tmp_path / "book", NET) as book:
        book.add([key(f"11.1.0.{n}") for n in range(1, 30)], GOSSIP, NOW)
        book.add([key(f"{n}.1.0.1") for n in range(12, 20)], GOSSIP, NOW)
        found = book.select(20, NOW, Random(2))
        assert len(found) == 9
        assert len({one.address[12:14] for one in found}) == 9
        found = book.select(20, NOW, Random(2), avoid=[key("11.1.9.9"), key("12.1.0.1")])
        assert len(found) == 7
        book.ban_ip("13.1.0.1", NOW + 10)
        assert len(book.select(20, NOW, Random(2))) == 8


def test_a_private_peer_is_never_for_a_direct_connection(tmp_path: Path) -> None:
    hint = "/ip4/12.0.0.1/tcp/16112/p2p/" + peer_id(9)
    claim = RelayClaim(
        synthetic(peer_id(1)), role=RelayRole.PRIVATE, peer_id=peer_id(1), hint=hint, ttl=600
    )
    other = RelayClaim(synthetic(peer_id(2)), role=RelayRole.PRIVATE, peer_id=peer_id(1), hint=hint)
    with AddressBook.open(tmp_path / "book", NET) as book:
        assert book.learn_claims([claim, other], GOSSIP, NOW).not_routable == 1
        assert book.add([synthetic(peer_id(3))], GOSSIP, NOW).not_routable == 1
        assert book.select(5, NOW, Random(1)) == []
        (found,) = book.select(5, NOW, Random(1), Want.PRIVATE)
        assert found.capability is not None
        assert (found.capability.peer_id, found.capability.hint) == (peer_id(1), hint)
        assert book.select(5, NOW + 601, Random(1), Want.PRIVATE) == []


def test_a_smaller_plan_keeps_the_best(place: Path) -> None:
    good = key("50.0.0.1")
    with AddressBook.open(place, NET) as book:
        assert len(book) == 97
        book.record_success(good, NOW + 5)
    with AddressBook.open(place, NET, StoreOptions(entries=64)) as book:
        assert len(book) <= 64
        assert good in book
        left = set(book.addresses())
        assert len(left) == len(book)
    with AddressBook.open(place, NET, StoreOptions(entries=100_000)) as book:
        assert set(book.addresses()) == left
        assert book.counts()["tried"] == 1


def test_it_may_be_opened_in_one_thread_and_used_in_another(place: Path) -> None:
    opened: list[AddressBook] = []
    thread = threading.Thread(target=lambda: opened.append(AddressBook.open(place, NET)))
    thread.start()
    thread.join()
    (book,) = opened
    assert len(book) == 97
    closing = threading.Thread(target=book.close)
    closing.start()
    closing.join()
    book.close()
    AddressBook.open(place, NET).close()


def test_another_network_is_refused(place: Path) -> None:
    before = data_of(place)
    assert "is of the network simnet, not mainnet" in refusal(place, Network.MAINNET)
    assert data_of(place) == before


def test_a_newer_schema_is_refused(place: Path) -> None:
    store = Store(place)
    store.write([("metadata", b"schema", b"3")])
    store.close()
    before = data_of(place)
    assert "written by a newer appliance (schema 3, we know 2)" in refusal(place)
    assert data_of(place) == before


def test_an_open_full_book_is_small(tmp_path: Path) -> None:
    """The daemon's idle limit is 110 MB in all; libp2p takes 88 of it."""
    script = OPEN + textwrap.dedent(
        """
        import os
        from appliance.addresses.keys import MAPPED
        from appliance.addresses.model import Origin, Source
        def rss():
            return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
        before = rss()
        for number in range(80):
            book.add([MAPPED + bytes([11 + number, n, 1, 1, 9, 9]) for n in range(52)],
                     Origin(Source.GOSSIP, f"12.{number}.1.1"), 1)
        print(rss() - before, len(os.listdir("/proc/self/fd")), len(book))
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "book")],
        capture_output=True,
        text=True,
        check=True,
    )
    grown, descriptors, entries = map(int, done.stdout.split())
    assert entries > 4000
    assert grown < 12 * 1024 * 1024
    assert descriptors < 64


def test_a_closed_book_is_free_for_the_next_whoever_was_reading_it(tmp_path: Path) -> None:
    """RocksDB stays locked as long as one reader of it is left."""
    with AddressBook.open(tmp_path / "book", NET) as book:
        book.add([key(f"{11 + n}.0.0.1") for n in range(50)], GOSSIP, NOW)
        listing = book.addresses()
        next(listing)
        rows = book._store.items("addresses")
        next(rows)
    with AddressBook.open(tmp_path / "book", NET) as book:
        assert len(book) == 50
    assert next(listing, None) is None
    assert next(rows, None) is None


def test_a_closed_book_says_that_it_is_closed(tmp_path: Path) -> None:
    book = AddressBook.open(tmp_path / "book", NET)
    book.add([key("11.0.0.1")], GOSSIP, NOW)
    book.close()
    uses: list[Callable[[], object]] = [
        lambda: book.add([key("12.0.0.1")], GOSSIP, NOW),
        lambda: book.record_failure(key("11.0.0.1"), NOW),
        lambda: book.capability(key("11.0.0.1")),
        lambda: list(book.addresses()),
        book.sync,
    ]
    for use in uses:
        with pytest.raises(ApplianceError, match="it is closed"):
            use()
    assert book.snapshot() is None
    book.close()


def test_the_disk_is_waited_for_in_a_thread_while_the_book_is_closed(tmp_path: Path) -> None:
    """What is under way is waited for, and what comes later is told; the book is free then."""
    for turn in range(20):
        book = AddressBook.open(tmp_path / "book", NET)
        book.add([key(f"{11 + n}.{turn}.0.1") for n in range(10)], GOSSIP, NOW)
        told: list[str] = []

        def wait(book: AddressBook = book, told: list[str] = told) -> None:
            try:
                while True:
                    book.sync()
            except ApplianceError as error:
                told.append(error.message)

        threads = [threading.Thread(target=wait) for _ in range(2)]
        for thread in threads:
            thread.start()
        book.close()
        for thread in threads:
            thread.join()
        assert [message.endswith("it is closed") for message in told] == [True, True]
    with AddressBook.open(tmp_path / "book", NET) as book:
        assert len(book) == 200
