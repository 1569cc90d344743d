"""What the kernel says of a process: its open files by owner, its memory, threads, connections."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.bench.machine import memory

LISTENING: Final = "0A"
"""State of a TCP socket in /proc/net/tcp (include/net/tcp_states.h)."""
UNIX_LISTENING: Final = 0x10000
"""Flag of a Unix socket in /proc/net/unix: it accepts connections."""


@dataclass(frozen=True, slots=True)
class Places:
    """By which a descriptor's owner is known: ports of TCP, and where files lie."""

    bridge: frozenset[int]
    slots: frozenset[int]
    metrics: int
    node: int
    book: Path
    control: Path


NOWHERE: Final = Places(frozenset(), frozenset(), 0, 0, Path("/nowhere"), Path("/nowhere"))
"""For a process of which only sums are of interest."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A process at one moment; memory in bytes."""

    fds: int
    owners: dict[str, int]
    rss: int
    pss: int
    threads: int
    tcp: int
    """TCP connections, each one entry of a connection-tracking table."""


@dataclass(slots=True)
class _Sockets:
    """Every socket of the process's network namespace, by inode."""

    tcp: dict[int, tuple[int, int, str]] = field(default_factory=dict)
    """Local port, remote port, state."""
    unix: dict[int, tuple[int, str]] = field(default_factory=dict)
    """Flags, path."""


def _sockets(pid: int) -> _Sockets:
    found = _Sockets()
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]:
            fields = line.split()
            local, remote = (int(end.rpartition(":")[2], 16) for end in fields[1:3])
            found.tcp[int(fields[9])] = (local, remote, fields[3])
    for line in Path(f"/proc/{pid}/net/unix").read_text().splitlines()[1:]:
        fields = line.split(maxsplit=7)
        path = fields[7] if len(fields) > 7 else ""
        found.unix[int(fields[6])] = (int(fields[3], 16), path)
    return found


def _targets(pid: int) -> Iterable[str]:
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            yield str(link.readlink())
        except FileNotFoundError:
            continue  # closed since


def _owner(target: str, sockets: _Sockets, places: Places) -> str:
    if target.startswith("socket:["):
        inode = int(target[8:-1])
        if inode in sockets.tcp:
            return _tcp_owner(*sockets.tcp[inode], places)
        flags, path = sockets.unix.get(inode, (0, ""))
        if path.startswith(str(places.control.parent)):
            return "listener: control" if flags & UNIX_LISTENING else "operators"
        # A socket that was closed by its peer and not yet by us has no entry any more.
        return "runtime" if inode in sockets.unix else "half-closed"
    if target.startswith(str(places.book)):
        return "store"
    if target.startswith(str(places.control)):
        return "listener: control"
    return "runtime"


def _tcp_owner(local: int, remote: int, state: str, places: Places) -> str:
    if state == LISTENING:
        if local in places.bridge:
            return "listeners: bridge"
        return "listeners: slots" if local in places.slots else "listener: metrics"
    if local in places.bridge:
        return "connections"
    if local in places.slots:
        return "pipes of slots"
    if local == places.metrics:
        return "scrapers"
    return "pipes to the node" if remote == places.node else "dials"


def read(pid: int, places: Places) -> Reading:
    """The process now. Sockets that come and go meanwhile may be counted or not."""
    sockets = _sockets(pid)
    owners = Counter(_owner(target, sockets, places) for target in _targets(pid))
    connected = ("connections", "pipes of slots", "pipes to the node", "scrapers", "dials")
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    [threads] = (int(line.split()[1]) for line in status if line.startswith("Threads:"))
    held = memory(pid)
    return Reading(
        fds=owners.total(),
        owners=dict(sorted(owners.items())),
        rss=held.rss,
        pss=held.pss,
        threads=threads,
        tcp=sum(owners[name] for name in connected),
    )
