"""The disk image: file systems and partition table, made in the tools' root without any mount."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from appliance.image.chamber import inside
from appliance.image.steps import Steps
from appliance.image.targets import Target

# Ours alone; every identifier of an image is derived from it, its version and its target.
_NAMESPACE: Final = uuid.UUID("7b1f2a54-9d5e-4b58-8f2c-0d8f6a3c9e11")
_PLACE: Final = "/run/build"
LABEL: Final = "APPLIANCE"
"""Of the file system with the user's files."""
MEBIBYTE: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Parts:
    """What a disk is made of, below one working directory."""

    work: Path
    """Holds `root`, `vmlinuz` and `initrd`; the rest is made there."""
    tools: Path
    target: Target
    version: str
    release: str
    epoch: int
    setup: Mapping[str, bytes]
    """The user's files by their name."""

    def seed(self, what: str) -> uuid.UUID:
        return uuid.uuid5(_NAMESPACE, f"{what}/{self.target.name}/{self.version}/{self.epoch}")

    def tool(self, steps: Steps, *command: str) -> str:
        """Run a program of the tools; the working directory is at /run/build."""
        env = {
            "SOURCE_DATE_EPOCH": str(self.epoch),
            "TZ": "UTC",
            "TMPDIR": f"{_PLACE}/scratch",
            "MTOOLS_SKIP_CHECK": "1",
            "MTOOLS_NO_VFAT": "0",
            # systemd-repart leaves the seed of ext4's directory hashes to chance. mke2fs takes the
            # last -E alone: the first two are systemd-repart's own.
            "SYSTEMD_REPART_MKFS_OPTIONS_EXT4": (
                f"-E nodiscard,lazy_itable_init=1,hash_seed={self.seed('hash')}"
            ),
        }
        (self.work / "scratch").mkdir(exist_ok=True)
        return steps.run(inside(self.tools, command, binds={self.work: _PLACE}, env=env))

    def command_line(self, root: str) -> str:
        """The kernel's. The last console is where messages go: the screen."""
        return " ".join(
            (
                f"root={root} rootfstype=erofs ro",
                f"console={self.target.console} console=tty0",
                "panic=30 quiet loglevel=4 systemd.show_status=1",
            )
        )


def gpt(steps: Steps, project: Path, parts: Parts) -> Path:
    """An image for UEFI machines: `work`/disk.img."""
    target, work = parts.target, parts.work
    (work / "cmdline").write_text(
        parts.command_line(f"PARTLABEL=appliance_{parts.version}") + "\n", encoding="utf-8"
    )
    efi = work / "root/usr/lib/systemd/boot/efi"
    name = f"appliance_{parts.version}.efi"
    for directory in ("EFI/BOOT", "EFI/systemd", "EFI/Linux", "loader"):
        (work / "esp" / directory).mkdir(parents=True)
    loader = efi / f"systemd-boot{target.efi}.efi"
    shutil.copyfile(loader, work / f"esp/EFI/BOOT/BOOT{target.efi.upper()}.EFI")
    shutil.copyfile(loader, work / f"esp/EFI/systemd/{loader.name}")
    (work / "esp/loader/loader.conf").write_text("timeout 2\neditor no\n", encoding="utf-8")
    parts.tool(
        steps,
        *("ukify", "build", f"--efi-arch={target.efi}", f"--uname={parts.release}"),
        *(f"--linux={_PLACE}/vmlinuz", f"--initrd={_PLACE}/initrd"),
        *(f"--cmdline=@{_PLACE}/cmdline", f"--os-release=@{_PLACE}/root/usr/lib/os-release"),
        f"--stub={_PLACE}/root/usr/lib/systemd/boot/efi/linux{target.efi}.efi.stub",
        f"--output={_PLACE}/esp/EFI/Linux/{name}",
    )
    fat(steps, parts, "setup.img", mebibytes=64)
    definitions = work / "repart.d"
    definitions.mkdir()
    for path in sorted((project / "images/repart.d").iterdir()):
        text = path.read_text(encoding="utf-8").replace("@VERSION@", parts.version)
        (definitions / path.name).write_text(text, encoding="utf-8")
    _same_times(work / "esp", parts.epoch)
    parts.tool(
        steps,
        *("systemd-repart", "--offline=yes", "--empty=create", "--size=auto", "--dry-run=no"),
        *("--sector-size=512", f"--seed={parts.seed('gpt')}", "--no-pager", "--no-legend"),
        f"--architecture={'x86-64' if target.efi == 'x64' else 'arm64'}",
        *(f"--definitions={_PLACE}/repart.d", f"--root={_PLACE}", f"{_PLACE}/disk.img"),
    )
    return work / "disk.img"


def fat(steps: Steps, parts: Parts, name: str, *, mebibytes: int) -> None:
    """The file system with the user's files, and whatever lies in `work`/`setup`: `work`/`name`."""
    staged = parts.work / "setup"
    staged.mkdir(exist_ok=True)
    for file, content in parts.setup.items():
        (staged / file).write_bytes(content)
    _same_times(staged, parts.epoch)
    volume = f"{parts.seed('setup').int & 0xFFFFFFFF:08x}"
    parts.tool(
        steps,
        *("mkfs.vfat", "-C", "-n", LABEL, "-i", volume, f"{_PLACE}/{name}"),
        str(mebibytes * 1024),
    )
    entries = [f"{_PLACE}/setup/{entry.name}" for entry in sorted(staged.iterdir())]
    parts.tool(steps, "mcopy", "-s", "-m", "-i", f"{_PLACE}/{name}", *entries, "::/")


def _same_times(directory: Path, epoch: int) -> None:
    for path in (directory, *directory.rglob("*")):
        os.utime(path, (epoch, epoch))
