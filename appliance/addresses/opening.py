"""The book's directory: its lock, its refusals, its checkpoint, and the way into memory.

A book is looked at read-only first and refused untouched; only then is it opened for writing.
The tables are built from the rows, or taken from the file that `snapshots.py` keeps.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final

from appliance.addresses.buckets import merit
from appliance.addresses.fields import CodecError
from appliance.addresses.keys import KEY_SIZE
from appliance.addresses.migrations import SCHEMA, SCHEMA_KEY, UNDER_WAY, migrate
from appliance.addresses.options import MAX_ENTRIES, MIN_ENTRIES, StoreOptions
from appliance.addresses.rocks import Change, Store, StoreError
from appliance.addresses.snapshots import CACHE, Notes, began, drop, forget_notes, restored
from appliance.addresses.tables import Tables
from appliance.addresses.values import core_of, with_core
from appliance.errors import ApplianceError
from appliance.network import Network

SECRET: Final = b"secret"
GEOMETRY: Final = b"geometry"
ENTRIES: Final = b"entries"

_LOCK: Final = "owner.lock"
NETWORK_KEY: Final = b"network"
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
    progress: Progress,
) -> Opened:
    """Raises ApplianceError, with the store untouched, if it is corrupt, of another network or a
    newer version, in use, or cannot be written."""
    lock = _own(directory)
    try:
        examined = _examine(directory, network)
        if examined is not None and (examined.schema < SCHEMA or examined.under_way):
            _migrate(directory, examined, options, progress)
        try:
            loaded = _load(directory, options, allow_private=allow_private, progress=progress)
        except StoreError as error:
            raise corrupt(directory, str(error)) from None
        return _open_for_writing(directory, network, options, loaded, lock, progress)
    except BaseException:  # Ctrl-C too: whoever comes next must find it free
        os.close(lock)
        raise


@dataclass(frozen=True, slots=True)
class _Examined:
    schema: int
    under_way: int  # the version a migration came from; 0: none


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


def _own(directory: Path) -> int:
    """Make the directory if need be and lock it; the lock's descriptor. Dies with the process."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except (FileExistsError, NotADirectoryError):
        raise ApplianceError(
            f"the address book's place {directory} is not a directory",
            hint="move the file away, or set state.dir to another place",
        ) from None
    except OSError as error:
        raise ApplianceError(
            f"the address book's directory {directory} cannot be written: {error.strerror}",
            hint="give it to the user that runs the appliance, or set state.dir to another place",
        ) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise _in_use(directory) from None
    return lock


def _in_use(directory: Path) -> ApplianceError:
    return ApplianceError(
        f"the address book {directory} is in use by another process",
        hint="stop the other appliance, or set state.dir to another place",
    )


def corrupt(directory: Path, detail: str) -> ApplianceError:
    return ApplianceError(
        f"the address book {directory} is corrupt: {detail}",
        hint=f"move {directory} away to start with an empty book; nothing in it was changed",
    )


def _examine(directory: Path, network: Network) -> _Examined | None:
    """Look at a store without changing it; None if there is none yet."""
    if not (directory / "CURRENT").exists():
        left_over = [p.name for p in directory.iterdir() if _is_after_creation(p.name)]
        if left_over:
            raise corrupt(directory, f"CURRENT is missing beside {min(left_over)}")
        return None
    try:
        store = Store(directory, mode="read")
        try:
            if store.is_foreign():
                raise ApplianceError(
                    f"the store at {directory} is not an address book of an appliance",
                    hint="set state.dir to another place",
                )
            schema, under_way = store.get("metadata", SCHEMA_KEY), store.get("metadata", UNDER_WAY)
            found = store.get("metadata", NETWORK_KEY)
        finally:
            store.close()
    except StoreError as error:
        raise corrupt(directory, str(error)) from None
    if schema is None and found is None:
        # A process was killed while it created the store: nothing is in it yet. Opening it would
        # delete tables that the store's manifest does not name.
        if any(_is_table(path.name) for path in directory.iterdir()):
            raise corrupt(directory, "it has tables but says no version")
        return None
    return _Examined(
        check_metadata(directory, network, schema, found),
        int(under_way) if under_way is not None and under_way.isdigit() else 0,
    )


def check_metadata(
    directory: Path, network: Network | None, schema: bytes | None, found: bytes | None
) -> int:
    """The schema. Raises ApplianceError if the book is not one that we can use."""
    if schema is None or not (schema.isdigit() and 0 < len(schema) < 10):
        raise corrupt(directory, "its version cannot be read")
    if int(schema) > SCHEMA:
        raise ApplianceError(
            f"the address book {directory} was written by a newer appliance "
            f"(schema {int(schema)}, we know {SCHEMA})",
            hint="update the appliance, or set state.dir to another place",
        )
    if int(schema) < 1:
        raise corrupt(directory, "its version cannot be read")
    name = (found or b"?").decode("ascii", "replace")
    if network is not None and name != network.value:
        raise ApplianceError(
            f"the address book {directory} is of the network {name}, not {network.value}",
            hint="give every network its own state.dir",
        )
    return int(schema)


@dataclass(frozen=True, slots=True)
class BookIdentity:
    """What a closed book says of itself."""

    network: Network
    entries: int


def identity_of(directory: Path) -> BookIdentity | None:
    """Of which network and size a book is; None if there is none. Raises ApplianceError."""
    if not (directory / "CURRENT").exists():
        return None
    try:
        store = Store(directory, mode="read")
        try:
            name = store.get("metadata", NETWORK_KEY)
            entries = store.get("metadata", ENTRIES) or b""
        finally:
            store.close()
    except StoreError as error:
        raise corrupt(directory, str(error)) from None
    if name is None:
        return None
    try:
        network = Network(name.decode("ascii", "replace"))
    except ValueError:
        raise corrupt(directory, "it is of no network that we know") from None
    known = entries.isdigit() and MIN_ENTRIES <= int(entries) <= MAX_ENTRIES
    return BookIdentity(network, int(entries) if known else StoreOptions().entries)


def _is_table(name: str) -> bool:
    return name.endswith(".sst")


def _is_after_creation(name: str) -> bool:
    # RocksDB writes these only after CURRENT: without it they are not a creation cut short.
    return name.startswith("OPTIONS-") or _is_table(name)


def checkpoint_of(directory: Path, schema: int) -> Path:
    """Where the book as it was in version `schema` is kept."""
    return directory.with_name(f"{directory.name}.before-{schema + 1}")


def _migrate(
    directory: Path, examined: _Examined, options: StoreOptions, progress: Progress
) -> None:
    try:
        store = Store(directory, options)
        try:
            if examined.under_way:
                begin = examined.under_way
            else:
                begin = examined.schema
                _keep(store, checkpoint_of(directory, begin))
            tables, marks = _tables(store, options), list[Change]()
            if tables is None:  # the rows are given their buckets on the way
                secret = os.urandom(16)
                tables = Tables(options.entries, secret)
                marks = [("metadata", SECRET, secret), ("metadata", GEOMETRY, tables.geometry)]
            store.write(marks, sync=True)
            migrate(store, begin, tables, lambda done: progress("migrating", done))
        finally:
            store.close()
    except StoreError as error:
        if error.locked:
            raise _in_use(directory) from None
        raise ApplianceError(
            f"the address book {directory} cannot be brought to this version: {error}",
            hint="is the disk full, or mounted read-only? The next start goes on from here",
        ) from None


def _tables(store: Store, options: StoreOptions) -> Tables | None:
    """Empty ones with the book's secret, if it has one."""
    secret = store.get("metadata", SECRET)
    return None if secret is None else Tables(options.entries, secret)


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
    directory: Path, options: StoreOptions, *, allow_private: bool, progress: Progress
) -> _Loaded:
    """Read the whole store without changing it, so that each block's checksum is looked at before
    anything is written; only the cache of a large book takes the place of that."""
    if not (directory / "CURRENT").exists():
        fresh = os.urandom(16)
        return _Loaded(Tables(options.entries, fresh, allow_private=allow_private), fresh)
    store = Store(directory, options, mode="read")
    try:
        secret = store.get("metadata", SECRET) or os.urandom(16)
        tables = Tables(options.entries, secret, allow_private=allow_private)
        loaded = _Loaded(tables, secret)
        loaded.placed = store.get("metadata", GEOMETRY) == loaded.tables.geometry
        if loaded.placed and (directory / CACHE).exists():
            loaded.notes = restored(directory, store, tables)
            if loaded.notes is not None:
                return loaded
            loaded.tables = Tables(options.entries, secret, allow_private=allow_private)
        rows = _valid(store.items("addresses"), loaded)
        while chunk := list(islice(rows, _CHUNK)):
            loaded.rows += len(chunk)
            if loaded.placed:
                full = dict(loaded.tables.load([(key, core_of(value)) for key, value in chunk]))
                loaded.misfits += [row for row in chunk if row[0] in full] if full else []
            progress("reading", loaded.rows)
        return loaded
    finally:
        store.close()


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
            raise _in_use(directory) from None
        raise ApplianceError(
            f"the address book {directory} cannot be opened: {error}",
            hint="is the disk full, or mounted read-only?",
        ) from None
    return Opened(lock, store, loaded.tables, notes, loaded.damaged)
