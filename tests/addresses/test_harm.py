"""Damaged files, other users, killed processes, lost power: the book is whole or left alone."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rocksdict import Options, Rdict

from appliance.addresses.keys import MAPPED
from appliance.addresses.rocks import Store
from appliance.addresses.store import AddressBook
from tests.addresses.books import GOSSIP, NET, OPEN, data_of, refusal
from tests.addresses.peers import NOW, key


def garble(path: Path) -> None:
    content = bytearray(path.read_bytes())
    for at in range(0, len(content), 97):
        content[at] ^= 0x5A
    path.write_bytes(content)


@pytest.mark.parametrize("pattern", ["CURRENT", "MANIFEST-*", "*.sst"])
@pytest.mark.parametrize("harm", ["garbled", "emptied", "halved", "removed"])
def test_a_corrupt_store_is_refused_untouched(place: Path, pattern: str, harm: str) -> None:
    for path in list(place.glob(pattern)):
        match harm:
            case "garbled":
                garble(path)
            case "emptied":
                path.write_bytes(b"")
            case "halved":
                path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
            case "removed":
                path.unlink()
    before = data_of(place)
    assert "is corrupt" in refusal(place)
    assert data_of(place) == before


def test_a_row_that_is_no_record_costs_only_itself(place: Path) -> None:
    broken = key("20.0.0.1")
    store = Store(place)
    store.write([("addresses", broken, b"\x01{]"), ("addresses", b"\xff", b"")])
    store.close()
    with AddressBook.open(place, NET) as book:
        assert (len(book), book.damaged) == (96, 2)
        assert broken not in book
        assert book.add([broken], GOSSIP, NOW).added == 1
        assert broken in book


def test_a_file_in_the_way_is_refused_untouched(tmp_path: Path) -> None:
    (tmp_path / "book").write_text("precious")
    assert "is not a directory" in refusal(tmp_path / "book")
    assert "is not a directory" in refusal(tmp_path / "book" / "below")
    assert (tmp_path / "book").read_text() == "precious"


@pytest.fixture
def without_root() -> Iterator[None]:
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    yield
    os.seteuid(user)


@pytest.mark.usefixtures("without_root")
def test_a_place_without_permission_is_refused() -> None:
    with tempfile.TemporaryDirectory() as name:  # readable by all above it, unlike tmp_path
        directory = Path(name)
        directory.chmod(0o500)
        assert "cannot be written: Permission denied" in refusal(directory)
        assert "cannot be written: Permission denied" in refusal(directory / "book")
        directory.chmod(0o700)


def test_a_second_user_of_the_book_is_refused(place: Path) -> None:
    with AddressBook.open(place, NET) as book:
        assert "is in use by another process" in refusal(place)
        done = subprocess.run(
            [sys.executable, "-c", OPEN, str(place)], capture_output=True, text=True, check=False
        )
        assert "is in use by another process" in done.stderr
        assert book.add([key("11.5.5.5")], GOSSIP, NOW).added == 1
    foreign = Store(place)  # RocksDB's own lock, as its tools take it
    assert "is in use by another process" in refusal(place)
    foreign.close()


# Says each number once it is remembered, until it is killed.
WRITER = OPEN + textwrap.dedent(
    """
    from itertools import count
    from appliance.addresses.keys import MAPPED
    from appliance.addresses.model import Origin, Source
    print("open", flush=True)
    for number in count():
        where = MAPPED + bytes([11 + number % 80, number // 80 % 250, 1, 1, 9, 9])
        if where not in book:
            book.add([where], Origin(Source.GOSSIP, f"12.{number % 250}.1.1"), number)
        book.record_failure(where, number)
        print(number, int(where in book), flush=True)
    """
)


def test_a_killed_process_loses_nothing_it_said_it_had(tmp_path: Path) -> None:
    directory = tmp_path / "book"
    for lines in (1, 50, 3000, 9000):  # beyond several memtables
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(directory)], stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout is not None
            said = [child.stdout.readline() for _ in range(lines)]
            child.send_signal(signal.SIGKILL)
            said += child.stdout.readlines()
        whole = [line.split() for line in said[1:] if line.endswith("\n")]
        with AddressBook.open(directory, NET) as book:
            assert book.damaged == 0
            assert len(book) <= 4096
            rows = book._tables
            for text, kept in whole[-1000:]:
                number = int(text)
                row = rows.find(MAPPED + bytes([11 + number % 80, number // 80 % 250, 1, 1, 9, 9]))
                if int(kept) and row >= 0:
                    assert rows.attempt[row] >= number
                elif int(kept):  # crowded out by a later one
                    assert number < int(whole[-1][0]) - 100


def test_a_loss_of_power_at_any_byte_of_the_log_loses_only_the_end(tmp_path: Path) -> None:
    """The log is cut at every offset of its last part: what is left is a state the book had."""
    directory = tmp_path / "book"
    states = []
    book = AddressBook.open(directory, NET)
    for number in range(12):
        book.add([key(f"{11 + number}.{n}.0.1") for n in range(3)], GOSSIP, NOW + number)
        book.record_success(key(f"{11 + number}.0.0.1"), NOW + number)
        states.append(frozenset(book.addresses()))
    book._store.sync()
    log = max(directory.glob("*.log"))
    whole = {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}
    book.close()
    content = whole[log.name]
    end = len(content.rstrip(b"\0"))
    copy = tmp_path / "copy"
    for at in [*range(0, end, 97), *range(end - 150, end + 1)]:
        copy.mkdir()
        for name, data in whole.items():
            (copy / name).write_bytes(data)
        (copy / log.name).write_bytes(content[:at])
        with AddressBook.open(copy, NET) as cut:
            left = frozenset(cut.addresses())
            assert cut.damaged == 0
            assert not left or left in states
            if at == end:
                assert left == states[-1]
        shutil.rmtree(copy)


def test_a_process_killed_while_it_creates_the_book_leaves_no_trap(tmp_path: Path) -> None:
    script = OPEN.replace("book =", "print('go', flush=True)\nbook =")
    for attempt in range(12):
        directory = tmp_path / str(attempt)
        with subprocess.Popen(
            [sys.executable, "-c", script, str(directory)], stdout=subprocess.PIPE
        ) as child:
            assert child.stdout is not None
            child.stdout.readline()
            # Opening takes some 20 ms: spread the kills over it.
            until = time.monotonic() + attempt * 0.003
            while time.monotonic() < until:
                pass
            child.send_signal(signal.SIGKILL)
        with AddressBook.open(directory, NET) as book:
            assert book.add([key("11.0.0.1")], GOSSIP, NOW).added == 1


@pytest.mark.parametrize(
    "rows", [{b"schema": b"\xff"}, {b"schema": None}, {b"schema": None, b"network": None}]
)
def test_a_store_without_its_version_is_refused(
    place: Path, rows: dict[bytes, bytes | None]
) -> None:
    store = Store(place)
    store.write([("metadata", key, value) for key, value in rows.items()])
    store.close()
    before = data_of(place)
    assert "is corrupt" in refusal(place)
    assert data_of(place) == before


def test_somebody_elses_rocksdb_is_left_alone(tmp_path: Path) -> None:
    foreign = Rdict(str(tmp_path / "db"), Options(raw_mode=True))
    foreign[b"kaspa"] = b"block"
    foreign.close()
    before = data_of(tmp_path / "db")
    assert "is not an address book" in refusal(tmp_path / "db")
    assert data_of(tmp_path / "db") == before
