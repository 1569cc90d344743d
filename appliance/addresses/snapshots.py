"""The tables as they are in memory, kept in a file, so that a large book opens fast.

From `CACHED_FROM` entries on the tables are written at a clean close and, while the book is in
use, whenever a sixteenth of it has changed. From then on each batch also notes in the metadata
which addresses it changes. To open is to read the file and to look those addresses up; so it takes
no longer after a crash. The file is a cache: without it, or if it does not fit the store, the book
is read row by row and nothing is lost.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Collection
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Final

from appliance.addresses.fields import CodecError
from appliance.addresses.keys import KEY_SIZE
from appliance.addresses.rocks import Change, Store, StoreError
from appliance.addresses.rows import Core
from appliance.addresses.tables import Tables
from appliance.addresses.values import core_of

CACHED_FROM: Final = 50_000  # entries; fewer are read in a quarter of a second
CHANGED_SHARE: Final = 16  # changes in a 16th of the entries are looked up in half a second
CACHE: Final = "tables.cache"
CHANGED: Final = b"changed/"
"""Before the number of a note in the metadata; its value is keys, one after the other."""
TABLES: Final = b"tables"
"""In the metadata: the first note of the file that counts. Numbers are never used twice."""

_MAGIC: Final = b"kaspa-appliance tables 4\n"
_HEAD: Final = struct.Struct("<QQI")
"""Sequence number of the store, number of the first note, how many parts."""
_MOST_PARTS: Final = 64
Row = tuple[bytes, Core]


class Notes:
    """What changed since the tables were dumped; `first` is None while they never were."""

    def __init__(self, first: int | None, following: int, keys: int) -> None:
        self.first = first
        self.stands = first is not None  # the file was written, too
        self.following = following
        """The number of the next note."""
        self.keys = keys
        """How many keys the notes since `first` have, each counted as often as it changed."""

    def about(self, keys: Collection[bytes], others: Collection[bytes] = ()) -> list[Change]:
        """The note to write in the same batch as changes of those addresses."""
        if self.first is None or not (keys or others):
            return []
        number, self.following = self.following, self.following + 1
        self.keys += len(keys) + len(others)
        return [("metadata", _name(number), b"".join(keys) + b"".join(others))]

    def are_many(self, entries: int) -> bool:
        """Whether a book of that size should write its tables."""
        return not self.stands or self.keys * CHANGED_SHARE > entries

    def begin_anew(self) -> int:
        """The tables are dumped now: the number of the first note after that."""
        self.first, self.keys, self.stands = self.following, 0, False
        return self.first


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The tables of one moment, to be written by any thread: `write`, then `AddressBook.kept`."""

    directory: Path
    store: Store
    sequence: int
    first: int
    identity: bytes
    parts: list[bytes]
    synced: bool = False

    def write(self) -> None:
        """Blocks on the disk. Raises OSError, and StoreError if the log cannot be synced."""
        if not self.synced:
            self.store.sync()  # the file must never be ahead of the store
        check = hashlib.sha256()  # processors have instructions for it
        place = self.directory / CACHE
        draft = place.with_suffix(".tmp")
        with draft.open("wb") as file:
            file.write(_MAGIC + _HEAD.pack(self.sequence, self.first, len(self.parts)))
            file.write(self.identity)
            for part in self.parts:
                check.update(part)
                file.write(struct.pack("<Q", len(part)))
                file.write(part)
            file.write(check.digest())
            file.flush()
            os.fsync(file.fileno())
        draft.replace(place)


def began(store: Store) -> Notes:
    """Of a store without a file of its tables. Raises StoreError."""
    return Notes(None, store.sequence(), 0)


def identity_of(tables: Tables) -> bytes:
    """Of the book that tables belong to."""
    return tables.prf(b"cache", 16)


def restored(directory: Path, store: Store, tables: Tables) -> Notes | None:
    """Fill empty tables from the file and the notes; None if they do not fit the store. Then
    something may be in the tables: make others. Raises StoreError."""
    found = _read(directory, store.sequence(), tables)
    if found is None:
        return None
    first, parts = found
    if store.get("metadata", TABLES) != first.to_bytes(8, "big"):
        return None  # of another time
    try:
        tables.restore(parts)
        notes, changed = _changed(store, first)
        _catch_up(store, tables, changed)
    except (CodecError, ValueError):
        return None
    return notes


def forget_notes(store: Store, before: int | None = None) -> None:
    """Take away the notes with lower numbers, or all. Raises StoreError."""
    end = CHANGED + b"\xff" * 8 if before is None else _name(before)
    names = (key for key, _ in store.items("metadata", CHANGED))
    if gone := list(takewhile(lambda name: name < end, names)):
        store.write([("metadata", key, None) for key in gone])


def _name(number: int) -> bytes:
    return CHANGED + number.to_bytes(8, "big")


def mark(store: Store, first: int) -> None:
    """From now on only the file that begins with this note counts. Raises StoreError."""
    store.write([("metadata", TABLES, first.to_bytes(8, "big"))])


def _read(directory: Path, sequence: int, tables: Tables) -> tuple[int, list[bytes]] | None:
    """The number of the first note that counts, and the parts; None if the file is not whole, of
    another book, or ahead of the store."""
    try:
        with (directory / CACHE).open("rb") as file:
            head, identity = file.read(len(_MAGIC) + _HEAD.size), file.read(16)
            if len(head) < len(_MAGIC) + _HEAD.size or not head.startswith(_MAGIC):
                return None
            written, first, count = _HEAD.unpack_from(head, len(_MAGIC))
            if identity != identity_of(tables) or written > sequence or count > _MOST_PARTS:
                return None
            left = os.fstat(file.fileno()).st_size
            check = hashlib.sha256()
            parts = []
            for _ in range(count):
                size = int.from_bytes(file.read(8), "little")
                if size > left:
                    return None
                parts.append(file.read(size))
                check.update(parts[-1])
            if file.read() != check.digest():
                return None
    except OSError:
        return None
    return first, parts


def _changed(store: Store, first: int) -> tuple[Notes, list[bytes]]:
    """ValueError if a note is missing between others, or is none."""
    following, keys = first, list[bytes]()
    for name, value in store.items("metadata", CHANGED, start=_name(first)):
        if name != _name(following) or len(value) % KEY_SIZE:
            raise ValueError("a note that does not follow the one before")
        following += 1
        keys += [value[at : at + KEY_SIZE] for at in range(0, len(value), KEY_SIZE)]
    return Notes(first, following, len(keys)), list(dict.fromkeys(keys))


def _catch_up(store: Store, tables: Tables, changed: list[bytes]) -> None:
    """Bring rows to what the store has. ValueError and CodecError: these are other tables."""
    moved, fresh, gone = list[Row](), list[Row](), list[int]()
    changed.sort()  # as the store has them
    for key, value in zip(changed, store.get_all("addresses", changed), strict=True):
        row = tables.find(key)
        core = None if value is None else tables.unpacked(key, core_of(value))
        if core is None:
            if row >= 0:
                gone.append(row)
        elif row < 0:
            fresh.append((key, core))
        elif core[0] == tables.bucket[row] and core[1] == tables.group[row]:
            tables.set_core(row, core)
        else:
            gone.append(row)
            moved.append((key, core))
    # First all that leave, so that their buckets have room.
    tables.exchange(gone, [*moved, *fresh])


def drop(directory: Path) -> None:
    """The file counts no longer. Raises StoreError."""
    try:
        (directory / CACHE).unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"{directory / CACHE}: {error.strerror}") from None
