"""From one version of the book to the next: forward only, one function a step.

A step rewrites the rows of the version before it in batches; each batch is atomic and takes the
old rows away with the new ones it writes. What is left of the old version is what is left to do,
so a process that is killed goes on where it was. The version is raised before the first batch,
beside a note that a step is under way: an older program refuses the book from then on, a program
of this version goes on with it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import islice
from operator import itemgetter
from typing import Final
from zlib import crc32

from appliance.addresses import legacy
from appliance.addresses.buckets import LEAST_HASH
from appliance.addresses.fields import VERSION, CodecError, Tag, field
from appliance.addresses.keys import MAPPED, from_text, is_synthetic
from appliance.addresses.model import (
    MAX_PEER_ID,
    NEVER_EXPIRES,
    Capability,
    PeerRecord,
    RelayRole,
    Source,
)
from appliance.addresses.rocks import Change, Store
from appliance.addresses.rows import CORE, DERIVED, F_CLAIMED
from appliance.addresses.values import (
    HEAD,
    PEER,
    AddressValue,
    encode_address,
    encode_capability,
)

SCHEMA: Final = 2
SCHEMA_KEY: Final = b"schema"
UNDER_WAY: Final = b"migrating-from"
BATCH: Final = 2000  # rows of the old version
_MAX_U32: Final = 0xFFFFFFFF
Progress = Callable[[int], None]
"""Told how many old rows are done in this run."""


def migrate(store: Store, found: int, progress: Progress) -> None:
    """Bring an open store from schema `found` to `SCHEMA`. Raises StoreError."""
    for step in range(found, SCHEMA):
        begun = {SCHEMA_KEY: b"%d" % (step + 1), UNDER_WAY: b"%d" % step}
        store.write([("metadata", key, value) for key, value in begun.items()], sync=True)
        _STEPS[step](store, progress)
        store.write([("metadata", UNDER_WAY, None)], sync=True)


def capability(store: Store, progress: Progress) -> None:
    """1 → 2: peers by id become addresses by key, with capabilities beside them.

    A row that is no record of version 1 is left as it is: the reader counts it as damaged.
    """
    done = 0
    old = (row for row in store.items("addresses") if row[1][:1] == _OLD)
    while batch := list(islice(old, BATCH)):
        rows, gone, others = list[tuple[bytes, bytes]](), list[bytes](), list[Change]()
        for key, value in batch:
            if new := usual(key, value):
                rows.append(new)
            else:
                try:
                    others += converted(legacy.decode(key, value))
                except CodecError:
                    continue
            gone.append(key)
        store.put("addresses", sorted(rows, key=itemgetter(0)), gone, others)
        done += len(batch)
        progress(done)


_OLD: Final = bytes([legacy.VERSION])
# What version 1 wrote of nearly every peer: one address, no relays of its own.
_SMALL: Final = r"(0|[1-9]\d{0,2})"
_TIME: Final = r"(0|[1-9]\d{0,8}|[1-3]\d{9})"
_USUAL: Final = re.compile(
    (
        r'\x01\{"addresses":\["/ip4/S\.S\.S\.S/tcp/([1-9]\d{0,4})"\],"relays":\[\],'
        r'"is_relay":false,"last_seen":T,"last_success":T,"last_failure":T,"failures":S,'
        r'"source":"(\w+)"\}'
    )
    .replace("S", _SMALL)
    .replace("T", _TIME)
    .encode()
)


def usual(key: bytes, value: bytes) -> tuple[bytes, bytes] | None:
    """`converted(decode(…))` for what stands in most rows, five times as fast: key and value of
    the address; else None."""
    found = _USUAL.fullmatch(value)
    if found is None or not key.isalnum() or len(key) > MAX_PEER_ID:
        return None
    *numbers, name = found.groups()
    a, b, c, d, port, seen, success, failure, failures = map(int, numbers)
    rank, who = _SOURCES.get(name, (-1, b""))
    if a >= 240 or b > 255 or c > 255 or d > 255 or port > 65535 or rank < 0:
        return None
    address = MAPPED + bytes((a, b, c, d)) + port.to_bytes(2, "big")
    expires = NEVER_EXPIRES if rank == _DECLARED else 0
    core = CORE.pack(
        DERIVED, 0, scattered(address), seen, success, failure, expires, min(failures, 255), rank
    )
    tail = b"".join((who, _FIRST, seen.to_bytes(8, "little"), _PEERS[len(key)], key))
    return address, HEAD + core + tail


def scattered(address: bytes) -> int:
    """In the place of the network that told us, of which nothing is known: any."""
    return max(LEAST_HASH, crc32(address))


_SOURCES: Final = {
    source.value.encode(): (source.rank, field(Tag.WHO, source.value.encode())) for source in Source
}
_FIRST: Final = field(Tag.FIRST_HEARD, bytes(8))[:-8]
_PEERS: Final = tuple(
    field(Tag.PEER_ID, bytes(size))[: -size or None] for size in range(MAX_PEER_ID + 1)
)
_DECLARED: Final = Source.DECLARED.rank


def converted(record: PeerRecord) -> Iterator[Change]:
    """The rows of version 2 that hold what a record of version 1 held.

    A peer with one address and no relays needs no row of its own: its address has its id.
    """
    keys: list[bytes] = []
    rest: list[str] = []
    for address in record.addresses:
        key = from_text(address)
        if key is None or is_synthetic(key):
            rest.append(address)
        elif key not in keys:
            keys.append(key)
    declared = record.source is Source.DECLARED
    expires = NEVER_EXPIRES if declared else 0  # hearsay without a lifetime has lapsed
    numbers = (
        min(record.last_seen, _MAX_U32),
        min(record.last_success, _MAX_U32),
        min(record.last_failure, _MAX_U32),
        expires,
        min(record.failures, 255),
        record.source.rank | (F_CLAIMED if record.is_relay else 0),
    )
    for key in keys:
        core = CORE.pack(DERIVED, 0, scattered(key), *numbers)
        value = AddressValue(core, record.source.value, record.last_seen, record.peer_id)
        yield "addresses", key, encode_address(value)
    if len(keys) == 1 and not (rest or record.relays or record.is_relay):
        return
    peer = Capability(
        peer_id=record.peer_id,
        relay_port=int.from_bytes(keys[0][16:], "big") if keys and record.is_relay else 0,
        capacity=0,
        role=RelayRole.PUBLIC if record.is_relay else RelayRole.UNSPECIFIED,
        who=record.source.value,
        heard=record.last_seen,
        expires=expires,
        signed=False,
        confirmed=record.last_success if record.is_relay else 0,
        hint=record.relays[0] if record.relays else "",
        addresses=tuple(keys),
    )
    row = encode_capability(peer, (*rest, *record.relays))
    yield "capabilities", PEER + record.peer_id.encode("ascii"), row


_STEPS: Final[dict[int, Callable[[Store, Progress], None]]] = {1: capability}

assert VERSION == SCHEMA, "a new format of values is a new schema"
