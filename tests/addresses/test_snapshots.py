"""The file of the tables: a large book opens from it, also after a crash, or does without it."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from random import Random

import pytest

from appliance.addresses import snapshots
from appliance.addresses.store import AddressBook
from tests.addresses.books import NET, OPEN, leave_as_killed
from tests.addresses.peers import NOW, heard_from, somewhere


@pytest.fixture(autouse=True)
def every_book_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "CACHED_FROM", 50)


class Opening:
    """Opens books, and knows whether they were read row by row."""

    def __init__(self) -> None:
        self.rows = 0

    def __call__(self, place: Path) -> AddressBook:
        self.rows = 0
        return AddressBook.open(place, NET, progress=self._reading)

    def _reading(self, what: str, done: int) -> None:
        assert what == "reading"
        self.rows = done


@pytest.fixture
def opened() -> Opening:
    return Opening()


def filled(book: AddressBook, rng: Random, count: int = 400) -> None:
    for number in range(count // 20):
        book.add([somewhere(rng) for _ in range(20)], heard_from(f"12.{number}.1.1"), NOW)


def test_a_large_book_opens_from_its_file_and_without_it(tmp_path: Path, opened: Opening) -> None:
    place = tmp_path / "book"
    with opened(place) as book:
        filled(book, Random(1))
        everything = set(book.addresses())
        parts = book._tables.dump()
    cache = place / "tables.cache"
    kept = cache.read_bytes()
    with opened(place) as book:
        assert opened.rows == 0
        assert book._tables.dump() == parts
        book.record_success(next(iter(everything)), NOW)
    # Torn, rotten, and one of another time.
    for content in (b"", kept[: len(kept) // 2], kept[:-1] + b"\0", kept):
        cache.write_bytes(content)
        with opened(place) as book:
            assert opened.rows == len(everything)
            assert set(book.addresses()) == everything
            assert book.counts()["tried"] == 1


def test_a_crash_costs_the_next_opening_nothing(tmp_path: Path, opened: Opening) -> None:
    place, crashed, rng = tmp_path / "book", tmp_path / "crashed", Random(2)
    with opened(place) as book:
        filled(book, rng)
        snapshot = book.snapshot()
        assert snapshot is not None
        early = sorted(book.addresses())
        snapshot.write()
        book.kept(snapshot)
        assert book.snapshot() is None  # nothing has changed since
        filled(book, rng, 100)
        for one in early[:30]:
            book.record_success(one, NOW + 1)
        for one in early[20:40]:
            book.forget(one)
        book.add(early[30:35], heard_from("13.1.1.1"), NOW + 2)
        leave_as_killed(book, place, crashed)
        wanted, tried = set(book.addresses()), set(book._tables.tried)
        rows = {one: book._tables.core(book._tables.find(one)) for one in wanted}
    for _ in range(2):  # an opening in vain changes nothing: the second is the same
        with opened(crashed) as book:
            assert opened.rows == 0
            tables = book._tables
            assert {one: tables.core(tables.find(one)) for one in book.addresses()} == rows
            assert len(book) == len(wanted)
            assert len(tables.tried) == len(tried)


def test_a_file_ahead_of_the_store_is_not_believed(tmp_path: Path, opened: Opening) -> None:
    """A backup of the store with the file of a later time beside it."""
    place, backup = tmp_path / "book", tmp_path / "backup"
    with opened(place) as book:
        filled(book, Random(3))
    shutil.copytree(place, backup)
    with opened(place) as book:
        filled(book, Random(4))
    shutil.copy(place / "tables.cache", backup / "tables.cache")
    with opened(backup) as book:
        assert opened.rows == len(book) == len(set(book.addresses())) == 400


# Writes, and writes its tables again and again, until it is killed.
WRITER = OPEN + textwrap.dedent(
    """
    from itertools import count
    from appliance.addresses import snapshots
    from appliance.addresses.keys import MAPPED
    from appliance.addresses.model import Origin, Source
    snapshots.CACHED_FROM = 50
    for number in count():
        net = [11 + number % 80, number // 80 % 250]
        keys = [MAPPED + bytes([*net, 1, n, 9, 9]) for n in range(4)]
        book.add(keys, Origin(Source.GOSSIP, f"12.{number % 250}.1.1"), number)
        book.record_success(keys[0], number)
        if (snapshot := book.snapshot()) is not None:
            snapshot.write()
            book.kept(snapshot)
        print(number, flush=True)
    """
)


def test_a_process_killed_at_any_moment_leaves_a_file_that_fits(
    tmp_path: Path, opened: Opening
) -> None:
    place, fast = tmp_path / "book", 0
    for lines in (40, 77, 120, 200, 333):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(place)], stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout is not None
            for _ in range(lines):
                child.stdout.readline()
            child.send_signal(signal.SIGKILL)
        aside = tmp_path / "aside"
        shutil.copytree(place, aside)
        (aside / "tables.cache").unlink(missing_ok=True)
        with opened(aside) as slow, opened(place) as book:
            fast += not opened.rows
            for one in slow.addresses():
                there, here = slow._tables.find(one), book._tables.find(one)
                assert slow._tables.core(there) == book._tables.core(here)
            assert len(slow) == len(book)
        shutil.rmtree(aside)
    assert fast  # the others were killed between the mark and the file, which may take long
