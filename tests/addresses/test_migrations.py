"""From one version to the next: golden books, kills at any point, refusals."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import tarfile
import textwrap
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.addresses import legacy, migrations
from appliance.addresses.keys import from_text
from appliance.addresses.migrations import SCHEMA, converted, usual
from appliance.addresses.model import PeerRecord, Source, Want
from appliance.addresses.options import StoreOptions
from appliance.addresses.rocks import Store
from appliance.addresses.store import AddressBook
from appliance.addresses.values import PEER, texts_of
from appliance.errors import ApplianceError
from appliance.network import Network
from tests.addresses.golden.make_v1 import peers
from tests.addresses.peers import NOW, key, peer_id

NET = Network.SIMNET
GOLDEN = Path(__file__).parent / "golden"


def unpack(version: int, place: Path) -> Path:
    with tarfile.open(GOLDEN / f"v{version}.tar.gz") as tar:
        tar.extractall(place, filter="data")
    return place / "addresses"


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.suffix == ".sst"}


def expect_version_1(book: AddressBook) -> None:
    """Everything that the golden book of version 1 held, found in the new one."""
    keys: set[bytes] = set()
    for fields in peers():
        found = [from_text(text) for text in fields["addresses"]]
        own = [one for one in found if one is not None]
        keys.update(own)
        for one in own:
            row = book._tables.find(one)
            assert row >= 0, fields
            assert book._tables.heard[row] == fields["last_seen"]
            assert book._tables.success[row] == fields["last_success"]
            assert book._tables.attempt[row] == fields["last_failure"]
            assert book._tables.failures[row] == fields["failures"]
            said = book._caps.address(one)
            assert said is not None
            assert (said.peer_id, said.who) == (fields["peer_id"], fields["source"])
        names = [text for text, one in zip(fields["addresses"], found, strict=True) if one is None]
        if names or fields["relays"] or fields["is_relay"] or len(own) > 1:
            peer = book.capability(fields["peer_id"])
            assert peer is not None
            assert peer.addresses == tuple(own)
            value = book._store.get("capabilities", PEER + fields["peer_id"].encode())
            assert value is not None
            assert texts_of(value) == (*names, *fields["relays"])
    assert set(book.addresses()) == keys
    assert book.damaged == 0
    # Declared relays are relays at once; what others said of themselves has lapsed.
    relays = book.select(50, NOW, Random(1), Want.RELAY)
    declared = {fields["peer_id"] for fields in peers() if fields["source"] == "declared"}
    assert {one.capability.peer_id for one in relays if one.capability} <= declared
    assert relays


def test_the_golden_book_of_version_1(tmp_path: Path) -> None:
    place = unpack(1, tmp_path)
    told: list[tuple[str, int]] = []
    with AddressBook.open(place, NET, progress=lambda *step: told.append(step)) as book:
        expect_version_1(book)
    assert ("migrating", 40) in told
    with AddressBook.open(place, NET) as book:
        expect_version_1(book)
    # The book as it was stands beside it, and its own program would open it.
    old = Store(tmp_path / "addresses.before-2", mode="read")
    rows = dict(old.items("addresses"))
    assert old.get("metadata", b"schema") == b"1"
    old.close()
    assert len(rows) == 40
    for fields in peers():
        fields["source"] = Source(fields["source"])
        found = fields["peer_id"].encode()
        assert legacy.decode(found, rows[found]) == PeerRecord(**fields)


def test_the_golden_book_of_version_2(tmp_path: Path) -> None:
    place = unpack(2, tmp_path)
    with AddressBook.open(place, NET) as book:
        assert book.counts() == {
            "entries": 33, "tried": 1, "relays": 3, "claimed": 0, "private": 1, "peers": 2,
            "bans": 2,
        }  # fmt: skip
        signed = book.capability(peer_id(1))
        assert signed is not None
        assert signed.signed
        assert signed.envelope == b"envelope 1"
        proven = book.capability(key("13.0.0.1"), NOW)
        assert proven is not None
        assert (proven.capacity, proven.confirmed) == (7, NOW + 3)
        relays = book.select(9, NOW + 5, Random(1), Want.RELAY)
        assert {one.address for one in relays} == {
            key("13.0.0.1"),
            key("14.0.0.1", 16112),
            key("10.0.0.9", 16112),
        }
        assert {ban.subject for ban in book.bans()} == {"15.0.0.1", peer_id(5)}
    assert not (tmp_path / "addresses.before-3").exists()


def test_an_older_program_refuses_a_book_that_is_under_way(tmp_path: Path) -> None:
    place = unpack(1, tmp_path)
    store = Store(place)
    store.write([("metadata", b"schema", b"%d" % (SCHEMA + 1))])
    store.close()
    before = contents(place)
    with pytest.raises(ApplianceError, match="written by a newer appliance"):
        AddressBook.open(place, NET)
    assert contents(place) == before
    assert not (tmp_path / "addresses.before-2").exists()


CHILD = textwrap.dedent(
    """
    import os, signal, sys
    from pathlib import Path
    sys.path.insert(0, sys.argv[3])
    from appliance.addresses import migrations
    from appliance.addresses.rocks import Store
    from appliance.addresses.store import AddressBook
    from appliance.network import Network
    migrations.BATCH = 3
    left = int(sys.argv[2])
    def counted(method):
        def call(*args, **kwargs):
            global left
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
            return method(*args, **kwargs)
        return call
    for name in ("write", "put", "checkpoint", "close"):
        setattr(Store, name, counted(getattr(Store, name)))
    AddressBook.open(Path(sys.argv[1]), Network.SIMNET).close()
    """
)


def test_a_migration_that_is_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    """Killed before each step that touches the disk, then again and again, then left alone."""
    root = str(Path(__file__).parents[2])
    steps = 0
    while True:
        place = unpack(1, tmp_path / str(steps))
        done = subprocess.run(
            [sys.executable, "-c", CHILD, str(place), str(steps), root], check=False
        )
        with AddressBook.open(place, NET) as book:
            expect_version_1(book)
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL
        steps += 1
    assert steps > 15
    place = unpack(1, tmp_path / "often")
    for _ in range(10):
        subprocess.run([sys.executable, "-c", CHILD, str(place), "6", root], check=False)
    with AddressBook.open(place, NET) as book:
        expect_version_1(book)


def test_a_disk_that_takes_no_checkpoint_leaves_the_book_as_it_was(tmp_path: Path) -> None:
    place = unpack(1, tmp_path)
    (tmp_path / "addresses.before-2").write_text("in the way")
    before = contents(place)
    with pytest.raises(ApplianceError, match="cannot be brought to this version"):
        AddressBook.open(place, NET)
    assert contents(place) == before
    (tmp_path / "addresses.before-2").unlink()
    with AddressBook.open(place, NET) as book:
        expect_version_1(book)


def test_a_book_of_a_small_plan_keeps_the_best_of_the_old_one(tmp_path: Path) -> None:
    place = tmp_path / "addresses"
    store = Store(place)
    store.write([("metadata", b"schema", b"1"), ("metadata", b"network", b"simnet")])
    rows = []
    for number in range(300):
        record = PeerRecord(
            peer_id(number),
            (f"/ip4/11.{number % 250}.{number // 250}.1/tcp/1",),
            last_seen=NOW,
            last_success=NOW if number < 10 else 0,
            source=Source.MET,
        )
        rows.append((record.peer_id.encode(), legacy.encode(record)))
    store.put("addresses", sorted(rows))
    store.close()
    with AddressBook.open(place, NET, StoreOptions(entries=64)) as book:
        assert 40 < len(book) <= 64
        assert len(set(book.addresses())) == len(book)


def test_there_is_a_golden_book_of_every_version() -> None:
    found = {int(re.findall(r"\d+", path.name)[0]) for path in GOLDEN.glob("*.tar.gz")}
    assert found == set(range(1, SCHEMA + 1))
    assert set(migrations._STEPS) == set(range(1, SCHEMA))


numbers = st.integers(0, 300)
octets = st.lists(numbers, min_size=4, max_size=4).map(lambda four: ".".join(map(str, four)))


@given(
    st.lists(st.tuples(octets, st.integers(0, 70_000)), min_size=1, max_size=2),
    st.integers(0, 2**33),
    st.integers(0, 1000),
    st.sampled_from(Source),
    st.booleans(),
)
def test_the_fast_way_writes_what_the_careful_one_does(
    addresses: list[tuple[str, int]], time: int, failures: int, source: Source, is_relay: bool
) -> None:
    fields: dict[str, Any] = {
        "addresses": tuple(f"/ip4/{ip}/tcp/{port}" for ip, port in addresses),
        "last_seen": time,
        "last_success": time // 2,
        "failures": failures,
        "source": source,
        "is_relay": is_relay,
    }
    record = PeerRecord("12D3KooWabc", **fields)
    fast = usual(b"12D3KooWabc", legacy.encode(record))
    if fast is not None:
        assert list(converted(record)) == [("addresses", *fast)]


def test_the_fast_way_is_taken_for_the_usual_record() -> None:
    record = PeerRecord("12D3KooWabc", ("/ip4/11.0.0.1/tcp/16112",), last_seen=NOW)
    assert usual(b"12D3KooWabc", legacy.encode(record)) is not None
