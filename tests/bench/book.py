"""The address book at full size: inserting, opening, choosing, memory, migrating.

    python -m tests.bench.book --entries 1000000
    python -m tests.bench.book --only migrate --rows 1000000 --kills 10

Inserting is measured beside rocksdict alone, which gets the same bytes in batches of the same
size, in turns within one run: what else the machine does slows both.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from rocksdict import WriteBatch

from appliance.addresses import legacy
from appliance.addresses.keys import MAPPED
from appliance.addresses.migrations import SCHEMA
from appliance.addresses.model import Origin, PeerRecord, Source, Want
from appliance.addresses.options import StoreOptions
from appliance.addresses.rocks import Store
from appliance.addresses.store import AddressBook
from appliance.network import Network
from appliance.units import MIB

NET: Final = Network.MAINNET
BATCH: Final = 1000  # addresses of one message
NOW: Final = 1_800_000_000
TURNS: Final = 10


def options(entries: int) -> StoreOptions:
    """What the plan gives a server (`plan --profile x86-large`, `store`)."""
    return StoreOptions(
        entries, max_open_files=48, block_cache_bytes=32 * MIB, write_buffer_bytes=16 * MIB
    )


def public_addresses(count: int, seed: int) -> Iterator[bytes]:
    """Distinct addresses of networks that strangers may name."""
    rng = random.Random(seed)
    seen: set[bytes] = set()
    while len(seen) < count:
        first = rng.choice((rng.randrange(11, 100), rng.randrange(128, 168)))
        key = MAPPED + bytes([first]) + rng.randbytes(3) + (16111).to_bytes(2, "big")
        if key not in seen:
            seen.add(key)
            yield key


def messages(keys: list[bytes]) -> Iterator[tuple[Origin, list[bytes]]]:
    """Lists of addresses, each from another peer."""
    rng = random.Random(5)
    for at in range(0, len(keys), BATCH):
        teller = Origin(Source.GOSSIP, f"{rng.randrange(11, 99)}.{rng.randrange(256)}.1.1")
        yield teller, keys[at : at + BATCH]


def bare_put(raw: Store, rows: list[tuple[bytes, bytes]]) -> None:
    """As rocksdict's users write a batch."""
    batch, family = WriteBatch(raw_mode=True), raw._handles["addresses"]
    for key, value in rows:
        batch.put(key, value, family)
    raw._store.write(batch)


def insert(place: Path, entries: int) -> None:
    """Fill a book, in turns with a bare store that gets the same rows."""
    keys = list(public_addresses(entries, 1))
    told = list(messages(keys))
    book = AddressBook.open(place / "book", NET, options(entries))
    raw = Store(place / "raw", options(entries))
    ours = bare = 0.0
    turn = max(1, len(told) // TURNS)
    for at in range(0, len(told), turn):
        part = told[at : at + turn]
        started = time.perf_counter()
        for origin, addresses in part:
            book.add(addresses, origin, NOW)
        ours += time.perf_counter() - started
        rows = [
            [(key, book._store.get("addresses", key) or b"\0" * 80) for key in addresses]
            for _, addresses in part
        ]
        started = time.perf_counter()
        for batch in rows:
            bare_put(raw, batch)
        bare += time.perf_counter() - started
    print(f"insert: {entries} addresses, of which {len(book)} are kept")
    print(f"  the book      {ours:6.2f} s  {entries / ours:9.0f} a second")
    print(f"  rocksdict     {bare:6.2f} s  {entries / bare:9.0f} a second")
    print(f"  share         {bare / ours:6.2f}")
    print(f"memory: {book.memory_bytes / len(book):.0f} bytes an entry in the tables")
    started = time.perf_counter()
    book.close()
    print(f"close: {time.perf_counter() - started:.2f} s")
    raw.close()


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def choose(place: Path, entries: int, *, cache: bool = True) -> None:
    """Open the full book and choose from it."""
    if not cache:
        (place / "book" / "tables.cache").unlink()
    before = resident()
    started = time.perf_counter()
    book = AddressBook.open(place / "book", NET, options(entries))
    took = time.perf_counter() - started
    print(f"open{'' if cache else ' after a crash'}: {took:.2f} s, {len(book)} entries, ", end="")
    print(f"{(resident() - before) / len(book):.0f} bytes of memory an entry, all in all")
    for want in (Want.DIRECT,):
        rng = random.Random(3)
        started = time.perf_counter()
        for _ in range(10_000):
            book.select(1, NOW + 60, rng, want)
        print(f"choose: 10000 in {time.perf_counter() - started:.2f} s")
    book.close()


def write_version_1(place: Path, rows: int) -> None:
    """A book as version 1 wrote it, larger than it ever was."""
    store = Store(place, options(rows))
    store.write([("metadata", b"schema", b"1"), ("metadata", b"network", NET.value.encode())])
    batch: dict[bytes, bytes] = {}
    for number, key in enumerate(public_addresses(rows, 2)):
        ip = ".".join(map(str, key[12:16]))
        record = PeerRecord(
            f"12D3KooW{number:044d}",
            (f"/ip4/{ip}/tcp/16112",),
            is_relay=number % 50 == 0,
            last_seen=NOW,
            last_success=NOW if number % 3 == 0 else 0,
            source=Source.MET,
        )
        batch[record.peer_id.encode()] = legacy.encode(record)
        if len(batch) == BATCH:
            store.put("addresses", batch.items())
            batch.clear()
    store.put("addresses", batch.items())
    store.close()


CHILD: Final = """
import sys
from pathlib import Path
from tests.bench.book import NET, options
from appliance.addresses.store import AddressBook
def tell(what, done):
    print(what, done, flush=True)
AddressBook.open(Path(sys.argv[1]), NET, options(int(sys.argv[2])), progress=tell).close()
print("open", flush=True)
"""


def migrate(place: Path, rows: int, kills: int) -> None:
    """Migrate once in peace, once killed at random points; both must hold everything."""
    write_version_1(place / "old", rows)
    shutil.copytree(place / "old", place / "killed")
    steps: list[tuple[str, int, float]] = []
    started = time.perf_counter()
    book = AddressBook.open(
        place / "old",
        NET,
        options(rows),
        progress=lambda what, done: steps.append((what, done, time.perf_counter())),
    )
    total = time.perf_counter() - started
    migrated = [step for step in steps if step[0] == "migrating"]
    rate = migrated[-1][1] / (migrated[-1][2] - started)
    print(f"migrate: {rows} rows, {rate:.0f} a second, told {len(migrated)} times; ", end="")
    print(f"{total:.1f} s until the book was open with {len(book)} entries")
    book.close()
    rng = random.Random(9)
    killed: list[str] = []
    while len(killed) < kills:
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(place / "killed"), str(rows)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert child.stdout is not None
        lines = 0
        until = rng.randrange(1, max(2, rows // 2000 // kills + rows // 4096 // kills))
        while (line := child.stdout.readline()) and line != "open\n":
            lines += 1
            if lines == until:
                child.send_signal(signal.SIGKILL)
                killed.append(line.strip())
                break
        child.wait()
        child.stdout.close()
        if line in ("open\n", ""):
            break
    done = AddressBook.open(place / "killed", NET, options(rows))
    print(f"  killed {len(killed)} times, at: {', '.join(killed)}")
    print(f"  then {len(done)} entries, {done.counts()['peers']} peers, {done.damaged} damaged")
    done.close()
    assert SCHEMA == 2


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tests.bench.book", description=__doc__)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--only", choices=("insert", "migrate"))
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        if given.only != "migrate":
            insert(place, given.entries)
            choose(place, given.entries)
            choose(place, given.entries, cache=False)
            choose(place, given.entries)
        if given.only != "insert":
            migrate(place, given.rows, given.kills)
    return 0


if __name__ == "__main__":
    sys.exit(main())
