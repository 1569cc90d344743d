"""The internet line of this machine, as far as the machine itself can tell."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ASSUMED_UPLOAD: Final = 5_000_000  # 40 Mbit/s
ASSUMED_HOSTED: Final = 12_500_000  # 100 Mbit/s
HOME_NEW_CONNECTIONS: Final = 30  # what libtorrent allows itself on home lines (connection_speed)
HOSTED_NEW_CONNECTIONS: Final = 1000
_MEGABIT: Final = 125_000


@dataclass(frozen=True, slots=True)
class Line:
    """Bytes per second, connections per second, and one sentence on where they are from."""

    link_bytes_per_second: int
    new_connections_per_second: int
    note: str


def line(root: Path) -> Line:
    """The line behind the default route.

    A machine with a public address of its own has no router in front: its card is the line.
    Behind a router the card says nothing but the most that can pass.
    """
    card = _speed(root)
    if any(address.is_global for address in _addresses(root)):
        speed = card or ASSUMED_HOSTED
        source = "as its network card says" if card else "assumed: the network card does not say"
        return Line(speed, HOSTED_NEW_CONNECTIONS, f"{speed} bytes/s, {source}")
    speed = min(ASSUMED_UPLOAD, card or ASSUMED_UPLOAD)
    note = f"cannot be seen from behind a router, {speed} bytes/s assumed"
    return Line(speed, HOME_NEW_CONNECTIONS, note)


def _speed(root: Path) -> int:
    """Of the card that the default route leaves by; 0 if there is none that says."""
    for interface in _default_interfaces(root):
        try:
            # sysfs-class-net: megabits a second; -1, or an error, where the driver does not know.
            megabits = int(_read(root / "sys/class/net" / interface / "speed").strip() or 0)
        except ValueError:
            continue
        if megabits > 0:
            return megabits * _MEGABIT
    return 0


def _default_interfaces(root: Path) -> Iterator[str]:
    for row in _read(root / "proc/net/route").splitlines()[1:]:
        fields = row.split()
        # proc_net(5): interface, destination, …, mask as the eighth, in hexadecimal.
        if len(fields) > 7 and fields[1] == fields[7] == "00000000":
            yield fields[0]
    for row in _read(root / "proc/net/ipv6_route").splitlines():
        fields = row.split()
        if len(fields) == 10 and fields[1] == "00" and fields[9] != "lo":
            yield fields[9]


def _addresses(root: Path) -> Iterator[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """The machine's own."""
    previous = ""
    for row in _read(root / "proc/net/fib_trie").splitlines():
        if "host LOCAL" in row:
            yield ipaddress.IPv4Address(previous)
        previous = row.partition("|--")[2].strip() or previous
    for row in _read(root / "proc/net/if_inet6").splitlines():
        digits = row.split()[0]
        yield ipaddress.IPv6Address(int(digits, 16))


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
