"""What a path to flash to is: a disk, a part of one, a file; and who uses it now.

Read from sysfs and /proc, so that it holds for every kind of disk. Nothing is opened or changed.
"""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from appliance.errors import ApplianceError
from appliance.units import human_bytes

_SYS: Final = Path("/sys/dev/block")
_SECTOR: Final = 512  # sysfs counts in these, whatever the disk's own are (block/partitions docs)

SYSTEM_MOUNTS: Final = ("/", "/boot", "/efi", "/usr", "/var", "/home")
"""A disk with one of these, or with something mounted below /boot, holds the running system."""


@dataclass(frozen=True, slots=True)
class Use:
    """Somebody that uses the disk now; `system`: the running system would not survive it."""

    what: str
    system: bool


@dataclass(frozen=True, slots=True)
class Target:
    """Where an image can be written: a whole disk, or (`is_file`) a regular file."""

    path: Path
    is_file: bool
    size: int
    """Bytes; of a file, those that it has now."""
    contents: tuple[str, ...]
    """What would be lost, a line each."""
    uses: tuple[Use, ...]


def inspect(path: Path) -> Target:
    """What stands at `path`. Raises ApplianceError where no image can be written, forced or not."""
    try:
        found = path.stat()
    except FileNotFoundError:
        if _is_below_dev(path):
            raise ApplianceError(f"there is no device {path}", hint=_disks_here()) from None
        return Target(path, True, 0, (), ())
    except OSError as error:
        raise ApplianceError(f"{path} cannot be looked at: {error.strerror}") from error
    if stat.S_ISREG(found.st_mode):
        if _is_below_dev(path):
            message = f"{path} is a file that a mistyped name left among the devices"
            raise ApplianceError(message, hint=f"remove it; {_disks_here()}")
        lost = f"{path}, a file of {human_bytes(found.st_size)}"
        return Target(path, True, found.st_size, (lost,) if found.st_size else (), ())
    if not stat.S_ISBLK(found.st_mode):
        raise ApplianceError(f"{path} is neither a disk nor a file", hint=_disks_here())
    return _disk(path, _SYS / _number(found.st_rdev))


def _disk(path: Path, entry: Path) -> Target:
    if (entry / "partition").exists():
        whole = "/dev/" + entry.resolve().parent.name
        message = f"{path} is a partition, and an image is a whole disk"
        raise ApplianceError(message, hint=f"its disk is {whole}")
    if _read(entry / "ro") == "1":
        raise ApplianceError(f"{path} is write-protected", hint="look for a switch on the card")
    size = int(_read(entry / "size") or 0) * _SECTOR
    if size == 0:
        raise ApplianceError(f"{path} is empty: no card is in it")
    members = dict(_members(entry))
    return Target(path, False, size, _described(path, size), tuple(_uses(members)))


def _members(entry: Path) -> Iterator[tuple[str, str]]:
    """Device number → name of the disk, its partitions, and all that is built on them."""
    real = entry.resolve()
    yield _read(real / "dev"), real.name
    parts = [part for part in real.iterdir() if (part / "partition").exists()]
    for part in sorted(parts):
        yield _read(part / "dev"), part.name
    for base in (real, *parts):
        holders = base / "holders"
        for holder in sorted(holders.iterdir()) if holders.is_dir() else ():
            yield from _members(holder)


def _uses(members: dict[str, str]) -> Iterator[Use]:
    names = set(members.values())
    own = next(iter(members.values()))
    mounted = set()
    for number, where, source in _mounts():
        name = members.get(number) or _name_of(source)
        if name not in names or (name, where) in mounted:
            continue
        mounted.add((name, where))
        system = where in SYSTEM_MOUNTS or where.startswith(("/boot/", "/efi/"))
        yield Use(f"{name} is mounted at {where}", system)
    for line in Path("/proc/swaps").read_text(encoding="utf-8").splitlines()[1:]:
        if (name := _name_of(line.split()[0])) in names:
            yield Use(f"the system swaps to {name}", True)
    for name in members.values():
        if not name.startswith(own):
            yield Use(f"{name} is built on it", False)


def _mounts() -> Iterator[tuple[str, str, str]]:
    """(device number, mount point, source) of each; proc_pid_mountinfo(5)."""
    text = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        fields, source = left.split(), right.split()[1]
        yield fields[2], _unescaped(fields[4]), _unescaped(source)


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def _name_of(source: str) -> str | None:
    """The kernel's name of a device file. A file system of several devices (btrfs) has a number
    of its own, and is known by its source alone."""
    if not source.startswith("/dev/"):
        return None
    try:
        found = Path(source).stat()
    except OSError:
        return None
    return (_SYS / _number(found.st_rdev)).resolve().name if stat.S_ISBLK(found.st_mode) else None


def _number(device: int) -> str:
    return f"{os.major(device)}:{os.minor(device)}"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _is_below_dev(path: Path) -> bool:
    return Path("/dev") in Path(os.path.abspath(path)).parents  # noqa: PTH100 - links stay as typed


# --- for people


def _lsblk(*arguments: str) -> list[dict[str, object]]:
    """What lsblk tells; nothing where it cannot: this only describes."""
    columns = "NAME,SIZE,TYPE,FSTYPE,LABEL,PARTLABEL,MODEL,TRAN,RM"
    command = ["lsblk", "--json", "--bytes", "--output", columns, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, check=True)
        devices: list[dict[str, object]] = json.loads(done.stdout)["blockdevices"]
    except (OSError, subprocess.CalledProcessError, ValueError, KeyError):
        return []
    return devices


def _described(path: Path, size: int) -> tuple[str, ...]:
    rows = _lsblk(str(path))
    disk = rows[0] if rows else {}
    kind = " ".join(str(disk[key]) for key in ("model", "tran") if disk.get(key))
    lines = [f"{path}, {kind or 'a disk'}, {human_bytes(size)}"]
    children = disk.get("children")
    for part in children if isinstance(children, list) else []:
        words = [str(part[key]) for key in ("fstype", "label", "partlabel") if part.get(key)]
        lines.append(
            f"  {part['name']}  {human_bytes(int(part['size']))}  {' '.join(words)}".rstrip()
        )
    return tuple(lines)


def _disks_here() -> str:
    """A hint: the disks that one may have meant, those that can be taken out first."""
    disks = [row for row in _lsblk("--nodeps") if row.get("type") == "disk" and row.get("size")]
    disks.sort(key=lambda row: not row.get("rm"))
    named = [f"/dev/{row['name']} ({human_bytes(int(str(row['size'])))})" for row in disks]
    return f"the disks here are {', '.join(named)}" if named else "no disk is seen here"
