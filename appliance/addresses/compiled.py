"""The table of autonomous systems as it is in memory, kept in a file beside the book.

To read a million lines takes seconds, at each start; what came of them is read in a moment. The
file counts only for a table of the same bytes, by their hash. It is a cache: if it is missing, torn
or of another table, the lines are read.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
from pathlib import Path
from typing import BinaryIO, Final

from appliance.addresses.systems import (
    MAX_RANGES,
    AutonomousSystems,
    Ranges,
    hash_of_lines,
    opened,
    read_systems,
)

SYSTEMS_CACHE: Final = "systems.cache"
_MAGIC: Final = b"kaspa-appliance systems 1\n"
_COUNTS: Final = struct.Struct("<II")  # ranges of IPv4 and of IPv6


def compiled_systems(path: Path, cache: Path) -> AutonomousSystems:
    """The table in a file, with its compiled form at `cache`. Blocks on the disk. Raises
    ApplianceError, with the place of what is wrong."""
    with opened(path) as file:
        digest = hashlib.file_digest(file, hash_of_lines).hexdigest().encode("ascii")
    found = _read(cache, digest)
    if found is None:
        found = read_systems(path)
        # Without it the next start only takes longer.
        with contextlib.suppress(OSError):
            _write(cache, found)
    return found


def _write(cache: Path, table: AutonomousSystems) -> None:
    draft = cache.with_suffix(".tmp")
    columns = [bytes(column) for column in table.columns]
    counts = _COUNTS.pack(*[len(ranges) for ranges in table.ranges])
    parts = [_MAGIC, table.digest, counts, *columns]
    check = hashlib.sha256(b"".join(parts)).digest()
    with draft.open("wb") as file:
        file.writelines([*parts, check])
        file.flush()
        os.fsync(file.fileno())
    draft.replace(cache)


def _read(cache: Path, digest: bytes) -> AutonomousSystems | None:
    """None if it is not whole, or of another table."""
    try:
        with cache.open("rb") as file:
            return _table(file, digest)
    except (OSError, EOFError, ValueError):  # the last two: it ends in a column
        return None


def _table(file: BinaryIO, digest: bytes) -> AutonomousSystems | None:
    head = file.read(len(_MAGIC) + len(digest) + _COUNTS.size)
    if head[: -_COUNTS.size] != _MAGIC + digest:
        return None
    counts = _COUNTS.unpack(head[-_COUNTS.size :])
    if sum(counts) > MAX_RANGES:
        return None
    check = hashlib.sha256(head)
    four, six = Ranges("I", 32), Ranges("Q", 64)
    for ranges, count in zip((four, six), counts, strict=True):
        for column in (ranges.starts, ranges.systems):
            column.fromfile(file, count)
            check.update(column)
    if file.read() != check.digest():
        return None
    return AutonomousSystems.of_ranges(four, six, digest)
