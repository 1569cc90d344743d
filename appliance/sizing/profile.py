"""What the solver knows about a machine: a profile, from the catalogue, detected or written out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

ARCHITECTURES: Final = ("aarch64", "armv6l", "armv7l", "mips", "riscv64", "x86_64")
"""As `uname -m` names them; `detect` passes others through."""

STORAGES: Final = ("sd-card", "emmc", "flash", "ssd", "hdd", "unknown")


@dataclass(frozen=True, slots=True)
class Profile:
    """One machine's resources, in bytes, bytes per second and counts; each at least 1."""

    name: str
    description: str
    source: str
    architecture: str
    cores: int
    memory_bytes: int
    nofile: int
    """Open files that the system grants one process (the hard limit)."""
    link_bytes_per_second: int
    """The slower direction of the internet line."""
    conntrack_max: int
    """Entries of the smallest connection-tracking table on the way out."""
    new_connections_per_second: int
    """How many the router upstream sets up a second without trouble."""
    storage: str
