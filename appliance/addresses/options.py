"""What the plan gives the book: how much it may hold, open and keep in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from appliance.units import MIB

MIN_ENTRIES: Final = 64
MAX_ENTRIES: Final = 16_000_000
"""More needs wider counters than the tables have."""


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """Defaults are for the smallest router. ValueError if a field is out of its bounds."""

    entries: int = 4096
    """Addresses, as many as kaspad's own book has; about 90 bytes of memory each."""
    max_open_files: int = 64
    """RocksDB's tables; its log, manifest and lock come on top (about 10)."""
    block_cache_bytes: int = 1 * MIB
    write_buffer_bytes: int = 2 * MIB
    """Of all column families together; the write-ahead log is kept to the same size."""

    def __post_init__(self) -> None:
        if not MIN_ENTRIES <= self.entries <= MAX_ENTRIES:
            raise ValueError(f"entries is not between {MIN_ENTRIES} and {MAX_ENTRIES}")
        if self.max_open_files < 16:
            raise ValueError("max_open_files is less than 16")
        if min(self.block_cache_bytes, self.write_buffer_bytes) < 64 * 1024:
            raise ValueError("a buffer of less than 64 KiB")
