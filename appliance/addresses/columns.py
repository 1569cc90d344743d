"""The rows of the tables, as columns of numbers: about 128 bytes an entry, no object for each
but one number.

Rows are dense: removing one moves the last into its place, so a row number holds until the next
removal and no longer. The rows of a bucket are a linked list: `_last` is where it begins, `_before`
leads from row to row, `_fill` is its length.
A key is found through `_where`, which says by the interpreter's hash of the key in which 64 rows to
look for it: so few numbers that one object of each is enough. The lists of rows (`tried`, `roles`)
are in order, so that a row is found in them by bisection.
"""

from __future__ import annotations

import hashlib
import struct
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain, islice, repeat
from typing import Final

from appliance.addresses.arrays import enter, leave, zeros
from appliance.addresses.keys import KEY_SIZE, MAPPED
from appliance.addresses.rows import CORE, NO_ROLE, ROLES, Core, role_of

BUCKET: Final = 64  # entries of one bucket, as Bitcoin Core's
CHUNK: Final = 64  # rows that a key is looked for in
SOURCES: Final = 1 << 12  # counters of what a network told us
NOBODY: Final = 0xFFFFFFFF
"""In the place of a row: the list of a bucket ends."""

_KEYS: Final = struct.Struct(f"{KEY_SIZE}s")
_TAIL: Final = 12  # where the address of IPv4 begins


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
        self._before = array("I")
        self._last = array("I", [NOBODY]) * buckets
        self._fill = [0] * buckets  # a list, as it is looked at for each new entry
        self._four = [0] * (1 << 16)  # entries of each /16 of IPv4; a list, for the same reason
        self._others = Counter[int]()  # and of each other group, by its hash
        self.count_by_group = False  # those of IPv4, too
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
        index += 40 * len(self._chunks) + 8 * (len(self._fill) + len(self._four))
        return columns + index + self._others.__sizeof__() + 64 * len(self._others)

    def _arrays(self) -> tuple[array[int], ...]:
        return (
            *self._row_arrays(), self._before, self.tried, *self.roles, self._last, self._sources,
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
        # By its end, in which keys differ: the beginning of each IPv4 key is the same.
        keys, end = self.keys, key[_TAIL:]
        stop = (chunk + 1) * CHUNK * KEY_SIZE
        at = keys.find(end, chunk * CHUNK * KEY_SIZE + _TAIL, stop) - _TAIL
        while at >= 0 and (at % KEY_SIZE or not keys.startswith(key, at)):
            at = keys.find(end, at + 1 + _TAIL, stop) - _TAIL
        return at // KEY_SIZE if at >= 0 else -1

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
        if key[:12] == MAPPED and key[12] < 240 and not self.count_by_group:
            return self._four[key[12] << 8 | key[13]]
        return self._others[group]

    def _count(self, key: bytes, group: int, change: int) -> None:
        if key[:12] == MAPPED and key[12] < 240 and not self.count_by_group:
            self._four[key[12] << 8 | key[13]] += change
            return
        self._others[group] += change
        if not self._others[group]:
            del self._others[group]

    def role_size(self, role: int, group: int) -> int:
        """How many entries of one network have a role."""
        return self._of_group[role].get(group, 0)

    def source_size(self, source: int) -> int:
        """How many entries a network told us, by the hash of it; a sketch too."""
        return self._sources[source % SOURCES]

    def rows_of(self, bucket: int) -> list[int]:
        """Its rows, the latest first."""
        rows, row = list[int](), self._last[bucket]
        while row != NOBODY:
            rows.append(row)
            row = self._before[row]
        return rows

    # --- the whole

    def dump(self) -> list[bytes]:
        """Everything, for `restore` of tables with the same size and secret."""
        counts = array("I", chain(self._four, chain.from_iterable(self._others.items())))
        return [
            bytes(self.keys),
            bytes(self._fill),
            counts.tobytes(),
            *(column.tobytes() for column in self._arrays()),
        ]

    def restore(self, parts: list[bytes]) -> None:
        """The inverse of `dump`, into empty tables. ValueError if the parts do not fit."""
        arrays = self._arrays()
        if len(parts) != 3 + len(arrays) or len(parts[0]) % KEY_SIZE:
            raise ValueError("not the parts of a dump")
        keys, fill, counts, *columns = parts
        rows = len(keys) // KEY_SIZE
        if rows > self.entries or len(fill) != len(self._fill) or max(fill) > BUCKET:
            raise ValueError("more than there is room for")
        for number, (column, part) in enumerate(zip(arrays, columns, strict=True)):
            fits = len(part) == rows * column.itemsize
            if number >= len(self._row_arrays()) + 2 + ROLES:
                fits = len(part) == len(column) * column.itemsize
            elif number > len(self._row_arrays()):
                fits = len(part) <= rows * column.itemsize
            if not fits:
                raise ValueError("a column of another length")
        entries_of = array("I", counts)
        if sum(entries_of[: len(self._four)]) + sum(entries_of[len(self._four) + 1 :: 2]) != rows:
            raise ValueError("networks of another size")
        self.keys[:] = keys
        self._fill[:] = fill
        for column, part in zip(arrays, columns, strict=True):
            column[:] = array(column.typecode, part)
        others = entries_of[len(self._four) :]
        self._four[:] = entries_of[: len(self._four)]
        self._others = Counter(dict(zip(others[::2], others[1::2], strict=True)))
        for role, members in enumerate(self.roles):
            for row in members:
                self._count_role(role, self.group[row], 1)
        self._note(chain.from_iterable(_KEYS.iter_unpack(self.keys)), 0, rows)

    # --- changing rows

    def append(self, key: bytes, core: Core) -> int:
        """A new row in a bucket that has room; its number."""
        row = len(self.bucket)
        self.keys += key
        for column, value in zip(self._row_arrays(), core, strict=True):
            column.append(value)
        self._before.append(NOBODY)
        self._attach(row, key, core)
        return row

    def exchange(self, gone: Iterable[int], rows: Iterable[tuple[bytes, Core]]) -> None:
        """Take rows out, each once, then put others in. ValueError, and the tables are no good, if
        one finds no room."""
        left = sorted(gone, reverse=True)
        for row in left:
            self._detach(row)
        for key, core in rows:
            if core[0] >= len(self._fill):
                raise ValueError("no such bucket")
            if not left:
                if len(self) >= self.entries:
                    raise ValueError("more than there is room for")
                self.append(key, core)
                continue
            row = left.pop()
            self.keys[row * KEY_SIZE : (row + 1) * KEY_SIZE] = key
            for column, value in zip(self._row_arrays(), core, strict=True):
                column[row] = value
            self._attach(row, key, core)
        for row in left:  # the highest first: the last row is never another hole
            self._close(row)

    def _attach(self, row: int, key: bytes, core: Core) -> None:
        """Let every way to a row lead there, once its key and its columns stand."""
        bucket, group, source, *_, flags = core
        self._enter_bucket(row, bucket)
        self._where[hash(key)] = self._chunks[row // CHUNK]
        self._count(key, group, 1)
        self._sources[source % SOURCES] += 1
        if bucket >= self.new_buckets:
            enter(self.tried, row)
        if flags:
            self.join_role(row, role_of(flags))

    def _detach(self, row: int) -> None:
        """The inverse: nothing leads to the row any more."""
        if self.flags[row]:
            self._leave_role(row, role_of(self.flags[row]))
        bucket, key = self.bucket[row], self.key(row)
        if bucket >= self.new_buckets:
            leave(self.tried, row)
        self._leave_bucket(row, bucket)
        self._count(key, self.group[row], -1)
        self._sources[self.source[row] % SOURCES] -= 1
        del self._where[hash(key)]

    def set_flags(self, row: int, flags: int) -> None:
        """Change what a row is, and with it the list that it is chosen from."""
        before, after = role_of(self.flags[row]), role_of(flags)
        self.flags[row] = flags
        if before != after:
            self._leave_role(row, before)
            self.join_role(row, after)

    def join_role(self, row: int, role: int) -> None:
        if role != NO_ROLE:
            enter(self.roles[role], row)
            self._count_role(role, self.group[row], 1)

    def _leave_role(self, row: int, role: int) -> None:
        if role != NO_ROLE:
            leave(self.roles[role], row)
            self._count_role(role, self.group[row], -1)

    def _count_role(self, role: int, group: int, change: int) -> None:
        counts = self._of_group[role]
        counts[group] = counts.get(group, 0) + change
        if not counts[group]:
            del counts[group]

    def move(self, row: int, bucket: int) -> None:
        """Into another bucket, of either table. ValueError if it has no room."""
        was_tried = self.is_tried(row)
        if self._fill[bucket] == BUCKET:
            raise ValueError("a bucket without room")
        self._leave_bucket(row, self.bucket[row])
        self._enter_bucket(row, bucket)
        self.bucket[row] = bucket
        if self.is_tried(row) and not was_tried:
            enter(self.tried, row)
        elif was_tried and not self.is_tried(row):
            leave(self.tried, row)

    def set_core(self, row: int, core: Core) -> None:
        """Give a row what is stored of it. ValueError unless it stays in its bucket and network."""
        bucket, group, source, heard, success, attempt, expires, failures, flags = core
        if bucket != self.bucket[row] or group != self.group[row]:
            raise ValueError("not of this row")
        if source != self.source[row]:
            self._sources[self.source[row] % SOURCES] -= 1
            self._sources[source % SOURCES] += 1
            self.source[row] = source
        if flags != self.flags[row]:
            self.set_flags(row, flags)
        self.heard[row], self.success[row], self.attempt[row] = heard, success, attempt
        self.expires[row], self.failures[row] = expires, failures

    def remove(self, row: int) -> None:
        """Take a row out; the last row takes its number."""
        self._detach(row)
        self._close(row)

    def _close(self, row: int) -> None:
        """Let the last row take the number of one to which nothing leads."""
        last = len(self.bucket) - 1
        if row != last:
            self._before[row] = self._before[last]
            self._lead(self.bucket[last], last, row)
            if self.is_tried(last):
                del self.tried[-1]  # the last row is the last in each list
                enter(self.tried, row)
            if (role := role_of(self.flags[last])) != NO_ROLE:
                del self.roles[role][-1]
                enter(self.roles[role], row)
            self.keys[row * KEY_SIZE : (row + 1) * KEY_SIZE] = other = self.key(last)
            self._where[hash(other)] = self._chunks[row // CHUNK]
            for column in self._row_arrays():
                column[row] = column[last]
        del self.keys[last * KEY_SIZE :]
        for column in (*self._row_arrays(), self._before):
            column.pop()

    def _note(self, keys: Iterable[bytes], first: int, count: int) -> None:
        """Those keys are in so many rows from `first` on."""
        self._where.update(zip(map(hash, keys), self._chunks_of(first, count), strict=True))

    def _chunks_of(self, first: int, count: int) -> Iterator[int]:
        """In which chunk each row is."""
        begin, skipped = divmod(first, CHUNK)
        chunks = self._chunks[begin : (first + count - 1) // CHUNK + 1]
        every_row = chain.from_iterable(map(repeat, chunks, repeat(CHUNK)))
        return islice(every_row, skipped, skipped + count)

    def _enter_bucket(self, row: int, bucket: int) -> None:
        if self._fill[bucket] == BUCKET:
            raise ValueError("a bucket without room")
        self._before[row], self._last[bucket] = self._last[bucket], row
        self._fill[bucket] += 1

    def _leave_bucket(self, row: int, bucket: int) -> None:
        self._lead(bucket, row, self._before[row])
        self._fill[bucket] -= 1

    def _lead(self, bucket: int, row: int, to: int) -> None:
        """Let what leads to a row of a bucket lead to another one."""
        before, at = self._before, self._last[bucket]
        if at == row:
            self._last[bucket] = to
            return
        while (following := before[at]) != row:
            at = following
        before[at] = to
