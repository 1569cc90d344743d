"""The rows of the tables, as columns of numbers: about 130 bytes an entry, no object for each
but one number.

Rows are dense: removing one moves the last into its place, so a row number holds until the next
removal and no longer. Each bucket lists its rows in `_slots`, the first `_fill` of its 64 places.
A key is found through `_where`, which says by the interpreter's hash of the key in which 64 rows to
look for it: so few numbers that one object of each is enough.
"""

from __future__ import annotations

import hashlib
import struct
from array import array
from collections.abc import Iterable
from itertools import islice
from typing import Final

from appliance.addresses.keys import KEY_SIZE, MAPPED
from appliance.addresses.model import Source

BUCKET: Final = 64  # entries of one bucket, as Bitcoin Core's
CHUNK: Final = 64  # rows that a key is looked for in
SOURCES: Final = 1 << 12  # counters of what a network told us
ROLES: Final = 3
RELAY, CLAIMED, PRIVATE = range(ROLES)
NO_ROLE: Final = -1

# Flags of an entry. The lowest two bits are the rank of its best source.
RANK: Final = 0b11
F_CLAIMED: Final = 1 << 2  # somebody says that it relays
F_SIGNED: Final = 1 << 3  # its peer signed that it relays
F_CONFIRMED: Final = 1 << 4  # a connection proved that it relays
F_PRIVATE: Final = 1 << 5  # a private peer under a synthetic address
F_CAPABLE: Final = F_CLAIMED | F_SIGNED | F_CONFIRMED | F_PRIVATE

CORE: Final = struct.Struct("<IIIIIIIBB")
"""What of a row is stored: bucket, group, source, heard, success, attempt, expires, failures,
flags. A group or source is 32 bits of its keyed hash; times are Unix seconds."""
Core = tuple[int, int, int, int, int, int, int, int, int]

_KEYS: Final = struct.Struct(f"{KEY_SIZE}s")
_DECLARED: Final = Source.DECLARED.rank
_ZEROS: Final = bytes(1 << 16)
_CHUNK: Final = range(CHUNK)


class Columns:
    """At most `entries` rows in `buckets` buckets. Pure: neither a clock nor a disk is read."""

    def __init__(self, entries: int, new_buckets: int, tried_buckets: int, secret: bytes) -> None:
        self.entries = entries
        self.new_buckets, self.tried_buckets = new_buckets, tried_buckets
        buckets = new_buckets + tried_buckets
        self._secret = secret
        self.keys = bytearray()
        self.bucket, self.group, self.source = array("I"), array("I"), array("I")
        self.heard, self.success, self.attempt = array("I"), array("I"), array("I")
        self.expires = array("I")
        self.failures, self.flags = array("B"), array("B")
        self.tried = array("I")
        self.roles = [array("I") for _ in range(ROLES)]
        self._of_group: list[dict[int, int]] = [{} for _ in range(ROLES)]
        self._slots = zeros("I", BUCKET * buckets)
        self._fill = [0] * buckets  # a list, as it is looked at for each new entry
        self._four = zeros("I", 1 << 16)  # entries of each /16 of IPv4
        self._others: dict[int, int] = {}  # and of each other group, by its hash
        self._sources = zeros("I", SOURCES)
        self._where: dict[int, int] = {}
        self._chunks = list(range(entries // CHUNK + 1))  # one object for each value of `_where`

    def __len__(self) -> int:
        return len(self.bucket)

    @property
    def memory_bytes(self) -> int:
        """Of all columns, buckets, counters and the index, as allocated."""
        columns = sum(column.__sizeof__() for column in (self.keys, *self._arrays()))
        index = self._where.__sizeof__() + 32 * len(self._where)
        index += 40 * len(self._chunks) + 8 * len(self._fill)
        return columns + index + self._others.__sizeof__() + 64 * len(self._others)

    def _arrays(self) -> tuple[array[int], ...]:
        return (
            *self._row_arrays(), self.tried, *self.roles, self._slots, self._four, self._sources,
        )  # fmt: skip

    def _row_arrays(self) -> tuple[array[int], ...]:
        """In the order of `CORE`."""
        return (
            self.bucket, self.group, self.source, self.heard, self.success, self.attempt,
            self.expires, self.failures, self.flags,
        )  # fmt: skip

    def prf(self, what: bytes, size: int = 8) -> bytes:
        """A keyed hash that nobody without the book's secret can foretell."""
        return hashlib.blake2b(what, digest_size=size, key=self._secret).digest()

    # --- reading a row

    def is_tried(self, row: int) -> bool:
        return self.bucket[row] >= self.new_buckets

    def find(self, key: bytes) -> int:
        """The row of `key`, or -1."""
        chunk = self._where.get(hash(key))
        if chunk is None:
            return -1
        start, stop = chunk * CHUNK * KEY_SIZE, (chunk + 1) * CHUNK * KEY_SIZE
        at = self.keys.find(key, start, stop)
        while at > 0 and at % KEY_SIZE:  # the end of one key and the beginning of the next
            at = self.keys.find(key, at + 1, stop)
        return at // KEY_SIZE

    def key(self, row: int) -> bytes:
        return bytes(self.keys[row * KEY_SIZE : (row + 1) * KEY_SIZE])

    def core(self, row: int) -> bytes:
        """The part of a row that is stored."""
        return CORE.pack(*[column[row] for column in self._row_arrays()])

    def group_size(self, row: int) -> int:
        """How many entries share the row's network; of private peers, their relay's."""
        start = row * KEY_SIZE
        if self.keys.startswith(MAPPED, start) and (first := self.keys[start + 12]) < 240:
            return self._four[first << 8 | self.keys[start + 13]]
        return self._others.get(self.group[row], 0)

    def count_of(self, key: bytes, group: int) -> int:
        """The same for a key whose group has that hash."""
        if key[:12] == MAPPED and key[12] < 240:
            return self._four[key[12] << 8 | key[13]]
        return self._others.get(group, 0)

    def _count(self, key: bytes, group: int, change: int) -> None:
        if key[:12] == MAPPED and key[12] < 240:
            self._four[key[12] << 8 | key[13]] += change
            return
        self._others[group] = self._others.get(group, 0) + change
        if not self._others[group]:
            del self._others[group]

    def role_size(self, role: int, group: int) -> int:
        """How many entries of one network have a role."""
        return self._of_group[role].get(group, 0)

    def source_size(self, source: int) -> int:
        """How many entries a network told us, by the hash of it; a sketch too."""
        return self._sources[source % SOURCES]

    def rows_of(self, bucket: int) -> array[int]:
        start = bucket * BUCKET
        return self._slots[start : start + self._fill[bucket]]

    # --- the whole

    def dump(self) -> list[bytes]:
        """Everything, for `restore` of tables with the same size and secret."""
        return [
            bytes(self.keys), bytes(self._fill), *(column.tobytes() for column in self._arrays())
        ]  # fmt: skip

    def restore(self, parts: list[bytes]) -> None:
        """The inverse of `dump`, into empty tables. ValueError if the parts do not fit."""
        arrays = self._arrays()
        if len(parts) != 2 + len(arrays) or len(parts[0]) % KEY_SIZE:
            raise ValueError("not the parts of a dump")
        rows = len(parts[0]) // KEY_SIZE
        if rows > self.entries or len(parts[1]) != len(self._fill) or max(parts[1]) > BUCKET:
            raise ValueError("more than there is room for")
        for number, (column, part) in enumerate(zip(arrays, parts[2:], strict=True)):
            fits = len(part) == rows * column.itemsize
            if number >= len(self._row_arrays()) + 1 + ROLES:
                fits = len(part) == len(column) * column.itemsize
            elif number >= len(self._row_arrays()):
                fits = len(part) <= rows * column.itemsize
            if not fits:
                raise ValueError("a column of another length")
        self.keys[:] = parts[0]
        self._fill[:] = parts[1]
        for column, part in zip(arrays, parts[2:], strict=True):
            column[:] = array(column.typecode, part)
        for role, members in enumerate(self.roles):
            for row in members:
                self._count_role(role, self.group[row], 1)
        keys = [key for (key,) in _KEYS.iter_unpack(self.keys)]
        self._note(map(hash, keys), 0, rows)
        for number, key in enumerate(keys):
            if key[:12] != MAPPED or key[12] >= 240:
                self._count(key, self.group[number], 1)

    # --- changing rows

    def append(self, key: bytes, core: Core) -> int:
        """A new row in a bucket that has room; its number."""
        row = len(self.bucket)
        bucket, group, source, *_, flags = core
        self.keys += key
        for column, value in zip(self._row_arrays(), core, strict=True):
            column.append(value)
        self._where[hash(key)] = self._chunks[row // CHUNK]
        self._enter_bucket(row, bucket)
        self._count(key, group, 1)
        self._sources[source % SOURCES] += 1
        if self.is_tried(row):
            self.tried.append(row)
        self.join_role(row, role_of(flags))
        return row

    def set_flags(self, row: int, flags: int) -> None:
        """Change what a row is, and with it the list that it is chosen from."""
        before, after = role_of(self.flags[row]), role_of(flags)
        self.flags[row] = flags
        if before != after:
            self._leave_role(row, before)
            self.join_role(row, after)

    def join_role(self, row: int, role: int) -> None:
        if role != NO_ROLE:
            self.roles[role].append(row)
            self._count_role(role, self.group[row], 1)

    def _leave_role(self, row: int, role: int) -> None:
        if role != NO_ROLE:
            _leave(self.roles[role], row)
            self._count_role(role, self.group[row], -1)

    def _count_role(self, role: int, group: int, change: int) -> None:
        counts = self._of_group[role]
        counts[group] = counts.get(group, 0) + change
        if not counts[group]:
            del counts[group]

    def move(self, row: int, bucket: int) -> None:
        """Into another bucket, of either table. ValueError if it has no room."""
        was_tried = self.is_tried(row)
        before = self.bucket[row]
        self._enter_bucket(row, bucket)
        self._leave_bucket(row, before)
        self.bucket[row] = bucket
        if self.is_tried(row) and not was_tried:
            self.tried.append(row)
        elif was_tried and not self.is_tried(row):
            _leave(self.tried, row)

    def set_core(self, row: int, core: Core) -> None:
        """Give a row what is stored of it. ValueError if it is of another network, or if its
        bucket has no room."""
        bucket, group, source, *_, flags = core
        if bucket >= len(self._fill) or group != self.group[row]:
            raise ValueError("not of this row")
        if bucket != self.bucket[row]:
            self.move(row, bucket)
        self._sources[self.source[row] % SOURCES] -= 1
        self._sources[source % SOURCES] += 1
        self.set_flags(row, flags)
        for column, value in zip(self._row_arrays(), core, strict=True):
            column[row] = value

    def remove(self, row: int) -> None:
        """Take a row out; the last row takes its number."""
        self._leave_role(row, role_of(self.flags[row]))
        if self.is_tried(row):
            _leave(self.tried, row)
        self._leave_bucket(row, self.bucket[row])
        key = self.key(row)
        self._count(key, self.group[row], -1)
        self._sources[self.source[row] % SOURCES] -= 1
        del self._where[hash(key)]
        last = len(self.bucket) - 1
        if row != last:
            start = self.bucket[last] * BUCKET
            self._slots[self._slots.index(last, start, start + BUCKET)] = row
            if self.is_tried(last):
                self.tried[self.tried.index(last)] = row
            if (role := role_of(self.flags[last])) != NO_ROLE:
                self.roles[role][self.roles[role].index(last)] = row
            self.keys[row * KEY_SIZE : (row + 1) * KEY_SIZE] = other = self.key(last)
            self._where[hash(other)] = self._chunks[row // CHUNK]
            for column in self._row_arrays():
                column[row] = column[last]
        del self.keys[last * KEY_SIZE :]
        for column in self._row_arrays():
            column.pop()

    def _note(self, hashes: Iterable[int], first: int, count: int) -> None:
        """Keys with those hashes are in so many rows from `first` on."""
        self._where.update(zip(hashes, self._chunks_of(first, count), strict=True))

    def _chunks_of(self, first: int, count: int) -> list[int]:
        """In which chunk each row is."""
        begin, skipped = divmod(first, CHUNK)
        chunks = islice(self._chunks, begin, (first + count - 1) // CHUNK + 1)
        found = [chunk for chunk in chunks for _ in _CHUNK]
        return found[skipped : skipped + count]

    def _enter_bucket(self, row: int, bucket: int) -> None:
        fill = self._fill[bucket]
        if fill == BUCKET:
            raise ValueError("a bucket without room")
        self._slots[bucket * BUCKET + fill] = row
        self._fill[bucket] = fill + 1

    def _leave_bucket(self, row: int, bucket: int) -> None:
        start, fill = bucket * BUCKET, self._fill[bucket]
        at = self._slots.index(row, start, start + fill)
        self._slots[at] = self._slots[start + fill - 1]
        self._fill[bucket] = fill - 1


def role_of(flags: int) -> int:
    """RELAY, CLAIMED, PRIVATE or NO_ROLE."""
    if flags & F_PRIVATE:
        return PRIVATE
    if flags & (F_SIGNED | F_CONFIRMED):
        return RELAY
    if not flags & F_CLAIMED:
        return NO_ROLE
    return RELAY if flags & RANK == _DECLARED else CLAIMED


def _leave(members: array[int], row: int) -> None:
    # A search instead of 4 more bytes an entry: it happens once in an entry's life.
    at = members.index(row)
    last = members.pop()
    if at < len(members):
        members[at] = last


def zeros(kind: str, count: int) -> array[int]:
    made: array[int] = array(kind)
    left = count * made.itemsize
    while left:
        made.frombytes(_ZEROS[: min(left, len(_ZEROS))])
        left -= min(left, len(_ZEROS))
    return made


def gather(column: array[int], at: Iterable[int]) -> list[int]:
    """`[column[i] for i in at]`, twice as fast."""
    return list(map(column.__getitem__, at))
