"""What one unit of something takes from the machine."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cost:
    """One unit while it is held, idle: buffers that a busy one may fill are budgeted apart."""

    fds: int = 0
    """Open file descriptors."""
    memory_bytes: int = 0
    """Resident memory of our process, in bytes."""
    kernel_bytes: int = 0
    """Memory that the kernel holds on our behalf and a memory control group counts beside the
    process's own, in bytes: sockets and their buffers, file tables, page tables."""
    tasks: int = 0
    """Tasks of our event loop."""
    threads: int = 0
    """Threads: what `TasksMax` counts."""
    conntrack: int = 0
    """Entries in a connection-tracking table: TCP connections, also those on loopback."""
