"""This machine as a profile. The one file of this room that looks at the machine: only the command
line and the composition root import it.

What cannot be read is assumed, and said so in the notes; detection itself never fails.
"""

from __future__ import annotations

import dataclasses
import json
import os
import resource
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from appliance.errors import ApplianceError
from appliance.sizing import detect_line
from appliance.sizing.profile import Profile
from appliance.units import MIB

ASSUMED_MEMORY: Final = 512 * MIB
ASSUMED_CONNTRACK: Final = 16_384  # what many home routers track
ASSUMED_NOFILE: Final = 4096  # the kernel's default hard limit
RECORD: Final = "APPLIANCE_HARDWARE"
"""Environment variable: the file that says what was detected before a unit's limits held."""


@dataclass(frozen=True, slots=True)
class Detected:
    """The profile, and one sentence for each figure that was assumed or narrowed."""

    profile: Profile
    notes: tuple[str, ...]


def detect(root: Path = Path("/")) -> Detected:
    """Describe the machine whose `/proc` and `/sys` are below `root`.

    Limits of the own process (open files, CPU affinity) are always this process's. Under a unit or
    container with limits, these are what is found: there, name the profile that they were made for.
    """
    notes: list[str] = []
    uplink = detect_line.line(root)
    profile = Profile(
        name="detect",
        description=_board(root),
        source="detected",
        architecture=os.uname().machine,
        cores=_cores(root, notes),
        memory_bytes=_memory(root, notes),
        nofile=_nofile(root, notes),
        link_bytes_per_second=uplink.link_bytes_per_second,
        conntrack_max=_conntrack(root, notes),
        new_connections_per_second=uplink.new_connections_per_second,
        storage=_storage(root),
    )
    notes.append(f"line speed: {uplink.note}; hardware.override can say better")
    return Detected(profile, tuple(notes))


def recorded(path: Path) -> Detected:
    """What an earlier `detect` found, as the `profile` of `plan --json` says it.

    A unit has the limits of the plan; whoever detects below them plans for less, and less again.
    Raises ApplianceError.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        fields = {field.name: found[field.name] for field in dataclasses.fields(Profile)}
        profile = Profile(**fields)
        if not all(type(fields[name]) is int and fields[name] > 0 for name in _FIGURES):
            raise ValueError
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ApplianceError(f"{path}, named by {RECORD}, cannot be read: {reason}") from None
    except (ValueError, LookupError, TypeError):
        hint = "write it anew from the `profile` of `appliance plan FILE --json`"
        raise ApplianceError(
            f"{path}, named by {RECORD}, is no hardware profile", hint=hint
        ) from None
    return Detected(profile, (f"the hardware is what {path} says, found before limits held",))


_FIGURES: Final = (
    "cores",
    "memory_bytes",
    "nofile",
    "link_bytes_per_second",
    "conntrack_max",
    "new_connections_per_second",
)


def _board(root: Path) -> str:
    model = _read(root / "proc/device-tree/model").strip("\0")
    return model or "this machine"


def _cores(root: Path, notes: list[str]) -> int:
    try:
        cores = len(os.sched_getaffinity(0))
    except OSError:
        cores = os.cpu_count() or 1
    quota = _smallest(root, "cpu", "cpu.max", "cpu.cfs_quota_us", _cpu_quota)
    if quota is not None and quota < cores:
        notes.append(f"cores: a control group allows {quota} of {cores}")
        return quota
    return max(1, cores)


def _memory(root: Path, notes: list[str]) -> int:
    total = 0
    for line in _read(root / "proc/meminfo").splitlines():
        name, _, value = line.partition(":")
        if name == "MemTotal" and value.split()[:1]:
            total = (_number(value.split()[0]) or 0) * 1024
    if not total:
        notes.append(f"memory: /proc/meminfo does not say, {ASSUMED_MEMORY // MIB} MiB assumed")
        total = ASSUMED_MEMORY
    limit = _smallest(root, "memory", "memory.max", "memory.limit_in_bytes", _memory_limit)
    if limit is not None and limit < total:
        notes.append(f"memory: a control group allows {limit // MIB} of {total // MIB} MiB")
        return limit
    return total


def _nofile(root: Path, notes: list[str]) -> int:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    ceiling = _number(_read(root / "proc/sys/fs/nr_open"))
    if hard == resource.RLIM_INFINITY:
        if ceiling is None:
            notes.append(f"open files: no limit found, {ASSUMED_NOFILE} assumed")
        return ceiling or ASSUMED_NOFILE
    return min(hard, ceiling or hard)


def _conntrack(root: Path, notes: list[str]) -> int:
    found = _number(_read(root / "proc/sys/net/netfilter/nf_conntrack_max"))
    if not found:
        notes.append(
            f"connection tracking: off or not visible here, {ASSUMED_CONNTRACK} assumed "
            "for the router in front"
        )
    return found or ASSUMED_CONNTRACK


def _storage(root: Path) -> str:
    """What the root file system lies on, as `STORAGES` names it."""
    for line in _read(root / "proc/self/mountinfo").splitlines():
        # proc(5): … mount point is field 5; after " - " come the type and the source.
        fields, _, tail = line.partition(" - ")
        if fields.split()[4:5] != ["/"] or len(tail.split()) < 2:
            continue
        device = tail.split()[1].removeprefix("/dev/")
        if device.startswith("mmcblk"):
            kind = _read(root / f"sys/block/{device.split('p')[0]}/device/type").strip()
            return "emmc" if kind == "MMC" else "sd-card"
        if device.startswith("nvme"):
            return "ssd"
        if device.startswith(("mtd", "ubi")):
            return "flash"
        disk = device.rstrip("0123456789")
        spins = _read(root / f"sys/block/{disk}/queue/rotational").strip()
        return {"0": "ssd", "1": "hdd"}.get(spins, "unknown")
    return "unknown"


def _smallest(
    root: Path, controller: str, v2: str, v1: str, parse: Callable[[Path, str], int | None]
) -> int | None:
    """The tightest limit on the way from our control group up to its root, if there is any."""
    found = [
        limit
        for directory, name in _groups(root, controller, v2, v1)
        if (limit := parse(directory, _read(directory / name))) is not None
    ]
    return min(found, default=None)


def _groups(root: Path, controller: str, v2: str, v1: str) -> Iterator[tuple[Path, str]]:
    """Directories and file names to look at; cgroups(7): `ID:CONTROLLERS:PATH`, v2 has no names."""
    base = root / "sys/fs/cgroup"
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if names and controller not in names.split(","):
            continue
        mounts = (base / controller,) if names else (base, base / "unified")
        inner = Path(path.lstrip("/"))
        for mount in mounts:
            for step in (inner, *inner.parents):
                yield mount / step, v1 if names else v2


def _memory_limit(_: Path, text: str) -> int | None:
    limit = _number(text)
    # Without a limit, v1 shows the largest multiple of the page size, close to 2**63.
    return limit if limit and limit < 2**60 else None


def _cpu_quota(directory: Path, text: str) -> int | None:
    """v2: `QUOTA PERIOD` or `max PERIOD` in one file; v1: -1 or the quota, the period beside it."""
    parts = text.split()
    quota = _number(parts[0]) if parts else None
    if len(parts) == 1:
        parts.append(_read(directory / "cpu.cfs_period_us").strip())
    period = _number(parts[1]) if len(parts) > 1 else None
    if not quota or not period:
        return None
    return max(1, quota // period)


def _number(text: str) -> int | None:
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() else None


def _read(path: Path) -> str:
    """The file's text; nothing if it is not there or not for us."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
