"""RocksDB, small: options, opening, reading in order. Only this module imports rocksdict.

Measured on x86-64: importing rocksdict costs 8 MB of RSS, an open book 2 MB, a full one of 4,096
entries 3 MB more, 3 threads and 13 to 16 file descriptors.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from itertools import repeat
from operator import setitem
from pathlib import Path
from typing import Final, Literal

from rocksdict import (
    AccessType,
    BlockBasedOptions,
    Cache,
    Checkpoint,
    ColumnFamily,
    DbClosedError,
    DBCompressionType,
    DBRecoveryMode,
    Options,
    Rdict,
    ReadOptions,
    WriteBatch,
    WriteOptions,
)

from appliance.addresses.options import StoreOptions
from appliance.units import KIB

FAMILIES: Final = ("addresses", "capabilities", "bans", "metadata")
Change = tuple[str, bytes, bytes | None]
"""A row to write: column family, key, value; None deletes it."""

_SMALLEST_MEMTABLE: Final = 64 * KIB
_READAHEAD: Final = 256 * KIB


class StoreError(Exception):
    """RocksDB said no. `locked`: another handle has the store open."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))  # RocksDB may use several lines
        self.locked = "lock hold by" in message or "While lock file" in message


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except DbClosedError:
        raise StoreError("it is closed") from None
    except Exception as error:
        # rocksdict raises bare `Exception`s; whatever is more specific is not RocksDB's.
        if type(error) is not Exception:
            raise
        raise StoreError(str(error)) from None


def _options(cache: Cache, limits: StoreOptions) -> Options:
    # Only one family is written in bulk: a quarter for each memtable leaves room for two of it.
    memtable = max(_SMALLEST_MEMTABLE, limits.write_buffer_bytes // 4)
    options = Options(raw_mode=True)  # keys and values are bytes, readable by any RocksDB
    options.create_if_missing(True)
    options.create_missing_column_families(True)
    options.set_paranoid_checks(True)
    options.set_max_open_files(limits.max_open_files)
    options.set_table_cache_num_shard_bits(0)
    options.set_write_buffer_size(memtable)
    options.set_max_write_buffer_number(2)
    options.set_db_write_buffer_size(limits.write_buffer_bytes)
    options.set_arena_block_size(16 * KIB)
    options.set_max_total_wal_size(limits.write_buffer_bytes)
    options.set_manifest_preallocation_size(64 * KIB)
    # A log that ends in rubbish after a loss of power is read up to there: the last seconds of a
    # book are not worth an appliance that does not start. Tables are checked to the last byte.
    options.set_wal_recovery_mode(DBRecoveryMode.point_in_time())
    options.set_max_background_jobs(2)
    options.set_max_file_opening_threads(1)
    # RocksDB's own log; the timers would wake an idle machine every 10 minutes for nothing.
    options.set_keep_log_file_num(2)
    options.set_max_log_file_size(256 * KIB)
    options.set_stats_dump_period_sec(0)
    options.set_stats_persist_period_sec(0)
    options.set_compression_type(DBCompressionType.none())
    tables = BlockBasedOptions()
    tables.set_block_cache(cache)
    tables.set_bloom_filter(10, False)  # 10 bits a key: 1 % of the misses cost a read
    options.set_block_based_table_factory(tables)
    return options


class Store:
    """An open store with the column families `FAMILIES`. Every method may raise StoreError.

    Writes are in the log when they return: they outlive this process however it dies, but not
    always a loss of power, unless `sync` is asked for.
    """

    def __init__(
        self,
        directory: Path,
        options: StoreOptions | None = None,
        *,
        mode: Literal["write", "read", "follow"] = "write",
        scratch: Path | None = None,
    ) -> None:
        """Opens; `write` creates what is missing. `read` changes no file and takes no lock;
        `follow` too, beside a process that writes, and keeps its own log in `scratch`."""
        self._closed = False
        self._at_disk = threading.Lock()
        """Held by whoever waits for the disk in a thread: nobody closes the store meanwhile."""
        self._readers = weakref.WeakSet[Generator[tuple[bytes, bytes], None, None]]()
        limits = options or StoreOptions()
        cache = Cache(limits.block_cache_bytes)
        names = FAMILIES if mode == "write" else self.families(directory)
        access = {
            "write": AccessType.read_write,
            "read": lambda: AccessType.read_only(False),
            "follow": lambda: AccessType.secondary(str(scratch)),
        }[mode]()
        with _translated():
            self._store = Rdict(
                str(directory),
                _options(cache, limits),
                column_families={name: _options(cache, limits) for name in names},
                access_type=access,
            )
        try:
            with _translated():
                self._families = {name: self._store.get_column_family(name) for name in names}
                self._handles = {name: self._store.get_column_family_handle(name) for name in names}
        except StoreError:
            self._store.close()
            raise

    @staticmethod
    def families(directory: Path) -> tuple[str, ...]:
        """The column families of the store at `directory`, `default` left out."""
        with _translated():
            names = Rdict.list_cf(str(directory), Options(raw_mode=True))
        return tuple(name for name in names if name != "default")

    def get(self, family: str, key: bytes) -> bytes | None:
        """One value, checked against its checksum."""
        with _translated():
            rows = self._rows(family)
            value = None if rows is None else rows.get(key)
        return value if isinstance(value, bytes) else None

    def get_all(self, family: str, keys: list[bytes]) -> list[bytes | None]:
        """The values of many keys, None for each that is not there."""
        with _translated():
            found = self._families[family].get(keys) if keys else []
        return [value if isinstance(value, bytes) else None for value in found]

    def is_foreign(self) -> bool:
        """Whether somebody else's data is in it: rows of ours are never in `default`."""
        with _translated():
            cursor = self._store.iter()
            cursor.seek_to_first()
            cursor.status()
            return bool(cursor.valid()) or not set(self._families) <= set(FAMILIES)

    def items(
        self, family: str, prefix: bytes = b"", *, start: bytes | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        """Rows in the order of their keys, as of the first `next`: those with the prefix, or
        those from `start` on."""
        found = self._items(family, prefix, start)
        self._readers.add(found)
        return found

    def _items(
        self, family: str, prefix: bytes, start: bytes | None
    ) -> Generator[tuple[bytes, bytes], None, None]:
        key = None
        with _translated():
            if (rows := self._rows(family)) is None:
                return
            reading = ReadOptions()
            reading.set_readahead_size(_READAHEAD)
            begin = prefix if start is None else start
            for key, value in rows.items(from_key=begin, read_opt=reading):
                if not key.startswith(prefix):
                    return
                yield key, value
            # An unreadable block ends the rows without a word; a cursor tells.
            cursor = rows.iter()
            cursor.seek(begin if key is None else key)
            if cursor.valid():
                cursor.next()
            cursor.status()

    def _rows(self, family: str) -> Rdict | None:
        """None for a family that an older store lacks."""
        if self._closed:
            raise StoreError("it is closed")
        return self._families.get(family)

    def _handle(self, family: str) -> ColumnFamily:
        if self._closed:
            raise StoreError("it is closed")
        return self._handles[family]

    def write(self, changes: Iterable[Change], *, sync: bool = False) -> None:
        """All rows or none. `sync` waits until the disk has them."""
        with _translated():
            batch = WriteBatch(raw_mode=True)
            self._fill(batch, changes)
            self._commit(batch, sync=sync)

    def put(
        self,
        family: str,
        rows: Iterable[tuple[bytes, bytes]],
        gone: Iterable[bytes] = (),
        more: Iterable[Change] = (),
    ) -> None:
        """The same for many rows of one family: `gone` is deleted first; `more` are of any family.
        In the order of their keys each finds its place from the one before, at half the cost."""
        with _translated():
            batch = self._begun(family, gone)
            for key, value in rows:
                batch[key] = value
            self._fill(batch, more)
            self._commit(batch, sync=False)

    def put_alike(
        self,
        family: str,
        keys: Iterable[bytes],
        value: bytes,
        gone: Iterable[bytes] = (),
        more: Iterable[Change] = (),
    ) -> None:
        """The same for rows that have one value."""
        with _translated():
            batch = self._begun(family, gone)
            deque(map(setitem, repeat(batch), keys, repeat(value)), maxlen=0)  # a loop in C
            self._fill(batch, more)
            self._commit(batch, sync=False)

    def _begun(self, family: str, gone: Iterable[bytes]) -> WriteBatch:
        batch = WriteBatch(raw_mode=True)
        batch.set_default_column_family(self._handle(family))
        for key in gone:
            batch.delete(key)
        return batch

    def _fill(self, batch: WriteBatch, changes: Iterable[Change]) -> None:
        for family, key, value in changes:
            if value is None:
                batch.delete(key, self._handle(family))
            else:
                batch.put(key, value, self._handle(family))

    def _commit(self, batch: WriteBatch, *, sync: bool) -> None:
        options = WriteOptions()
        options.sync = sync
        self._store.write(batch, options)

    def sync(self) -> None:
        """Wait until the disk has everything that was written. In any thread."""
        with self._at_disk, _translated():
            self._store.flush_wal(sync=True)

    def sequence(self) -> int:
        """The number of the latest change: the same number, the same content."""
        with _translated():
            return int(self._store.latest_sequence_number())

    def checkpoint(self, directory: Path) -> None:
        """A copy of the store at `directory`, by hard links where that is possible."""
        with _translated():
            Checkpoint(self._store).create_checkpoint(str(directory))

    def close(self) -> None:
        """Flush and let go of the files; the store is of no use afterwards. Idempotent.

        Whoever was in the middle of `items` is at its end: RocksDB stays open, and locked, as long
        as one reader of it is left.
        """
        if self._closed:
            return
        self._closed = True
        with self._at_disk, _translated():
            for reader in list(self._readers):
                reader.close()
            self._handles.clear()
            while self._families:
                _, family = self._families.popitem()
                family.close()
            self._store.close()


def foreign_rows(directory: Path, prefixes: Iterable[int]) -> Iterator[tuple[int, bytes, bytes]]:
    """Rows of somebody else's store under one-byte prefixes: prefix, rest of the key, value.

    Opened read-only. Raises StoreError.
    """
    with _translated():
        options = Options(raw_mode=True)
        options.set_keep_log_file_num(1)
        store = Rdict(str(directory), options, access_type=AccessType.read_only(False))
        try:
            for prefix in prefixes:
                cursor = store.iter()
                cursor.seek(bytes([prefix]))
                while cursor.valid() and (key := bytes(cursor.key()))[0] == prefix:
                    yield prefix, key[1:], bytes(cursor.value())
                    cursor.next()
                cursor.status()
        finally:
            store.close()
