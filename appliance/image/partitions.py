"""The partition table of an image or a disk, and the files on its setup partition.

sfdisk reads the table, mtools the FAT file system: nothing is mounted, and root is not needed.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from appliance.errors import ApplianceError
from appliance.image.programs import find

DATA: Final = "data"
ESP: Final = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
"""The type of a UEFI's own partition (UEFI specification, section 5.3.3)."""
SETUP: Final = "setup"
"""The GPT name of the partition that users write their files to."""

# MBR types of FAT file systems: 16 bit, 32 bit, each with LBA.
_FAT_TYPES: Final = frozenset({"6", "b", "c", "e"})


@dataclass(frozen=True, slots=True)
class Partition:
    """One of a table; `start` and `size` in bytes."""

    number: int
    start: int
    size: int
    kind: str
    """The GPT type (a GUID in capitals), or the MBR type in hexadecimal."""
    name: str
    """The GPT name; empty in an MBR."""
    uuid: str


@dataclass(frozen=True, slots=True)
class Table:
    """The partitions of a disk."""

    scheme: str
    """`gpt` or `dos`."""
    identifier: str
    partitions: tuple[Partition, ...]

    def named(self, name: str) -> Partition | None:
        """The first one with this GPT name."""
        return next((one for one in self.partitions if one.name == name), None)

    @property
    def data(self) -> Partition | None:
        """The one that holds all state; on a Pi the last."""
        if self.scheme == "gpt":
            return self.named(DATA)
        return max(self.partitions, key=lambda one: one.start, default=None)

    @property
    def setup(self) -> Partition:
        """The one for the user's files. Raises ApplianceError."""
        if self.scheme == "gpt":
            found = self.named(SETUP)
        else:
            # The Raspberry Pi's firmware partition is the setup partition, too.
            found = next((one for one in self.partitions if one.kind in _FAT_TYPES), None)
        if found is None:
            raise ApplianceError(
                "it has no setup partition to put files on",
                hint="is this an image made by `appliance image build`?",
            )
        return found


def read_table(disk: Path) -> Table:
    """The table of an image file or a device. Raises ApplianceError."""
    done = subprocess.run([find("sfdisk"), "--json", str(disk)], capture_output=True, check=False)
    if done.returncode != 0:
        raise ApplianceError(f"{disk} has no partition table that sfdisk can read")
    table = json.loads(done.stdout)["partitiontable"]
    sector = int(table.get("sectorsize", 512))
    partitions = []
    for row in table.get("partitions", []):
        digits = len(row["node"]) - len(row["node"].rstrip("0123456789"))
        partitions.append(
            Partition(
                number=int(row["node"][-digits:]),
                start=row["start"] * sector,
                size=row["size"] * sector,
                kind=row["type"],
                name=row.get("name", ""),
                uuid=row.get("uuid", ""),
            )
        )
    return Table(table["label"], table.get("id", ""), tuple(partitions))


class FatFiles:
    """The files on a FAT partition of `disk`, an image or a device. Paths have no slash in front,
    and their case does not matter."""

    def __init__(self, disk: Path, partition: Partition) -> None:
        self._disk = disk
        self._drive = f"{disk}@@{partition.start}"

    def names(self, directory: str = "") -> list[str]:
        """Files and directories in one, without its path; none if it is not there."""
        try:
            listed = self._run("mdir", "-b", f"::/{directory}")
        except ApplianceError:
            return []
        rows = listed.decode(errors="replace").splitlines()
        return [row.rstrip("/").rpartition("/")[2] for row in rows if row.startswith("::/")]

    def has(self, path: str) -> bool:
        """Whether it is there."""
        directory, _, name = path.rpartition("/")
        return name.lower() in (one.lower() for one in self.names(directory))

    def read(self, path: str) -> bytes | None:
        """The content; None: there is no such file. Raises ApplianceError."""
        return self._run("mtype", f"::/{path}") if self.has(path) else None

    def write(self, files: Mapping[str, bytes]) -> None:
        """Create or replace these. Raises ApplianceError, also if they do not read back alike."""
        for path, content in files.items():
            self._run("mcopy", "-D", "o", "-", f"::/{path}", stdin=content)
            if self.read(path) != content:
                raise ApplianceError(f"{self._disk} gave {path} back with another content")

    def remove(self, path: str) -> None:
        """Raises ApplianceError."""
        self._run("mdel", f"::/{path}")

    def _run(self, program: str, *arguments: str, stdin: bytes = b"") -> bytes:
        command = [find(program), "-i", self._drive, *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, check=False)
        if done.returncode != 0:
            said = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
            raise ApplianceError(f"{program} failed on a partition of {self._disk}: {said[-1]}")
        return done.stdout
