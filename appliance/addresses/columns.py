"""The rows of the tables, as columns of numbers: about 130 bytes an entry, no object for each
but one number.

Rows are dense: removing one moves the last into its place, so a row number holds until the next
removal and no longer. Each bucket lists its rows in `_slots`, the first `_fill` of its 64 places.
A key is found through `_where`, which has its bucket by the interpreter's hash of the key.
"""

from __future__ import annotations

import hashlib
import struct
from array import array
from collections.abc import Iterable
from typing import Final

from appliance.addresses.keys import KEY_SIZE, MAPPED
from appliance.addresses.model import Source

BUCKET: Final = 64  # entries of one bucket, as Bitcoin Core's
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


class Columns:
    """At most `entries` rows in `buckets` buckets. Pure: neither a clock nor a disk is read."""

    def __init__(self, entries: int, buckets: int, secret: bytes) -> None:
        self.entries = entries
        self._secret = secret
        self.keys = bytearray()
        self.bucket, self.group, self.source = array("I"), array("I"), array("I")
        self.heard, self.success, self.attempt = array("I"), array("I"), array("I")
        self.expires = array("I")
        self.failures, self.flags = array("B"), array("B")
        self.tried = array("I")
        self.roles = [array("I") for _ in range(ROLES)]
        self._of_group: list[dict[int, int]] = [{} for _ in range(ROLES)]
        self._slots, self._fill = zeros("I", BUCKET * buckets), zeros("B", buckets)
        self._four = zeros("I", 1 << 16)  # entries of each /16 of IPv4
        self._others: dict[int, int] = {}  # and of each other group, by its hash
        self._sources = zeros("I", SOURCES)
        self._where: dict[int, int] = {}
        self._numbers = list(range(buckets))  # one object for each value of `_where`

    def __len__(self) -> int:
        return len(self.bucket)

    @property
    def memory_bytes(self) -> int:
        """Of all columns, buckets, counters and the index, as allocated."""
        columns = sum(column.__sizeof__() for column in (self.keys, *self._arrays()))
        index = self._where.__sizeof__() + 32 * len(self._where) + 40 * len(self._fill)
        return columns + index + self._others.__sizeof__() + 64 * len(self._others)

    def _arrays(self) -> tuple[array[int], ...]:
        return (
            *self._row_arrays(), self.tried, *self.roles, self._slots, self._fill, self._four,
            self._sources,
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

    def find(self, key: bytes) -> int:
        """The row of `key`, or -1."""
        bucket = self._where.get(hash(key))
        if bucket is None:
            return -1
        for row in self.rows_of(bucket):
            if self.keys[row * KEY_SIZE : (row + 1) * KEY_SIZE] == key:
                return row
        return -1

    def key(self, row: int) -> bytes:
        return bytes(self.keys[row * KEY_SIZE : (row + 1) * KEY_SIZE])

    def core(self, row: int) -> bytes:
        """The part of a row that is stored."""
        return CORE.pack(*[column[row] for column in self._row_arrays()])

    def group_size(self, row: int) -> int:
        """How many entries share the row's network; of private peers, their relay's."""
        return self.count_of(self.key(row), self.group[row])

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
        return [bytes(self.keys), *(column.tobytes() for column in self._arrays())]

    def restore(self, parts: list[bytes]) -> None:
        """The inverse of `dump`, into empty tables. ValueError if the parts do not fit."""
        arrays = self._arrays()
        if len(parts) != 1 + len(arrays) or len(parts[0]) % KEY_SIZE:
            raise ValueError("not the parts of a dump")
        rows = len(parts[0]) // KEY_SIZE
        for number, (column, part) in enumerate(zip(arrays, parts[1:], strict=True)):
            fits = len(part) == rows * column.itemsize
            if number >= len(self._row_arrays()) + 1 + ROLES:
                fits = len(part) == len(column) * column.itemsize
            elif number >= len(self._row_arrays()):
                fits = len(part) <= rows * column.itemsize
            if not fits:
                raise ValueError("a column of another length")
        self.keys[:] = parts[0]
        for column, part in zip(arrays, parts[1:], strict=True):
            column[:] = array(column.typecode, part)
        for role, members in enumerate(self.roles):
            for row in members:
                self._count_role(role, self.group[row], 1)
        keys = [key for (key,) in _KEYS.iter_unpack(self.keys)]
        self._note(map(hash, keys), self.bucket)
        for number, key in enumerate(keys):
            if key[:12] != MAPPED or key[12] >= 240:
                self._count(key, self.group[number], 1)

    # --- changing rows

    def append(self, key: bytes, core: Core, *, tried: bool) -> int:
        """A new row in a bucket that has room; its number."""
        row = len(self.bucket)
        bucket, group, source, *_, flags = core
        self.keys += key
        for column, value in zip(self._row_arrays(), core, strict=True):
            column.append(value)
        self._note((hash(key),), (bucket,))
        self._enter_bucket(row, bucket)
        self._count(key, group, 1)
        self._sources[source % SOURCES] += 1
        if tried:
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

    def move(self, row: int, bucket: int, *, tried: bool) -> None:
        """From a bucket of one table to one of the other, which has room."""
        self._leave_bucket(row)
        self._enter_bucket(row, bucket)
        self.bucket[row] = bucket
        self._note((hash(self.key(row)),), (bucket,))
        if tried:
            self.tried.append(row)
        else:
            _leave(self.tried, row)

    def remove(self, row: int, *, tried: bool) -> None:
        """Take a row out; the last row takes its number."""
        self._leave_role(row, role_of(self.flags[row]))
        if tried:
            _leave(self.tried, row)
        self._leave_bucket(row)
        key = self.key(row)
        self._count(key, self.group[row], -1)
        self._sources[self.source[row] % SOURCES] -= 1
        del self._where[hash(key)]
        last = len(self.bucket) - 1
        if row != last:
            start = self.bucket[last] * BUCKET
            self._slots[self._slots.index(last, start, start + BUCKET)] = row
            lists = [self.tried]
            if (role := role_of(self.flags[last])) != NO_ROLE:
                lists.append(self.roles[role])
            for members in lists:
                if last in members:
                    members[members.index(last)] = row
            self.keys[row * KEY_SIZE : (row + 1) * KEY_SIZE] = self.key(last)
            for column in self._row_arrays():
                column[row] = column[last]
        del self.keys[last * KEY_SIZE :]
        for column in self._row_arrays():
            column.pop()

    def _note(self, hashes: Iterable[int], buckets: Iterable[int]) -> None:
        """Where the keys with those hashes are."""
        self._where.update(zip(hashes, map(self._numbers.__getitem__, buckets), strict=True))

    def _enter_bucket(self, row: int, bucket: int) -> None:
        fill = self._fill[bucket]
        if fill == BUCKET:
            raise ValueError("a bucket without room")
        self._slots[bucket * BUCKET + fill] = row
        self._fill[bucket] = fill + 1

    def _leave_bucket(self, row: int) -> None:
        bucket = self.bucket[row]
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
