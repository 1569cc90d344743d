"""In which bucket an address belongs, and the way of stored rows into the tables.

A network is the /16 of IPv4, the /32 of IPv6, for a private peer that of its relay; with a table of
autonomous systems it is the system. Its hash, and that of the network which told us, are keyed with
the book's secret.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import Any, Final
from zlib import crc32

from appliance.addresses.columns import BUCKET, SOURCES, Columns
from appliance.addresses.keys import MAPPED, closed_sixteens, group_of, may_be_dialled, pack_ip
from appliance.addresses.model import Origin, Source
from appliance.addresses.rows import (
    CORE,
    DERIVED,
    F_CONFIRMED,
    F_PRIVATE,
    NO_ROLE,
    RANK,
    RELAY,
    Core,
    role_of,
)
from appliance.addresses.systems import AutonomousSystems

SPREAD: Final = 4  # tried buckets of one network (Bitcoin Core: 8 of 256)
GROUP_SHARE: Final = 64  # one network holds at most 1/64 of the book,
GROUP_MOST: Final = 1024  # and no more than this of a large one;
PRIVATE_SHARE: Final = 4  # private peers 1/4,
ROLE_MOST: Final = 16  # relays of one network, and as many that only claim to be
PRIVATE_MOST: Final = 128  # private peers that the relays of one network reach
SOURCE_SHARE: Final = 16  # and what one network told us 1/16
PLACES: Final = 16  # buckets in which room is looked for when a row comes from another geometry

NOT_FOR_US: Final = 1
"""In the place of a network's hash: nobody may send us there."""
LEAST_HASH: Final = 2
"""Of networks and sources: what is below says something else."""
BIG_ENDIAN: Final = array("H", b"\0\1")[0] == 1
_ORDER: Final = "big" if BIG_ENDIAN else "little"
_LOW: Final = int(BIG_ENDIAN)  # which half of 64 bits has the low ones
_U32: Final = 0xFFFFFFFF
_DECLARED: Final = Source.DECLARED.rank


class Buckets(Columns):
    """Rows in new and in tried buckets."""

    def __init__(
        self,
        entries: int,
        secret: bytes,
        *,
        allow_private: bool = False,
        systems: AutonomousSystems | None = None,
    ) -> None:
        # Odd, so that no bit of a hash alone decides on a bucket.
        new_buckets = max(4, -(-entries * 3 // (2 * BUCKET))) | 1
        super().__init__(entries, new_buckets, max(4, -(-entries // (4 * BUCKET))), secret)
        self.systems = systems
        self.count_by_group = systems is not None
        self._allow_private = allow_private
        self._group_quota = min(GROUP_MOST, max(8, entries // GROUP_SHARE))
        self._source_quota = max(32, entries // SOURCE_SHARE)
        self._private_quota = max(8, entries // PRIVATE_SHARE)
        self._of_four = self._hashes_of_four()
        self._networks = self._open_to_all()

    @property
    def geometry(self) -> bytes:
        """What the bucket numbers of stored rows depend on."""
        made = b"%d new, %d tried, by %d" % (self.new_buckets, self.tried_buckets, BUCKET)
        return made if self.systems is None else made + b", systems " + self.systems.digest

    def load(self, rows: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """Enter stored rows, of keys not yet here; returns those that do not fit."""
        refused: list[tuple[bytes, bytes]] = []
        kept: list[tuple[Any, ...]] = []
        last, fill, buckets, entries = self._last, self._fill, len(self._fill), self.entries
        first = count = len(self.bucket)
        for key, core in rows:
            numbers = self.unpacked(key, core)
            bucket = numbers[0]
            if bucket >= buckets or fill[bucket] == BUCKET or count >= entries:
                refused.append((key, core))
                continue
            self._before.append(last[bucket])
            last[bucket] = count
            fill[bucket] += 1
            count += 1
            kept.append((key, *numbers))
        if not kept:
            return refused
        keys, *columns = zip(*kept, strict=True)
        self.keys += b"".join(keys)
        for column, values in zip(self._row_arrays(), columns, strict=True):
            column.extend(array(column.typecode, values))
        self._note(keys, first, len(kept))
        for row, (key, bucket, group, source, *_, flags) in enumerate(kept, first):
            self._count(key, group, 1)
            self._sources[source % SOURCES] += 1
            if bucket >= self.new_buckets:
                self.tried.append(row)
            if flags:
                self.join_role(row, role_of(flags))
        return refused

    def unpacked(self, key: bytes, core: bytes) -> Core:
        """What is stored of a row, with the bucket and group that follow from the rest."""
        numbers: Core = CORE.unpack(core)
        if numbers[0] != DERIVED:
            return numbers
        group, source = self.group_hash(key), numbers[2]
        return (self._new_bucket(group, source), group, *numbers[2:])

    def place_anew(self, key: bytes, core: bytes) -> int:
        """Enter a row whose bucket is of another geometry, or full; -1 if there is no room."""
        bucket, group, source, heard, success, attempt, expires, failures, flags = self.unpacked(
            key, core
        )
        if not flags & F_PRIVATE:
            group = self.group_hash(key)  # the systems may be others
        if len(self) >= self.entries:
            return -1
        bucket = self._tried_bucket(key, group)
        if flags & F_PRIVATE or not success or self._fill[bucket] == BUCKET or self._tried_is_full:
            bucket = self._new_bucket(group, source)
            for other in range(PLACES):
                if self._fill[bucket] < BUCKET:
                    break
                source = max(LEAST_HASH, crc32(key, other))
                bucket = self._new_bucket(group, source)
        if self._fill[bucket] == BUCKET:
            return -1
        placed = (bucket, group, source, heard, success, attempt, expires, failures, flags)
        return self.append(key, placed)

    # --- who can relay

    def has_room(self, row: int, flags: int) -> bool:
        """Whether a row may become what `flags` say: there may be enough of that in its network."""
        role = role_of(flags)
        if role in (role_of(self.flags[row]), NO_ROLE) or flags & RANK == _DECLARED:
            return True
        return self.role_size(role, self.group[row]) < ROLE_MOST

    def least_proven(self, group: int) -> int:
        """A relay of a network that no connection proved and nobody declared; -1 if all are."""
        for row in self.roles[RELAY]:
            flags = self.flags[row]
            if self.group[row] == group and not flags & F_CONFIRMED and flags & RANK != _DECLARED:
                return row
        return -1

    # --- hashes

    def hash_of(self, what: bytes) -> int:
        """32 bits of the keyed hash; neither 0 nor NOT_FOR_US."""
        return max(LEAST_HASH, int.from_bytes(self.prf(what, 4), "big"))

    def _network(self, key: bytes, *, trusted: bool) -> int:
        """The hash of an address's network; NOT_FOR_US if nobody may send us there."""
        if not may_be_dialled(key, allow_private=self._allow_private or trusted):
            return NOT_FOR_US
        return self.group_hash(key)

    def group_hash(self, key: bytes) -> int:
        """32 bits of the keyed hash of an address's network."""
        if self.systems is not None and (system := self.systems.of(key)):
            return self.hash_of(b"system %d" % system)
        if key[:12] == MAPPED and key[12] < 240:
            return self._of_four[key[12] << 8 | key[13]]
        return self.hash_of(b"group " + group_of(key))

    def network_of(self, key: bytes) -> bytes:
        """What an address shares with those that count like one: its autonomous system, if that
        is known, else its prefix."""
        system = self.systems.of(key) if self.systems is not None else 0
        return b"system %d" % system if system else group_of(key)

    def teller(self, origin: Origin) -> bytes:
        """The same of whoever told us; of one that has a name, the name."""
        try:
            return self.network_of(pack_ip(origin.who) + b"\0\0")
        except ValueError:
            return origin.who.encode("ascii")

    def _hashes_of_four(self) -> array[int]:
        """The hash of each /16 of IPv4."""
        made = array("I", b"".join(self.prf(b"four %d" % part, 64) for part in range(1 << 12)))
        if BIG_ENDIAN:
            made.byteswap()
        return array("I", [max(LEAST_HASH, number) for number in made])

    def _open_to_all(self) -> array[int]:
        """The same for what `add` looks up: NOT_FOR_US, or 0 where it is not the same for all."""
        made = self._of_four[:]
        for first, last, whole in closed_sixteens(allow_private=self._allow_private):
            made[first:last] = array("I", [NOT_FOR_US if whole else 0]) * (last - first)
        return made

    def _new_bucket(self, group: int, source: int) -> int:
        return ((group * (source | 1) & _U32) * self.new_buckets) >> 32

    def _new_buckets(self, groups: array[int], source: int) -> array[int]:
        """The same of each: 64 bits for each in one large number, so that C does the work."""
        size = 8 * len(groups)
        lanes = array("I", bytes(size))
        lanes[_LOW::2] = groups
        product = int.from_bytes(lanes.tobytes(), _ORDER) * (source | 1)
        mask = int.from_bytes(_U32.to_bytes(8, _ORDER) * len(groups), _ORDER)
        placed = (product & mask) * self.new_buckets
        return array("I", placed.to_bytes(size, _ORDER))[1 - _LOW :: 2]

    def _tried_bucket(self, key: bytes, group: int) -> int:
        spread = 2 * (crc32(key) % SPREAD) + 1
        return self.new_buckets + ((group * spread) >> 8) % self.tried_buckets

    @property
    def _tried_is_full(self) -> bool:
        return len(self.tried) >= self.entries // 4


def merit(core: bytes) -> tuple[bool, bool, int, int, int]:
    """Orders stored rows by what they are worth keeping for; the largest is kept first."""
    _, _, _, heard, success, _, _, failures, flags = CORE.unpack(core)
    declared, proven = flags & RANK == _DECLARED, bool(flags & F_CONFIRMED)
    return declared, proven or bool(success), -failures, success, heard
