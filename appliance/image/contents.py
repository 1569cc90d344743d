"""What the file systems of an image hold, so that two of them are told apart file by file.

blkid names the kind; mtools read FAT, debugfs ext4, fsck.erofs erofs: nothing is mounted. Who is
not root reads every owner as themselves.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from appliance.errors import ApplianceError
from appliance.image.programs import find

_EXTRACT: Final[Mapping[str, Callable[[Path, Path], list[str]]]] = {
    "vfat": lambda image, to: [find("mcopy"), "-s", "-m", "-n", "-i", f"{image}", "::/", f"{to}"],
    "ext4": lambda image, to: [find("debugfs"), "-R", f"rdump / {to}", f"{image}"],
    "erofs": lambda image, to: [find("fsck.erofs"), f"--extract={to}", "--overwrite", f"{image}"],
}
"""File system and directory → the command that lays its files there."""
_UNTIMED: Final = {"vfat": "directory", "ext4": "link"}
"""What these commands give the time at which they made it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What two builds must agree on, of one file, directory or link."""

    kind: str
    content: str
    """SHA-256 of a file, target of a link; else empty."""
    mode: str
    owner: str
    time: float
    """When it was changed last: seconds since 1970; 0 where the reader does not keep it."""


def entries(partition: Path) -> dict[str, Entry] | None:
    """Path → entry, of a file that holds one file system; None: it is of no kind that we read.

    Raises ApplianceError where a program is missing or the file system is damaged.
    """
    kind = _kind(partition)
    if kind not in _EXTRACT:
        return None
    with tempfile.TemporaryDirectory(prefix="contents-", dir=partition.parent) as place:
        command = _EXTRACT[kind](partition, Path(place))
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            said = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise ApplianceError(f"{Path(command[0]).name} cannot read the {kind}: {said}")
        found = dict(_walk(Path(place)))
    untimed = {path for path, entry in found.items() if entry.kind == _UNTIMED.get(kind)}
    return found | {path: dataclasses.replace(found[path], time=0) for path in untimed}


def differences(first: Mapping[str, Entry], second: Mapping[str, Entry]) -> Iterator[str]:
    """`PATH: how` for each path that is not the same in both."""
    for path in sorted(first.keys() | second.keys()):
        one, other = first.get(path), second.get(path)
        if one is None or other is None:
            yield f"{path}: only in the {'second' if one is None else 'first'}"
        elif one != other:
            yield f"{path}: {'; '.join(_unlike(one, other))}"


def _unlike(one: Entry, other: Entry) -> Iterator[str]:
    for field in dataclasses.fields(Entry):
        left, right = getattr(one, field.name), getattr(other, field.name)
        if left == right:
            continue
        # Two hashes say no more than that they differ.
        hashed = field.name == "content" and one.kind == other.kind == "file"
        yield "content" if hashed else f"{field.name} {left} and {right}"


def _walk(place: Path) -> Iterator[tuple[str, Entry]]:
    for directory, names, files in os.walk(place):
        for name in (*names, *files):
            path = Path(directory, name)
            yield f"/{path.relative_to(place)}", _entry(path)


def _entry(path: Path) -> Entry:
    status = path.lstat()
    content = ""
    match stat.S_IFMT(status.st_mode):
        case stat.S_IFREG:
            kind = "file"
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
        case stat.S_IFLNK:
            kind, content = "link", str(path.readlink())
        case stat.S_IFDIR:
            kind = "directory"
        case _:
            kind = "special file"
    mode = f"{stat.S_IMODE(status.st_mode):04o}"
    return Entry(kind, content, mode, f"{status.st_uid}:{status.st_gid}", status.st_mtime)


def _kind(partition: Path) -> str:
    words = [find("blkid"), "--probe", "--match-tag", "TYPE", "--output", "value", str(partition)]
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()
