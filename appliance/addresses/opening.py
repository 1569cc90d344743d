"""The way of a book from its directory into memory: migrated, read, given its places, opened.

The tables are built from the rows, or taken from the file that `snapshots.py` keeps. Nothing is
written before all was read.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final

from appliance.addresses.buckets import merit
from appliance.addresses.examining import (
    ENTRIES,
    GEOMETRY,
    NETWORK_KEY,
    SECRET,
    Examined,
    corrupt,
    examine,
    in_use,
    own,
    to_read,
)
from appliance.addresses.fields import CodecError
from appliance.addresses.keys import KEY_SIZE
from appliance.addresses.migrations import SCHEMA, SCHEMA_KEY, migrate
from appliance.addresses.options import StoreOptions
from appliance.addresses.rocks import Change, Store, StoreError
from appliance.addresses.snapshots import CACHE, Notes, began, drop, forget_notes, restored
from appliance.addresses.systems import AutonomousSystems
from appliance.addresses.tables import Tables
from appliance.addresses.values import core_of, with_core
from appliance.errors import ApplianceError
from appliance.network import Network

_CHUNK: Final = 4096
Progress = Callable[[str, int], None]
"""What goes on, and how many rows are done."""


@dataclass(slots=True)
class Opened:
    """An open book: the lock's descriptor, the store and the tables made from it."""

    lock: int
    store: Store
    tables: Tables
    notes: Notes
    damaged: int


def open_book(
    directory: Path,
    network: Network,
    options: StoreOptions,
    *,
    allow_private: bool,
    systems: AutonomousSystems | None,
    progress: Progress,
) -> Opened:
    """Raises ApplianceError, with the store untouched, if it is corrupt, of another network or a
    newer version, in use, or cannot be written."""
    lock = own(directory)
    empty = partial(Tables, options.entries, allow_private=allow_private, systems=systems)
    try:
        if (store := to_read(directory, options)) is None:
            secret = os.urandom(16)
            loaded = _Loaded(empty(secret), secret)
        else:
            loaded = _read(directory, store, network, options, empty, progress)
        return _open_for_writing(directory, network, options, loaded, lock, progress)
    except BaseException:  # Ctrl-C too: whoever comes next must find it free
        os.close(lock)
        raise


@dataclass(slots=True)
class _Loaded:
    tables: Tables
    secret: bytes
    placed: bool = True  # the rows' buckets are those of these tables
    rows: int = 0
    damaged: int = 0
    notes: Notes | None = None  # if the tables were taken from the file
    misfits: list[tuple[bytes, bytes]] = field(default_factory=list)
    """Rows for which their bucket has no room."""


def _read(
    directory: Path,
    store: Store,
    network: Network,
    options: StoreOptions,
    empty: Callable[[bytes], Tables],
    progress: Progress,
) -> _Loaded:
    """What is in a store, after a migration if need be; the store is closed."""
    try:
        try:
            examined = examine(directory, store, network)
            if examined is not None and (examined.schema < SCHEMA or examined.under_way):
                store.close()
                _migrate(directory, examined, options, progress)
                store = Store(directory, options, mode="read")
            return _load(directory, store, empty, progress)
        finally:
            store.close()
    except StoreError as error:
        raise corrupt(directory, str(error)) from None


def checkpoint_of(directory: Path, schema: int) -> Path:
    """Where the book as it was in version `schema` is kept."""
    return directory.with_name(f"{directory.name}.before-{schema + 1}")


def _migrate(
    directory: Path, examined: Examined, options: StoreOptions, progress: Progress
) -> None:
    try:
        store = Store(directory, options)
        try:
            if examined.under_way:
                begin = examined.under_way
            else:
                begin = examined.schema
                _keep(store, checkpoint_of(directory, begin))
            if store.get("metadata", SECRET) is None:  # where a row belongs follows from that
                secret = os.urandom(16)
                geometry = Tables(options.entries, secret).geometry
                marks: list[Change] = [("metadata", SECRET, secret)]
                store.write([*marks, ("metadata", GEOMETRY, geometry)], sync=True)
            migrate(store, begin, lambda done: progress("migrating", done))
        finally:
            store.close()
    except StoreError as error:
        if error.locked:
            raise in_use(directory) from None
        raise ApplianceError(
            f"the address book {directory} cannot be brought to this version: {error}",
            hint="is the disk full, or mounted read-only? The next start goes on from here",
        ) from None


def _keep(store: Store, place: Path) -> None:
    """A checkpoint at `place`; one that is there already is of a start that was killed."""
    try:
        for stale in (place, place.with_name(f"{place.name}.tmp")):
            if stale.exists():
                shutil.rmtree(stale)
    except OSError as error:
        raise StoreError(f"{place}: {error.strerror}") from None
    store.checkpoint(place)


def _load(
    directory: Path, store: Store, empty: Callable[[bytes], Tables], progress: Progress
) -> _Loaded:
    """Read the whole store without changing it, so that each block's checksum is looked at before
    anything is written; only the cache of a large book takes the place of that."""
    secret = store.get("metadata", SECRET) or os.urandom(16)
    tables = empty(secret)
    loaded = _Loaded(tables, secret)
    loaded.placed = store.get("metadata", GEOMETRY) == tables.geometry
    if loaded.placed and (directory / CACHE).exists():
        loaded.notes = restored(directory, store, tables)
        if loaded.notes is not None:
            return loaded
        loaded.tables = empty(secret)
    rows = _valid(store.items("addresses"), loaded)
    while chunk := list(islice(rows, _CHUNK)):
        loaded.rows += len(chunk)
        if loaded.placed:
            full = dict(loaded.tables.load([(key, core_of(value)) for key, value in chunk]))
            loaded.misfits += [row for row in chunk if row[0] in full] if full else []
        progress("reading", loaded.rows)
    return loaded


def _valid(rows: Iterable[tuple[bytes, bytes]], loaded: _Loaded) -> Iterator[tuple[bytes, bytes]]:
    for key, value in rows:
        try:
            if len(key) != KEY_SIZE:
                raise CodecError(f"a key of {len(key)} bytes")
            core_of(value)
        except CodecError:
            loaded.damaged += 1
            continue
        yield key, value


def _place_anew(store: Store, loaded: _Loaded, progress: Progress) -> None:
    """Give every row its bucket in the new geometry; if there are too many, the best stay."""
    tables, done = loaded.tables, 0
    rows = _valid(store.items("addresses"), _Loaded(tables, b""))
    if loaded.rows > tables.entries:
        rows = iter(sorted(rows, key=lambda row: merit(core_of(row[1])), reverse=True))
    while chunk := list(islice(rows, _CHUNK)):
        _write_placed(store, tables, chunk)
        done += len(chunk)
        progress("placing", done)


def _write_placed(store: Store, tables: Tables, rows: list[tuple[bytes, bytes]]) -> None:
    kept: list[tuple[bytes, bytes]] = []
    gone: list[bytes] = []
    for key, value in rows:
        if (row := tables.place_anew(key, core_of(value))) < 0:
            gone.append(key)
        else:
            kept.append((key, with_core(value, tables.core(row))))
    if rows:
        store.put("addresses", kept, gone)


def _open_for_writing(
    directory: Path,
    network: Network,
    options: StoreOptions,
    loaded: _Loaded,
    lock: int,
    progress: Progress,
) -> Opened:
    try:
        store = Store(directory, options)
        try:
            if loaded.notes is None:
                drop(directory)
                forget_notes(store)
            else:
                forget_notes(store, before=loaded.notes.first)
            marks: list[Change] = []
            if store.get("metadata", SCHEMA_KEY) is None:
                marks.append(("metadata", SCHEMA_KEY, b"%d" % SCHEMA))
                marks.append(("metadata", NETWORK_KEY, network.value.encode("ascii")))
            if store.get("metadata", SECRET) != loaded.secret:
                marks.append(("metadata", SECRET, loaded.secret))
            _write_placed(store, loaded.tables, loaded.misfits)
            if not loaded.placed:
                _place_anew(store, loaded, progress)
            if store.get("metadata", GEOMETRY) != loaded.tables.geometry:
                marks.append(("metadata", GEOMETRY, loaded.tables.geometry))
            entries = b"%d" % options.entries
            if store.get("metadata", ENTRIES) != entries:
                marks.append(("metadata", ENTRIES, entries))
            if marks:
                store.write(marks, sync=True)
            notes = loaded.notes or began(store)
        except BaseException:  # Ctrl-C too: an open store keeps its lock
            store.close()
            raise
    except StoreError as error:
        if error.locked:
            raise in_use(directory) from None
        raise ApplianceError(
            f"the address book {directory} cannot be opened: {error}",
            hint="is the disk full, or mounted read-only?",
        ) from None
    return Opened(lock, store, loaded.tables, notes, loaded.damaged)
