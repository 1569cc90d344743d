"""A memory control group for one process: version 2 where that is what there is, else version 1."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final

BASE: Final = Path("/sys/fs/cgroup")
_numbers: Final = count()
GONE: Final = 5.0
"""Seconds for the kernel to let a group go whose processes have ended."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Bytes; `kernel` is part of `current`. Page cache, which the kernel takes back, is in both."""

    current: int
    peak: int
    kernel: int
    """What the kernel holds for the group, TCP buffers included."""
    hits: int
    """How often the limit was reached and memory was reclaimed."""
    kills: int


class Group:
    """One group; made by `group`."""

    def __init__(self, path: Path, *, unified: bool) -> None:
        self.path = path
        self._unified = unified

    @property
    def procs(self) -> Path:
        """A process that writes its id here is in the group from then on."""
        return self.path / "cgroup.procs"

    def limit(self, memory: int) -> None:
        if self._unified:
            self._write("memory.max", memory)
            return
        self._write("memory.limit_in_bytes", memory)
        # Version 1 counts TCP buffers apart, and only under a limit of their own.
        self._write("memory.kmem.tcp.limit_in_bytes", memory)

    def usage(self) -> Usage:
        if self._unified:
            events, stat = self._table("memory.events"), self._table("memory.stat")
            return Usage(
                current=self._number("memory.current"),
                peak=self._number("memory.peak"),
                kernel=stat["kernel"] + stat["sock"],
                hits=events["max"],
                kills=events["oom_kill"],
            )
        tcp = self._number("memory.kmem.tcp.usage_in_bytes")
        return Usage(
            current=self._number("memory.usage_in_bytes") + tcp,
            # Two peaks that need not have been at the same time: an upper bound.
            peak=self._number("memory.max_usage_in_bytes")
            + self._number("memory.kmem.tcp.max_usage_in_bytes"),
            kernel=self._number("memory.kmem.usage_in_bytes") + tcp,
            hits=self._number("memory.failcnt"),
            kills=self._table("memory.oom_control")["oom_kill"],
        )

    def remove(self) -> None:
        """Its processes must have ended."""
        deadline = time.monotonic() + GONE
        while True:
            try:
                self.path.rmdir()
                return
            except FileNotFoundError:
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def _write(self, name: str, value: int) -> None:
        (self.path / name).write_text(str(value))

    def _number(self, name: str) -> int:
        return int((self.path / name).read_text())

    def _table(self, name: str) -> dict[str, int]:
        lines = (self.path / name).read_text().splitlines()
        return {key: int(value) for key, value in (line.split() for line in lines)}


@contextmanager
def group(name: str, memory: int | None) -> Iterator[Group | str]:
    """A new group with that limit (None: only counted), removed at the end; why not, in words, if
    this user may not make one."""
    unified = (BASE / "cgroup.controllers").exists()
    path = (BASE if unified else BASE / "memory") / f"{name}-{os.getpid()}-{next(_numbers)}"
    made = Group(path, unified=unified)
    try:
        path.mkdir()
    except OSError as error:
        yield f"no memory control group: {path}: {(error.strerror or str(error)).lower()}"
        return
    try:
        if unified and "memory" not in (path / "cgroup.controllers").read_text().split():
            with suppress(OSError):
                (BASE / "cgroup.subtree_control").write_text("+memory")
        made.limit(memory if memory is not None else 1 << 50)
    except OSError as error:
        made.remove()
        yield f"no memory control group: {path}: {(error.strerror or str(error)).lower()}"
        return
    try:
        yield made
    finally:
        made.remove()
