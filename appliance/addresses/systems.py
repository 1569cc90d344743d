"""Autonomous systems: which of them an address belongs to, by a table that the operator gives.

The table is a text file, one network and its number a line, as Bitcoin Core's asmap-tool and
kartograf write it:

    1.0.0.0/24 AS13335
    2606:4700::/32 13335

Of networks inside one another the smallest counts. In memory they are ranges that do not overlap:
8 bytes each for IPv4, 12 for IPv6, of which the first 64 bits are looked at.
"""

from __future__ import annotations

import contextlib
import hashlib
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from io import BufferedReader
from pathlib import Path
from socket import AF_INET, AF_INET6, inet_pton
from typing import Final, Self

from appliance.addresses.keys import MAPPED, is_synthetic
from appliance.errors import ApplianceError
from appliance.units import MIB

MAX_BYTES: Final = 96 * MIB
"""Of the file; one of all networks that are announced has some 30 MiB (1,250,000 lines)."""
MAX_RANGES: Final = 2_000_000
"""In memory, where neighbours of the same system are one, and what lies between is one, too."""
MAX_LINE: Final = 128  # bytes
_MAX_NUMBER: Final = 0xFFFFFFFF
_HINT: Final = "one network and its system a line, in the order of addresses: 1.0.0.0/24 13335"
_NONE: Final = 0  # AS 0 is reserved: it announces nothing (RFC 7607)


class Ranges:
    """Neighbouring ranges of one family: from where on which system."""

    def __init__(self, kind: str, bits: int) -> None:
        self.bits = bits
        self.starts = array(kind)
        self.systems = array("I")
        self._inside: list[tuple[int, int]] = []  # where each network ends, and its system
        self._last = (-1, 0)

    def __len__(self) -> int:
        return len(self.starts)

    def of(self, address: int) -> int:
        """The system of an address, 0 if none is known."""
        at = bisect_right(self.starts, address) - 1
        return self.systems[at] if at >= 0 else _NONE

    def add(self, start: int, length: int, system: int) -> str:
        """One network more, each behind those that it is in; what is wrong with it, if anything."""
        this = (start, length)
        if this <= self._last:
            return "is there already" if this == self._last else "is out of order"
        self._last = this
        self._leave(start)
        self._inside.append((start + (1 << self.bits - length), system))
        self._enter(start, system)
        return ""

    def close(self) -> None:
        """No network follows."""
        self._leave(1 << self.bits)

    def _leave(self, address: int) -> None:
        """Behind a network that ends before `address` the one around it goes on."""
        while self._inside and self._inside[-1][0] <= address:
            end, _ = self._inside.pop()
            if end < 1 << self.bits:
                self._enter(end, self._inside[-1][1] if self._inside else _NONE)

    def _enter(self, start: int, system: int) -> None:
        if self.starts and self.starts[-1] == start:
            self.starts.pop()
            self.systems.pop()
        if (self.systems[-1] if self.systems else _NONE) != system:
            self.starts.append(start)
            self.systems.append(system)


class AutonomousSystems:
    """Networks in the order of their addresses, IPv4 and IPv6 apart."""

    def __init__(self, lines: Iterable[bytes]) -> None:
        """ValueError, with the number of the line, if one is no network and its system, or if
        there are more than `MAX_RANGES`."""
        self._four, self._six = Ranges("I", 32), Ranges("Q", 64)
        check = hash_of_lines()
        for number, line in enumerate(lines, 1):
            check.update(line)
            try:
                self._read(line)
            except ValueError as error:
                raise ValueError(f"{number}: {error}") from None
        self._four.close()
        self._six.close()
        self.digest = check.hexdigest().encode("ascii")
        """Names the table: another one, other groups."""

    @classmethod
    def of_ranges(cls, four: Ranges, six: Ranges, digest: bytes) -> Self:
        """A table whose lines were read before."""
        made = cls(())
        made._four, made._six, made.digest = four, six, digest
        return made

    @property
    def ranges(self) -> tuple[Ranges, Ranges]:
        """Of IPv4 and of IPv6."""
        return self._four, self._six

    @property
    def columns(self) -> list[array[int]]:
        return [column for one in self.ranges for column in (one.starts, one.systems)]

    def __len__(self) -> int:
        return len(self._four) + len(self._six)

    @property
    def memory_bytes(self) -> int:
        return sum(column.__sizeof__() for column in self.columns)

    def of(self, key: bytes) -> int:
        """The number of the system that the address of a key belongs to; 0 if none is known."""
        if key[:12] != MAPPED:
            return self._six.of(int.from_bytes(key[:8], "big"))
        return _NONE if is_synthetic(key) else self._four.of(int.from_bytes(key[12:16], "big"))

    def _read(self, line: bytes) -> None:
        if len(line) > MAX_LINE:
            raise ValueError(f"a line of more than {MAX_LINE} bytes")
        words = line.split(b"#", 1)[0].decode("ascii", "replace").split()
        if not words:
            return
        if len(words) != 2:
            raise ValueError("not a network and a number, as in `1.0.0.0/24 13335`")
        network, name = words
        host, _, digits = network.partition("/")
        is_four = ":" not in host
        try:
            packed = inet_pton(AF_INET if is_four else AF_INET6, host)
        except (OSError, ValueError):  # a null byte is the latter
            raise ValueError(f"{network!r} is not a network, as in 1.0.0.0/24") from None
        length, address = _number(digits), int.from_bytes(packed, "big")
        ranges = self._four if is_four else self._six
        if not 0 < length <= ranges.bits:
            raise ValueError(f"{network!r} has no length from /1 to /{ranges.bits}")
        if address & ((1 << 8 * len(packed) - length) - 1):
            raise ValueError(f"{network!r} has bits behind its length")
        system = _number(name[2:] if name[:2] in ("AS", "as") else name)
        if not 0 < system <= _MAX_NUMBER:
            raise ValueError(f"{name!r} is no system, from 1 to {_MAX_NUMBER}")
        if fault := ranges.add(address if is_four else address >> 64, length, system):
            raise ValueError(f"{network} {fault}")
        if len(self._four.starts) + len(self._six.starts) > MAX_RANGES:
            raise ValueError(f"more than {MAX_RANGES:,} ranges")


def _number(digits: str) -> int:
    """-1 if it is none, or longer than any of ours."""
    return int(digits) if digits.isdecimal() and digits.isascii() and len(digits) < 11 else -1


def hash_of_lines() -> hashlib.blake2b:
    """What makes the `digest` of a table from the bytes of its file."""
    return hashlib.blake2b(digest_size=8)


def read_systems(path: Path) -> AutonomousSystems:
    """The table in a file. Blocks on the disk. Raises ApplianceError, with the place."""
    try:
        with opened(path) as file:
            return AutonomousSystems(iter(lambda: file.readline(MAX_LINE + 1), b""))
    except ValueError as error:
        raise ApplianceError(
            f"{path}:{error}",
            hint=_HINT,
        ) from None


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BufferedReader]:
    """The file of a table, to be read. Raises ApplianceError, then too."""
    try:
        if not path.is_file() or path.stat().st_size > MAX_BYTES:
            raise ApplianceError(
                f"discovery.as_table: {path} is not a file of at most {MAX_BYTES // MIB} MiB",
                hint=_HINT,
            )
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise ApplianceError(
            f"discovery.as_table: {path} cannot be read: {error.strerror}",
            hint="name a file that the appliance's user can read, or leave as_table out",
        ) from None
