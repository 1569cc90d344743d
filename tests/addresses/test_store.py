"""The address book over real RocksDB files and real processes."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from rocksdict import Options, Rdict

from appliance.addresses import store as store_module
from appliance.addresses.keys import MAPPED, synthetic
from appliance.addresses.model import PeerRecord, RelayClaim, RelayRole, Source, Want
from appliance.addresses.options import StoreOptions
from appliance.addresses.rocks import Store
from appliance.addresses.store import AddressBook
from appliance.errors import ApplianceError
from appliance.network import Network
from tests.addresses.peers import DAY, NOW, heard_from, key, peer_id, relay_claim, somewhere

NET = Network.SIMNET
GOSSIP = heard_from("12.9.9.9")


def data_of(directory: Path) -> dict[str, str]:
    """Every file by its hash, without the lock files."""
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name not in ("owner.lock", "LOCK")
    }


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where a book with 100 addresses was closed."""
    directory = tmp_path / "book"
    with AddressBook.open(directory, NET) as book:
        for number in range(0, 100, 20):
            keys = [key(f"{11 + n}.0.0.1") for n in range(number, number + 20)]
            book.add([k for k in keys if k[12] not in (100, 101, 102)], GOSSIP, NOW)
    return directory


def refusal(directory: Path, network: Network = NET) -> str:
    with pytest.raises(ApplianceError) as caught:
        AddressBook.open(directory, network)
    assert caught.value.hint
    assert "\n" not in caught.value.message
    return caught.value.message


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


def test_a_large_book_opens_from_its_cache_and_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "CACHED_FROM", 50)
    place, rng = tmp_path / "book", Random(1)
    read: list[str] = []
    with AddressBook.open(place, NET) as book:
        for number in range(20):
            book.add([somewhere(rng) for _ in range(20)], heard_from(f"12.{number}.1.1"), NOW)
        everything = set(book.addresses())
        parts = book._tables.dump()
    cache = place / "tables.cache"
    kept = cache.read_bytes()
    with AddressBook.open(place, NET, progress=lambda what, _: read.append(what)) as book:
        assert read == []
        assert book._tables.dump() == parts
        assert not cache.exists()
        book.record_success(next(iter(everything)), NOW)
    stale = kept
    for content in (b"", kept[: len(kept) // 2], kept[:-1] + b"\0", stale):
        cache.write_bytes(content)
        with AddressBook.open(place, NET, progress=lambda what, _: read.append(what)) as book:
            assert read.pop() == "reading"
            assert set(book.addresses()) == everything
            assert book.counts()["tried"] == 1
