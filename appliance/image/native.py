"""This machine's own programs, lent to a foreign root while packages and roles are put into it.

Emulated, a Python takes three seconds to start and apt half a minute to read its lists. What only
reads and writes files gives the same bytes on any processor, and is run natively: it comes from
the tools' root, of the same release. A program of the root that is stood in for lies aside
meanwhile, where dpkg's diversions also put a newer one.

    python -m appliance.image.native lend|take-back TARGET TOOLS ROOT      mmdebstrap's hooks
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from appliance.image import foreign
from appliance.image.targets import TARGETS, Target

PLACE: Final = "/run/native"
"""Where the tools' root shows inside the foreign one."""
PYTHON: Final = f"{PLACE}/usr/bin/python3"
LAUNCHER: Final = "/run/python-as"
"""Starts it in the name of another: its first argument, whose venv it takes for its own."""

_CONFIGURATION: Final = "etc/apt/apt.conf.d/00native"
_DIVERSIONS: Final = "var/lib/dpkg/diversions"
_ASIDE: Final = ".foreign"
# Nothing that tells or needs the processor: not dpkg, ldconfig, uname.
_LENT: Final = (
    *("apt-cache", "apt-get", "apt-mark", "dpkg-deb"),
    *("bash", "dash", "perl"),
    *("find", "grep", "gzip", "kmod", "sed", "systemd-hwdb", "tar", "xargs", "zstd"),
    *("basename", "cat", "chgrp", "chmod", "chown", "cp", "cut", "date", "dd", "dirname", "env"),
    *("expr", "head", "id", "install", "ln", "ls", "md5sum", "mkdir", "mktemp", "mv", "readlink"),
    *("realpath", "rm", "rmdir", "sha256sum", "sort", "stat", "tail", "tee", "test", "touch", "tr"),
    *("uniq", "wc"),
)
_SHELL: Final = "usr/bin/dash"
"""A copy: Ansible looks from outside whether there is one."""
_METHODS: Final = ("copy", "file", "gpgv", "http", "rred", "sqv", "store")
"""apt's own ways to fetch and to look into what it fetched."""


@dataclass(frozen=True, slots=True)
class Native:
    """The tools' root, for roots of `target`."""

    tools: Path
    target: Target
    python: bool = False
    """Whether the root's Python is stood in for, too: only before the appliance runs in it."""

    @contextmanager
    def lent(self, root: Path) -> Iterator[None]:
        """Inside, `root` finds the programs once the tools' root is mounted at `PLACE`."""
        self.lend(root)
        try:
            yield
        finally:
            self.take_back(root)

    def lend(self, root: Path) -> None:
        for link, place in self._libraries():
            (root / link).parent.mkdir(exist_ok=True)
            (root / link).symlink_to(place)
        (root / _CONFIGURATION).write_text(
            f'APT::Architecture "{self.target.debian}";\n'
            f'APT::Architectures {{ "{self.target.debian}"; }};\n',
            encoding="utf-8",
        )
        diverted = root / _DIVERSIONS
        with diverted.open("a", encoding="utf-8") as file:
            for path in self._programs():
                file.write(f"/{path}\n/{path}{_ASIDE}\n:\n")
                if (root / path).exists():
                    (root / path).rename(root / f"{path}{_ASIDE}")
                if path == _SHELL:
                    shutil.copy2(self.tools / path, root / path)
                else:
                    (root / path).symlink_to(f"{PLACE}/{path}")

    def take_back(self, root: Path) -> None:
        diverted = root / _DIVERSIONS
        lines = diverted.read_text(encoding="utf-8").splitlines()
        kept = []
        for path, aside, package in zip(*[iter(lines)] * 3, strict=True):
            if not aside.endswith(_ASIDE):
                kept += [path, aside, package]
                continue
            (root / path[1:]).unlink()
            if (root / aside[1:]).exists():
                (root / aside[1:]).rename(root / path[1:])
        diverted.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        (root / _CONFIGURATION).unlink()
        for link, _ in self._libraries():
            (root / link).unlink()
        if (root / "usr/lib64").is_dir():
            (root / "usr/lib64").rmdir()

    def launcher(self) -> str:
        """The script `LAUNCHER`. A venv's standard library is its root's, whose compiled modules do
        not run here; pip chooses wheels for the root's processor."""
        [loader] = self.tools.glob("usr/lib/*-linux-gnu/ld-linux-*.so.*")
        library = f"{PLACE}/usr/lib/{self._python}"
        return (
            "#!/bin/sh\n"
            f"export _PYTHON_HOST_PLATFORM=linux-{self.target.machine}\n"
            f"export PYTHONPATH={library}:{library}/lib-dynload\n"
            "name=$1\nshift\n"
            f'exec {PLACE}/{loader.relative_to(self.tools)} --argv0 "$name"'
            f' {PLACE}/usr/bin/{self._python} "$@"\n'
        )

    @property
    def _python(self) -> str:
        return (self.tools / "usr/bin/python3").resolve().name

    def _programs(self) -> Iterator[str]:
        python = (self._python,) if self.python else ()
        yield from (f"usr/bin/{name}" for name in (*_LENT, *python))
        yield from (f"usr/lib/apt/methods/{name}" for name in _METHODS)

    def _libraries(self) -> Iterator[tuple[str, str]]:
        """Where a program of this machine looks for its loader and its libraries. Links in real
        directories: Debian's packages look whether /usr is merged."""
        for path in self.tools.glob("usr/lib/*-linux-gnu"):
            name = str(path.relative_to(self.tools))
            yield name, f"{PLACE}/{name}"
        for path in self.tools.glob("usr/lib64/*"):
            name = str(path.relative_to(self.tools))
            yield name, f"{PLACE}/{name}"
            yield "lib64", "usr/lib64"

    def hook(self, act: str) -> str:
        """The line of shell that mmdebstrap runs with its root as $1."""
        words = [sys.executable, "-m", __name__, act, self.target.name, str(self.tools)]
        return f'{shlex.join(words)} "$1"'


def of(tools: Path, target: Target) -> Native | None:
    """None where the target's programs run here as they are."""
    return Native(tools, target) if foreign.is_foreign(target) else None


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog=f"python -m {__name__}")
    parser.add_argument("act", choices=("lend", "take-back"))
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("tools", type=Path)
    parser.add_argument("root", type=Path)
    given = parser.parse_args(arguments)
    native, root = Native(given.tools, TARGETS[given.target], python=True), given.root
    place = f"{root}{PLACE}"
    if given.act == "lend":
        Path(place).mkdir()
        # Read-only: whatever clears the root away does not reach the tools.
        subprocess.run(["mount", "--bind", given.tools, place], check=True)
        subprocess.run(["mount", "-o", "remount,ro,bind", place], check=True)
        native.lend(root)
    else:
        native.take_back(root)
        subprocess.run(["umount", place], check=True)
        Path(place).rmdir()
    return 0


if __name__ == "__main__":
    sys.exit(main())
