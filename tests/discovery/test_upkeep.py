"""The book is cared for while it is in use: rows lapse, and the disk has what was learnt."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from appliance.addresses import snapshots
from appliance.addresses.keys import pack
from appliance.addresses.model import Origin, RelayClaim, RelayRole, Source
from appliance.addresses.store import AddressBook
from appliance.clock import TrioClock
from appliance.discovery.upkeep import Upkeep
from appliance.network import Endpoint, Network
from appliance.units import HOUR, MINUTE

TELLER = Origin(Source.GOSSIP, "93.184.1.1")


class Later(TrioClock):
    """A wall clock that goes with the virtual one."""

    def wall(self) -> float:
        return 1_800_000_000 + trio.current_time()


async def upkeep_until(book: AddressBook, done: Callable[[], bool]) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Upkeep(book, random.Random(1), Later()).run)
        while not done():  # noqa: ASYNC110 - a book tells nobody what is done to it
            await trio.sleep(MINUTE)
        nursery.cancel_scope.cancel()


async def test_what_was_claimed_lapses(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    with AddressBook.open(tmp_path / "book", Network.SIMNET) as book:
        at = pack(Endpoint("94.1.1.1", 16111))
        claim = RelayClaim(at, 16112, ttl=60, role=RelayRole.PUBLIC)
        book.learn_claims([claim], TELLER, Later().wall())
        assert book.counts()["claimed"] == 1
        await upkeep_until(book, lambda: not book.counts()["claimed"])
        assert trio.current_time() > HOUR * 20  # a day's silence, then it is forgotten
        assert at in book


async def test_a_large_book_writes_its_tables(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "CACHED_FROM", 3)
    place = tmp_path / "book"
    with AddressBook.open(place, Network.SIMNET) as book:
        book.add([pack(Endpoint(f"94.{n}.1.1", 16111)) for n in range(9)], TELLER, Later().wall())
        await upkeep_until(book, (place / "tables.cache").exists)


async def test_a_disk_that_fails_is_tried_again(
    tmp_path: Path,
    autojump_clock: trio.testing.MockClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(snapshots, "CACHED_FROM", 3)
    place = tmp_path / "book"
    with AddressBook.open(place, Network.SIMNET) as book:
        book.add([pack(Endpoint(f"94.{n}.1.1", 16111)) for n in range(9)], TELLER, Later().wall())
        (place / "tables.tmp").mkdir()  # nothing can be written there
        await upkeep_until(book, lambda: bool(caplog.records))
        assert not (place / "tables.cache").exists()
        shutil.rmtree(place / "tables.tmp")
        await upkeep_until(book, (place / "tables.cache").exists)
