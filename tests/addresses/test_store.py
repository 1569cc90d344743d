"""The address book over real RocksDB files and real processes."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rocksdict import Options, Rdict

from appliance.addresses import store as store_module
from appliance.addresses.model import PeerRecord, Source
from appliance.addresses.rocks import Store
from appliance.addresses.store import MAX_ENTRIES, AddressBook
from appliance.errors import ApplianceError
from appliance.network import Network

NET = Network.SIMNET
A = "/ip4/192.0.2.1/tcp/16112"


def peer(number: int, **fields: object) -> PeerRecord:
    return PeerRecord(f"12D3KooW{number:044d}", (A,), **fields)  # type: ignore[arg-type]


def data_of(directory: Path) -> dict[str, str]:
    """Every file by its hash, without the lock files."""
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name not in ("owner.lock", "LOCK")
    }


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where a book with 100 peers was closed."""
    directory = tmp_path / "book"
    with AddressBook.open(directory, NET) as book:
        for number in range(100):
            book.remember(peer(number, last_seen=number))
    return directory


def refusal(directory: Path, network: Network = NET) -> str:
    with pytest.raises(ApplianceError) as caught:
        AddressBook.open(directory, network)
    assert caught.value.hint
    assert "\n" not in caught.value.message
    return caught.value.message


def test_what_was_remembered_is_there_after_a_restart(tmp_path: Path) -> None:
    record = PeerRecord("12D3KooWabc", (A,), ("/dns4/r/tcp/1/p2p/Q",), True, 5, 4, 3, 2, Source.MET)
    with AddressBook.open(tmp_path / "state" / "book", NET) as book:
        assert len(book) == 0
        assert book.remember(record)
        assert book.get("12D3KooWabc") == record
        assert book.get("nobody") is None
    with AddressBook.open(tmp_path / "state" / "book", NET) as book:
        assert book.get("12D3KooWabc") == record
        assert list(book.records()) == [record]
        assert list(book.relays()) == [record]
        assert book.forget("12D3KooWabc")
        assert not book.forget("12D3KooWabc")
    with AddressBook.open(tmp_path / "state" / "book", NET) as book:
        assert list(book.records()) == []


def test_experience_is_kept_and_orders_the_book(place: Path) -> None:
    with AddressBook.open(place, NET) as book:
        good, bad = peer(1).peer_id, peer(99).peer_id
        assert book.record_failure("nobody", 1.0) is None
        book.record_failure(bad, 1000.5)
        book.record_success(good, 1000.5)
    with AddressBook.open(place, NET) as book:
        first, *_, last = book.records()
        assert (first.peer_id, first.last_success) == (good, 1000)
        assert (last.peer_id, last.failures, last.last_failure) == (bad, 1, 1000)


def test_lists_are_bounded_and_relays_are_found_among_many_others(place: Path) -> None:
    with AddressBook.open(place, NET) as book:
        assert len(list(book.records(10))) == 10
        relay = peer(7000, is_relay=True, failures=9)
        book.remember(relay)
        assert list(book.relays(1)) == [relay]
        for record in book.records():  # may change while somebody looks
            book.forget(record.peer_id)
        assert len(book) == 0


def test_a_flood_of_gossip_pushes_out_only_gossip(tmp_path: Path) -> None:
    with AddressBook.open(tmp_path / "book", NET) as book:
        declared = peer(90_000, source=Source.DECLARED)
        met = peer(90_001, source=Source.MET, last_success=1)
        book.remember(declared)
        book.remember(met)
        for number in range(MAX_ENTRIES + 500):
            book.remember(peer(number, last_seen=number))
        assert len(book) == MAX_ENTRIES == len(list(book.records()))
        assert declared.peer_id in book
        assert met.peer_id in book
        assert peer(0).peer_id not in book
        assert not book.remember(peer(80_000, last_seen=1))
    with AddressBook.open(tmp_path / "book", NET) as book:
        assert len(book) == MAX_ENTRIES


def test_a_book_that_a_roomier_version_wrote_is_cut_to_size(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "MAX_ENTRIES", 40)
    with AddressBook.open(place, NET) as book:
        assert len(book) == 40 == len(list(book.records()))
        assert next(book.records()).last_seen == 99


def test_it_may_be_opened_in_one_thread_and_used_in_another(place: Path) -> None:
    opened: list[AddressBook] = []
    thread = threading.Thread(target=lambda: opened.append(AddressBook.open(place, NET)))
    thread.start()
    thread.join()
    (book,) = opened
    assert len(list(book.records())) == 100
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
    store.write("metadata", {b"schema": b"2"})
    store.close()
    before = data_of(place)
    assert "written by a newer appliance (schema 2, we know 1)" in refusal(place)
    assert data_of(place) == before


@pytest.mark.parametrize(
    "rows", [{b"schema": b"\xff"}, {b"schema": None}, {b"schema": None, b"network": None}]
)
def test_a_store_without_its_version_is_refused(
    place: Path, rows: dict[bytes, bytes | None]
) -> None:
    store = Store(place)
    store.write("metadata", rows)
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
    store = Store(place)
    store.write("addresses", {peer(5).peer_id.encode(): b"\x01{]", b"\xff": b""})
    store.close()
    with AddressBook.open(place, NET) as book:
        assert (len(book), book.damaged) == (99, 2)
        assert book.get(peer(5).peer_id) is None
        assert book.remember(peer(5))
        assert book.get(peer(5).peer_id) == peer(5)


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
        assert book.remember(peer(500))
    foreign = Store(place)  # RocksDB's own lock, as its tools take it
    assert "is in use by another process" in refusal(place)
    foreign.close()


OPEN = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from appliance.addresses.store import AddressBook
    from appliance.network import Network
    book = AddressBook.open(Path(sys.argv[1]), Network.SIMNET)
    """
)

# Says each number once it is remembered, until it is killed.
WRITER = OPEN + textwrap.dedent(
    """
    from itertools import count
    from appliance.addresses.model import PeerRecord
    print("open", flush=True)
    for number in count():
        book.remember(PeerRecord(f"12D3KooW{number % 6000:044d}", ("/ip4/192.0.2.1/tcp/1",) * 9,
                                 last_seen=number))
        print(number, flush=True)
    """
)


def test_a_killed_process_loses_nothing_it_said_it_had(tmp_path: Path) -> None:
    directory = tmp_path / "book"
    for lines in (1, 50, 3000, 9000):  # beyond the cap and several memtables
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(directory)], stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout is not None
            said = [child.stdout.readline() for _ in range(lines)]
            child.send_signal(signal.SIGKILL)
            said += child.stdout.readlines()
        numbers = [int(line) for line in said[1:] if line.endswith("\n")]
        with AddressBook.open(directory, NET) as book:
            assert book.damaged == 0
            assert len(book) <= MAX_ENTRIES
            for number in numbers[-MAX_ENTRIES // 2 :]:
                record = book.get(f"12D3KooW{number % 6000:044d}")
                assert record is not None
                assert record.last_seen >= number


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
            assert book.remember(peer(1))


def test_an_open_full_book_is_small(tmp_path: Path) -> None:
    """The daemon's idle limit is 110 MB in all; libp2p takes 88 of it."""
    script = OPEN + textwrap.dedent(
        """
        import os
        from appliance.addresses.model import PeerRecord
        def rss():
            return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
        before = rss()
        for number in range(4096):
            book.remember(PeerRecord(f"12D3KooW{number:044d}", ("/ip4/192.0.2.1/tcp/16112",) * 3))
        print(rss() - before, len(os.listdir("/proc/self/fd")))
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "book")],
        capture_output=True,
        text=True,
        check=True,
    )
    grown, descriptors = map(int, done.stdout.split())
    assert grown < 12 * 1024 * 1024
    assert descriptors < 64
