"""The setup partition: the user's files, whatever computer and editor they come from.

A FAT file system without modes and without case. Windows hides endings and adds `.txt`; macOS
leaves `._NAME` beside each NAME; editors write a byte order mark, CRLF, or UTF-16.
"""

from __future__ import annotations

import codecs
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from appliance.declaration.nodes import MAX_BYTES
from appliance.errors import ApplianceError
from appliance.machine import files
from appliance.machine.places import DECLARATION, KEYS, PASSPHRASE, Places
from appliance.units import KIB

MAX_KEYS: Final = 64 * KIB
MAX_PASSPHRASE: Final = 256
MAX_NAMES: Final = 4096
"""Names looked at: firmware and kernels lie in the same place, a few hundred of them."""

_ALIASES: Final = {
    DECLARATION: ("appliance.yaml", "appliance.yml", "appliance.yaml.txt", "appliance.yml.txt"),
    KEYS: ("authorized_keys", "authorized_keys.txt"),
    PASSPHRASE: ("wifi-passphrase", "wifi-passphrase.txt"),
}
_LIMITS: Final = {DECLARATION: MAX_BYTES, KEYS: MAX_KEYS, PASSPHRASE: MAX_PASSPHRASE}


@dataclass(frozen=True, slots=True)
class UserFile:
    """A file as it is called there, its text in UTF-8 without a byte order mark."""

    name: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Setup:
    """What the partition held when it was looked at; `present` is False if there is none."""

    present: bool
    declaration: UserFile | None = None
    keys: UserFile | None = None
    passphrase: UserFile | None = None
    faults: tuple[str, ...] = ()
    unreadable: frozenset[str] = frozenset()
    """Files that are there, by their right name, and cannot be read."""


def read_setup(places: Places) -> Setup:
    """Never raises: what cannot be read is a fault, and as if it were not there."""
    faults: list[str] = []
    if places.live and not os.path.ismount(places.setup):
        return Setup(False, faults=("the setup partition is not there, or cannot be mounted",))
    try:
        with os.scandir(places.setup) as entries:
            names = sorted(entry.name for entry in itertools.islice(entries, MAX_NAMES))
    except OSError as error:
        return Setup(False, faults=(f"the setup partition cannot be read: {files.why(error)}",))
    found: dict[str, UserFile | None] = {}
    unreadable = set()
    for name in (DECLARATION, KEYS, PASSPHRASE):
        try:
            found[name] = _read(places.setup, name, names, faults)
        except ApplianceError as error:
            faults.append(error.message)
            unreadable.add(name)
    return Setup(
        True,
        found.get(DECLARATION),
        found.get(KEYS),
        found.get(PASSPHRASE),
        tuple(faults),
        frozenset(unreadable),
    )


def _read(directory: Path, wanted: str, names: list[str], faults: list[str]) -> UserFile | None:
    """None if there is none. Raises ApplianceError."""
    candidates = list(_candidates(wanted, names))
    faults += (
        f"{name}: is not read, because there is {candidates[0]} too; delete one"
        for name in candidates[1:]
    )
    if not candidates:
        return None
    data = files.read(directory / candidates[0], _LIMITS[wanted])
    return None if data is None else UserFile(candidates[0], _as_utf8(data))


def _candidates(wanted: str, names: list[str]) -> Iterator[str]:
    """The best name first: the right one, then those with endings added."""
    for alias in _ALIASES[wanted]:
        yield from (name for name in names if name.casefold() == alias)


def _as_utf8(data: bytes) -> bytes:
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        try:
            return data.decode("utf-16").encode()
        except UnicodeError:
            return data  # the reader says where
    return data.removeprefix(codecs.BOM_UTF8)
