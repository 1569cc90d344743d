"""The address book at full size: inserting, opening, choosing, memory, migrating; a large table.

    python -m tests.bench.book --entries 1000000
    python -m tests.bench.book --only migrate --rows 1000000 --kills 10
    python -m tests.bench.book --only systems --lines 1200000

Inserting is measured beside rocksdict alone, which gets the same bytes in batches of the same
size, in turns within one run: what else the machine does slows both. Each gets its addresses as a
node does, in objects made just before. "CPU" is that of the thread which does the work: what it
costs, whatever else the machine does.
"""

from __future__ import annotations

import argparse
import ipaddress
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
from typing import Final, Self

from rocksdict import WriteBatch

from appliance.addresses import legacy
from appliance.addresses.compiled import SYSTEMS_CACHE, compiled_systems
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
TURNS: Final = 100
REFUSED: Final = bytes(58)
"""In the place of what the book did not take: as many bytes as it stores of the others."""


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


class Watch:
    """Seconds on the wall, and of this thread's CPU, added up over `with` blocks."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0.0

    def __enter__(self) -> Self:
        self.wall -= time.perf_counter()
        self.cpu -= time.thread_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall += time.perf_counter()
        self.cpu += time.thread_time()

    def __str__(self) -> str:
        return f"{self.wall:.2f} s ({self.cpu:.2f} s CPU)"


def just_made(key: bytes) -> bytes:
    """A copy, of which nobody has taken the hash, and which is still in the processor's cache."""
    return bytes(bytearray(key))


def insert(place: Path, entries: int) -> None:
    """Fill a book, in turns with a bare store that gets the same rows."""
    keys = list(public_addresses(entries, 1))
    told = list(messages(keys))
    book = AddressBook.open(place / "book", NET, options(entries))
    raw = Store(place / "raw", options(entries))
    ours, bare = Watch(), Watch()
    turn = max(1, len(told) // TURNS)
    for at in range(0, len(told), turn):
        part = [(origin, list(map(just_made, keys))) for origin, keys in told[at : at + turn]]
        with ours:
            for origin, addresses in part:
                book.add(addresses, origin, NOW)
        rows = [
            [(just_made(key), book._store.get("addresses", key) or REFUSED) for key in addresses]
            for _, addresses in part
        ]
        with bare:
            for batch in rows:
                bare_put(raw, batch)
    print(f"insert: {entries} addresses, of which {len(book)} are kept")
    print(f"  the book      {ours}  {entries / ours.wall:9.0f} a second")
    print(f"  rocksdict     {bare}  {entries / bare.wall:9.0f} a second")
    print(f"  share         {bare.wall / ours.wall:.2f} (CPU: {bare.cpu / ours.cpu:.2f})")
    print(f"memory: {book.memory_bytes / len(book):.0f} bytes an entry in the tables")
    with Watch() as closing:
        book.close()
    print(f"close: {closing}")
    raw.close()


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def choose(place: Path, entries: int, how: str) -> None:
    """Open the full book and choose from it."""
    before = resident()
    with Watch() as opening:
        book = AddressBook.open(place / "book", NET, options(entries))
    print(f"open {how}: {opening}, {len(book)} entries, ", end="")
    print(f"{(resident() - before) / len(book):.0f} bytes of memory an entry, all in all")
    rng = random.Random(3)
    with Watch() as choosing:
        for _ in range(10_000):
            book.select(1, NOW + 60, rng, Want.DIRECT)
    print(f"choose: 10000 in {choosing}")
    book.close()


CRASHER: Final = """
import os, sys
from pathlib import Path
from tests.bench.book import NET, NOW, messages, options, public_addresses
from appliance.addresses.store import AddressBook
book = AddressBook.open(Path(sys.argv[1]), NET, options(int(sys.argv[2])))
for origin, addresses in messages(list(public_addresses(20_000, 77))):
    book.add(addresses, origin, NOW + 5)
for one in [key for key, _ in zip(book.addresses(), range(20_000))]:
    book.record_failure(one, NOW + 6)
os.kill(os.getpid(), 9)
"""


def crash(place: Path, entries: int) -> None:
    """A process that is killed after 40,000 changes."""
    subprocess.run([sys.executable, "-c", CRASHER, str(place / "book"), str(entries)], check=False)


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


def both() -> tuple[float, float]:
    return time.perf_counter(), time.thread_time()


def migrate(place: Path, rows: int, kills: int) -> None:
    """Migrate once in peace, once killed at random points; both must hold everything."""
    write_version_1(place / "old", rows)
    shutil.copytree(place / "old", place / "killed")
    steps: list[tuple[str, int, float, float]] = []
    started, cpu = time.perf_counter(), time.thread_time()
    with Watch() as total:
        book = AddressBook.open(
            place / "old",
            NET,
            options(rows),
            progress=lambda what, done: steps.append((what, done, *both())),
        )
    migrated = [step for step in steps if step[0] == "migrating"]
    _, done, wall, used = migrated[-1]
    rates = f"{done / (wall - started):.0f} a second ({done / (used - cpu):.0f} a second of CPU)"
    print(f"migrate: {rows} rows, {rates}, told {len(migrated)} times; ", end="")
    print(f"{total} until the book was open with {len(book)} entries")
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
    recovered = AddressBook.open(place / "killed", NET, options(rows))
    print(f"  killed {len(killed)} times, at: {', '.join(killed)}")
    peers, damaged = recovered.counts()["peers"], recovered.damaged
    print(f"  then {len(recovered)} entries, {peers} peers, {damaged} damaged")
    recovered.close()
    assert SCHEMA == 2


def read_table(place: Path, lines: int) -> None:
    """A table of autonomous systems: from its lines, then from what was kept of them."""
    rng = random.Random(4)
    path, cache = place / "asmap.txt", place / SYSTEMS_CACHE
    with path.open("w") as file:
        for number in range(lines):
            network = ipaddress.IPv4Address((11 << 24) + (number << 8))
            file.write(f"{network}/24 {rng.randrange(1, 400_000)}\n")
    for how in ("from its lines", "from what was kept"):
        with Watch() as reading:
            table = compiled_systems(path, cache)
        print(f"systems: {len(table)} ranges {how}: {reading}")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tests.bench.book", description=__doc__)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--lines", type=int, default=1_200_000)
    parser.add_argument("--only", choices=("insert", "migrate", "systems"))
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        if given.only in (None, "insert"):
            insert(place, given.entries)
            choose(place, given.entries, "after a clean close")
            crash(place, given.entries)
            choose(place, given.entries, "after a crash")
            (place / "book" / "tables.cache").unlink()
            choose(place, given.entries, "without the file of the tables")
        if given.only in (None, "migrate"):
            migrate(place, given.rows, given.kills)
        if given.only in (None, "systems"):
            read_table(place, given.lines)
    return 0


if __name__ == "__main__":
    sys.exit(main())
