"""Getting into the book: a message at a time, within the quotas, and who goes for it.

An address nobody has reached lives in a *new* bucket chosen by its own network and the network of
whoever told us. Quotas come on top, because a small book has few buckets: what one network holds,
what one network told us, and what stands for private peers are each a bounded part of the book.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import compress, islice
from typing import Final, NamedTuple

from appliance.addresses.arrays import gather
from appliance.addresses.buckets import (
    BIG_ENDIAN,
    LEAST_HASH,
    NOT_FOR_US,
    PRIVATE_MOST,
    Buckets,
)
from appliance.addresses.columns import BUCKET, SOURCES
from appliance.addresses.keys import KEY_SIZE, MAPPED
from appliance.addresses.model import Added, Source
from appliance.addresses.rows import F_CONFIRMED, F_PRIVATE, PRIVATE, RANK
from appliance.addresses.weights import is_terrible

LOOKED_AT: Final = 8  # rows of a full bucket that a newcomer is compared with

_DECLARED: Final = Source.DECLARED.rank
_HIGH: Final = 0 if BIG_ENDIAN else 1


class Placed(NamedTuple):
    """New rows, column by column."""

    keys: list[bytes]
    buckets: array[int]
    groups: array[int]
    networks: array[int]
    """By which each is counted: its /16 of IPv4, or its group."""

    def chosen(self, good: bytes | bytearray) -> Placed:
        """Those whose byte is 1."""
        return Placed(
            list(compress(self.keys, good)),
            array("I", compress(self.buckets, good)),
            array("I", compress(self.groups, good)),
            array(self.networks.typecode, compress(self.networks, good)),
        )

    def cut(self, places: Sequence[int]) -> Placed:
        """Those at `places`, which rise: they leave it."""
        leaves = bytearray(len(self.keys))
        for place in places:
            leaves[place] = 1
        gone = self.chosen(leaves)
        for place in reversed(places):
            del self.keys[place], self.buckets[place], self.groups[place]
            if self.networks is not self.groups:
                del self.networks[place]
        return gone


class Entering(Buckets):
    """What changed is returned: the caller stores `core(row)`."""

    def add(
        self,
        keys: Iterable[bytes],
        teller: bytes,
        now: int,
        *,
        rank: int = 0,
        trusted: bool = False,
    ) -> tuple[list[bytes], list[bytes], list[bytes], Added]:
        """Enter what somebody of the network `teller` told us at `now`, Unix seconds.

        `trusted`: without quotas, and addresses of private networks too. Returns the keys of the
        new rows, those evicted for them, those we knew, and the count of everything.
        """
        # A whole message at once, in order: RocksDB and the caches of the processor like it.
        # Most steps are loops in C; a call for each address would double the cost.
        tally, given = Added(), sorted(keys)
        source = self.hash_of(b"source " + teller)
        wanted = self._placed(given, source, tally, trusted=trusted)
        placed, evicted, known = list[bytes](), list[bytes](), list[bytes]()
        late: Placed | None = wanted
        if self._has_room_for(wanted, source) and not trusted:
            wanted, known = self._entered(wanted)
            placed, late = self._append_all(wanted, source, now, rank)
        elif wanted.keys:
            late, known = self._unknown(wanted)
        if late is not None and late.keys:
            placed += self._one_by_one(late, source, now, rank, evicted, tally, trusted=trusted)
        tally.added, tally.known = len(placed), len(known)
        return placed, evicted, known, tally

    def _placed(self, keys: list[bytes], source: int, tally: Added, *, trusted: bool) -> Placed:
        """Network and bucket of each; without those that nobody may send us to."""
        by_sixteen = _are_four(keys) and not trusted and self.systems is None
        found: Sequence[int]
        if by_sixteen:
            networks = _sixteens(keys)
            found = gather(self._networks, networks)
        else:
            found = bytes(len(keys))
        if found and min(found) < LEAST_HASH:
            found = [
                group or self._network(key, trusted=trusted)
                for key, group in zip(keys, found, strict=True)
            ]
            allowed = [group != NOT_FOR_US for group in found]
            tally.not_routable += allowed.count(False)
            keys, found = list(compress(keys, allowed)), list(compress(found, allowed))
            if by_sixteen:
                networks = _sixteens(keys)
        groups = array("I", found)
        buckets = self._new_buckets(groups, source)
        return Placed(keys, buckets, groups, networks if by_sixteen else groups)

    def _has_room_for(self, wanted: Placed, source: int) -> bool:
        """Whether no quota but that of a network can be in the way, and all are counted alike."""
        more = len(wanted.keys)
        return (
            (_are_four(wanted.keys) or self.systems is not None)
            and len(self) + more <= self.entries
            and self.source_size(source) + more <= self._source_quota
        )

    def _entered(self, wanted: Placed) -> tuple[Placed, list[bytes]]:
        """Those that are new, now in the index, and the keys that were there before."""
        where, before, first = self._where, len(self._where), len(self)
        chunks = self._chunks_of(first, len(wanted.keys))
        deque(map(where.setdefault, map(hash, wanted.keys), chunks), maxlen=0)
        more = len(where) - before
        if more == len(wanted.keys):
            return wanted, []
        fresh = set(islice(reversed(where), more))  # a dictionary keeps the order of entering
        wanted, known = _split(wanted, fresh)
        self._note(wanted.keys, first, len(wanted.keys))
        return wanted, known

    def _unknown(self, wanted: Placed) -> tuple[Placed, list[bytes]]:
        """The same without entering them."""
        return _split(wanted, set(map(hash, wanted.keys)) - self._where.keys())

    def _append_all(
        self, wanted: Placed, source: int, now: int, rank: int
    ) -> tuple[list[bytes], Placed | None]:
        """Enter those that are in the index and that nothing is in the way of; the keys of these,
        and the others, which leave the index and `wanted`."""
        last, fill = self._last, self._fill
        counts = self._four if self.systems is None else self._others
        first = row = len(self.bucket)
        quota, late, links = self._group_quota, list[int](), list[int]()
        link = links.append
        for bucket, network in zip(wanted.buckets, wanted.networks, strict=True):
            place, size = fill[bucket], counts[network]
            if place == BUCKET or size >= quota:
                late.append(row - first + len(late))
                continue
            link(last[bucket])
            last[bucket] = row
            fill[bucket] = place + 1
            counts[network] = size + 1
            row += 1
        others = wanted.cut(late) if late else None
        if others is not None:
            for key in others.keys:
                del self._where[hash(key)]
            moved = wanted.keys[late[0] :]
            self._note(moved, first + late[0], len(moved))
        more = row - first
        self._sources[source % SOURCES] += more
        self.keys += b"".join(wanted.keys)
        self.bucket.extend(wanted.buckets)
        self.group.extend(wanted.groups)
        self._before.extend(array("I", links))
        constants = (source, now, 0, 0, 0, 0, rank)
        for column, value in zip(self._row_arrays()[2:], constants, strict=True):
            column.extend(array(column.typecode, (value,)) * more)
        return wanted.keys, others

    def _one_by_one(
        self,
        wanted: Placed,
        source: int,
        now: int,
        rank: int,
        evicted: list[bytes],
        tally: Added,
        *,
        trusted: bool,
    ) -> list[bytes]:
        """The same with every quota looked at, and with somebody evicted where it is due; the keys
        that got in, in their order."""
        good = bytearray(len(wanted.keys))
        # By their hashes, so that a quota does not favour the lowest addresses.
        for _, number in sorted(zip(map(hash, wanted.keys), range(len(good)), strict=True)):
            key, bucket, group = wanted.keys[number], wanted.buckets[number], wanted.groups[number]
            size = self.count_of(key, group)
            if not trusted and (
                size >= self._group_quota or self.source_size(source) >= self._source_quota
            ):
                tally.over_quota += 1
                continue
            if self._fill[bucket] == BUCKET or len(self) >= self.entries:
                victim = self._victim(bucket, size, source, now, trusted=trusted)
                if victim < 0:
                    tally.crowded_out += 1
                    continue
                evicted.append(self.key(victim))
                self.discard(victim)
            self.append(key, (bucket, group, source, now, 0, 0, 0, 0, rank))
            good[number] = 1
        return list(compress(wanted.keys, good))

    def add_private(
        self, key: bytes, relay: bytes, teller: bytes, now: int, *, trusted: bool = False
    ) -> tuple[int, bytes | None]:
        """Enter the synthetic address of a private peer that is reached through `relay`, a key.

        The row, -1 if there is no room for it, and the key evicted for it.
        """
        source = self.hash_of(b"source " + teller)
        group = self.hash_of(b"private " + self.network_of(relay))
        size = self.count_of(key, group)
        if not trusted and (
            size >= min(PRIVATE_MOST, self._group_quota)
            or len(self.roles[PRIVATE]) >= self._private_quota
            or self.source_size(source) >= self._source_quota
        ):
            return -1, None
        bucket = self._new_bucket(group, source)
        evicted = None
        if self._fill[bucket] == BUCKET or len(self) >= self.entries:
            victim = self._victim(bucket, size, source, now, trusted=trusted)
            if victim < 0:
                return -1, None
            evicted = self.key(victim)
            self.discard(victim)
        core = (bucket, group, source, now, 0, 0, 0, 0, F_PRIVATE)
        return self.append(key, core), evicted

    # --- getting out

    def discard(self, row: int) -> None:
        """Take a row out of the book; the last row takes its number."""
        self.remove(row)

    def _victim(self, bucket: int, size: int, source: int, now: int, *, trusted: bool) -> int:
        """Who of a bucket makes room for a newcomer from a network that has `size` entries.

        The hopeless go first; then the largest network loses one, if it is larger than the
        newcomer's. So a flood from few networks pushes out nothing but itself.
        """
        rows = self.rows_of(bucket)
        if not rows:
            return -1
        best, worst = -1, (False, 0, 0)
        first = (now * 2_654_435_761 + size + bucket) % len(rows)
        for step in range(min(LOOKED_AT, len(rows))):
            row = rows[(first + step) % len(rows)]
            flags = self.flags[row]
            if flags & RANK == _DECLARED or flags & F_CONFIRMED:
                continue
            if self.heard[row] == now and self.source[row] == source:
                continue  # came with it
            hopeless, others = self.is_terrible(row, now), self.group_size(row)
            if not (hopeless or trusted or others > size + 1):
                continue
            bad = (hopeless, others, now - self.heard[row])
            if best < 0 or bad > worst:
                best, worst = row, bad
        return best

    def is_terrible(self, row: int, now: float) -> bool:
        """Whether it may go at once when somebody else needs the place."""
        return is_terrible(
            self.heard[row], self.success[row], self.attempt[row], self.failures[row],
            self.flags[row] & RANK, now,
        )  # fmt: skip


def _split(wanted: Placed, fresh: set[int]) -> tuple[Placed, list[bytes]]:
    """Those whose hash is in `fresh`, each once, and the keys of the others."""
    good, known = bytearray(len(wanted.keys)), list[bytes]()
    for number, what in enumerate(map(hash, wanted.keys)):
        if what in fresh:
            fresh.discard(what)
            good[number] = 1
        elif not number or wanted.keys[number] != wanted.keys[number - 1]:
            known.append(wanted.keys[number])
    return wanted.chosen(good), known


def _are_four(keys: list[bytes]) -> bool:
    """Whether keys in their order are all of IPv4."""
    return bool(keys) and keys[0].startswith(MAPPED) and keys[-1].startswith(MAPPED)


def _sixteens(keys: list[bytes]) -> array[int]:
    """The first two octets of IPv4 keys."""
    pairs, blob = bytearray(2 * len(keys)), b"".join(keys)
    pairs[_HIGH::2], pairs[1 - _HIGH :: 2] = blob[12::KEY_SIZE], blob[13::KEY_SIZE]
    return array("H", bytes(pairs))
