"""RocksDB, small: options, opening, reading in order. Only this module imports rocksdict.

Measured on x86-64: importing rocksdict costs 8 MB of RSS, an open book 2 MB, a full one 3 MB more,
3 threads and 13 to 16 file descriptors.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from rocksdict import (
    AccessType,
    BlockBasedOptions,
    Cache,
    DBCompressionType,
    DBRecoveryMode,
    Options,
    Rdict,
    WriteBatch,
    WriteOptions,
)

from appliance.units import KIB, MIB

# `capabilities` and `bans` are not written yet: they exist so that the first version that does
# needs no migration.
FAMILIES: Final = ("addresses", "capabilities", "bans", "metadata")

_OPEN_FILES: Final = 64  # of the book's tables; a full book has fewer than 10
_CACHE: Final = 1 * MIB  # shared by all families; the whole book is about 2 MB
_MEMTABLE: Final = 512 * KIB  # of one family, two at most
_MEMTABLES: Final = 2 * MIB  # of all families
_WAL: Final = 2 * MIB


class StoreError(Exception):
    """RocksDB said no. `locked`: another handle has the store open."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))  # RocksDB may use several lines
        self.locked = "lock hold by" in message or "While lock file" in message


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        # rocksdict raises bare `Exception`s; whatever is more specific is not RocksDB's.
        if type(error) is not Exception:
            raise
        raise StoreError(str(error)) from None


def _options(cache: Cache) -> Options:
    options = Options(raw_mode=True)  # keys and values are bytes, readable by any RocksDB
    options.create_if_missing(True)
    options.create_missing_column_families(True)
    options.set_paranoid_checks(True)
    options.set_max_open_files(_OPEN_FILES)
    options.set_table_cache_num_shard_bits(0)
    options.set_write_buffer_size(_MEMTABLE)
    options.set_max_write_buffer_number(2)
    options.set_db_write_buffer_size(_MEMTABLES)
    options.set_arena_block_size(16 * KIB)
    options.set_max_total_wal_size(_WAL)
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
    options.set_block_based_table_factory(tables)
    return options


class Store:
    """An open store with the column families `FAMILIES`. Every method may raise StoreError.

    Writes are in the log when they return: they outlive this process however it dies, but not
    always a loss of power, unless `sync` is asked for.
    """

    def __init__(self, directory: Path, *, read_only: bool = False) -> None:
        """Opens, creating what is missing. `read_only` changes no file and takes no lock."""
        cache = Cache(_CACHE)
        names = self.families(directory) if read_only else FAMILIES
        access = AccessType.read_only(False) if read_only else AccessType.read_write()
        with _translated():
            self._store = Rdict(
                str(directory),
                _options(cache),
                column_families={name: _options(cache) for name in names},
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
        if family not in self._families:
            return None
        with _translated():
            value = self._families[family].get(key)
        return value if isinstance(value, bytes) else None

    def is_foreign(self) -> bool:
        """Whether somebody else's data is in it: rows of ours are never in `default`."""
        with _translated():
            cursor = self._store.iter()
            cursor.seek_to_first()
            cursor.status()
            return bool(cursor.valid()) or not set(self._families) <= set(FAMILIES)

    def items(self, family: str) -> Iterator[tuple[bytes, bytes]]:
        """All rows in the order of their keys, as of the first `next`."""
        if family not in self._families:
            return
        with _translated():
            cursor = self._families[family].iter()
            cursor.seek_to_first()
            while cursor.valid():
                yield bytes(cursor.key()), bytes(cursor.value())
                cursor.next()
            cursor.status()  # an unreadable block ends the rows without a word: this raises

    def write(
        self,
        family: str,
        rows: Mapping[bytes, bytes | None],
        *,
        sync: bool = False,
    ) -> None:
        """All rows or none; None deletes. `sync` waits until the disk has them."""
        with _translated():
            batch = WriteBatch(raw_mode=True)
            for key, value in rows.items():
                if value is None:
                    batch.delete(key, self._handles[family])
                else:
                    batch.put(key, value, self._handles[family])
            options = WriteOptions()
            options.sync = sync
            self._store.write(batch, options)

    def close(self) -> None:
        """Flush and let go of the files; the store is of no use afterwards."""
        with _translated():
            self._handles.clear()
            while self._families:
                _, family = self._families.popitem()
                family.close()
            self._store.close()
