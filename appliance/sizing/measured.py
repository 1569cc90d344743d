"""What one unit of each kind costs, measured. Generated: do not edit.

    .venv/bin/python -m tests.bench.capacity --costs --write

`process` is an idle daemon with a remote node, without its address book and the
sockets on which it listens; `embedded_node` is what an embedded one adds to it, its
socket left out; `circuit` and the streams come on top of their connections; `slot`
is its socket and the search for its peer. docs/capacity.md says how it was measured.
"""

from __future__ import annotations

from typing import Final

from appliance.sizing.cost import Cost
from appliance.units import KIB, MIB

MEASURED_ON: Final = "2026-11-23"
MACHINE: Final = "x86_64, CPython 3.11.7, Linux 6.18"

UNITS: Final[dict[str, Cost]] = {
    "process": Cost(fds=9, memory_bytes=78 * MIB, kernel_bytes=1 * MIB, tasks=19, threads=2),
    "embedded_node": Cost(memory_bytes=1 * MIB, kernel_bytes=1 * MIB, tasks=3),
    "store": Cost(fds=11, memory_bytes=4 * MIB, kernel_bytes=1 * MIB, threads=3),
    "listener": Cost(fds=1, memory_bytes=32 * KIB, kernel_bytes=32 * KIB, tasks=1),
    "connection": Cost(fds=1, memory_bytes=18 * KIB, kernel_bytes=4 * KIB, tasks=1, conntrack=1),
    "reservation": Cost(memory_bytes=1 * KIB),
    "circuit": Cost(memory_bytes=4 * KIB),
    "private_stream": Cost(
        fds=1,
        memory_bytes=14 * KIB,
        kernel_bytes=5 * KIB,
        tasks=1,
        conntrack=1,
    ),
    "slot": Cost(fds=1, memory_bytes=20 * KIB, kernel_bytes=6 * KIB, tasks=3),
    "slot_stream": Cost(fds=1, memory_bytes=5 * KIB, kernel_bytes=4 * KIB, tasks=1, conntrack=1),
    "scraper": Cost(fds=1, memory_bytes=32 * KIB, kernel_bytes=32 * KIB, tasks=1, conntrack=1),
    "operator": Cost(fds=1, memory_bytes=32 * KIB, kernel_bytes=32 * KIB, tasks=1),
}
