"""What a build keeps for the next: directories that are either whole or not there."""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from appliance.errors import ApplianceError

_KEY: Final = 16
"""Hexadecimal digits of a key: 64 bits, for a handful of entries."""


def default() -> Path:
    """Where builds keep what they can: `kaspa-appliance` in the user's cache directory."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "kaspa-appliance"


class Cache:
    """Entries named for what they are and for a hash of everything they were made from."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory.absolute()
        self.directory.mkdir(parents=True, exist_ok=True)
        if self.directory.stat().st_uid != os.geteuid():
            raise ApplianceError(
                f"{self.directory} belongs to another user",
                hint="name a cache of your own with --cache DIR",
            )

    def entry(
        self,
        name: str,
        inputs: Any,  # whatever JSON can say
        make: Callable[[Path], None],
        *,
        fresh: bool = False,
        lasts: float = math.inf,
    ) -> Path:
        """The directory made from `inputs` (JSON); `make` fills it unless it is there.

        It is made anew if `fresh`, and `lasts` seconds after it was made. A second build waits for
        the first. An older entry of the same name goes when a new one is whole.
        """
        text = json.dumps(inputs, sort_keys=True)
        path = self.directory / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:_KEY]}"
        with self._locked(name):
            if path.is_dir() and not fresh and time.time() - path.stat().st_mtime < lasts:
                return path
            partial = self.directory / f".{name}.partial"
            remove(partial)
            partial.mkdir()
            make(partial)
            for older in self.directory.glob(f"{name}-*"):
                if len(older.name) == len(path.name):
                    remove(older)
            partial.rename(path)
        return path

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        with (self.directory / f".{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def remove(directory: Path) -> None:
    """A tree of ours, if it is there. Raises ApplianceError where something is mounted in it: what
    is mounted may be the host's."""
    if not directory.exists():
        return
    below = f"{directory.resolve()}/"
    mounts = Path("/proc/self/mounts").read_text(encoding="utf-8")
    mounted = [line.split()[1] for line in mounts.splitlines() if line.split()[1].startswith(below)]
    if mounted:
        raise ApplianceError(f"{mounted[0]} is mounted", hint=f"umount -R {mounted[0]}")
    shutil.rmtree(directory)
