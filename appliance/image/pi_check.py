"""Whether a Raspberry Pi's boot ROM and firmware find on an image all that they load.

From the image alone: its partition table, the FAT partition, `config.txt` and `cmdline.txt`. What
is needed: Raspberry Pi documentation, "The boot folder", "config.txt", "Kernel command line".
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from appliance.errors import ApplianceError
from appliance.image.partitions import FatFiles, Partition, Table
from appliance.image.programs import find


@dataclass(frozen=True, slots=True)
class Model:
    """A board: what its ROM and firmware load besides the operating system's files."""

    name: str
    firmware: tuple[str, ...]
    device_tree: str
    """As the upstream kernel calls it."""
    downstream: str
    """As Raspberry Pi's own kernel calls it; asked for unless `upstream_kernel=1` is set."""


_THREE: Final = ("bootcode.bin", "start.elf", "fixup.dat")
_FOUR: Final = ("start4.elf", "fixup4.dat")  # the first stage is in an EEPROM
MODELS: Final = (
    Model("3 B", _THREE, "bcm2837-rpi-3-b.dtb", "bcm2710-rpi-3-b.dtb"),
    Model("3 B+", _THREE, "bcm2837-rpi-3-b-plus.dtb", "bcm2710-rpi-3-b-plus.dtb"),
    Model("Zero 2 W", _THREE, "bcm2837-rpi-zero-2-w.dtb", "bcm2710-rpi-zero-2-w.dtb"),
    Model("4 B", _FOUR, "bcm2711-rpi-4-b.dtb", "bcm2711-rpi-4-b.dtb"),
    # All of the 5's firmware is in its EEPROM.
    Model("5", (), "bcm2712-rpi-5-b.dtb", "bcm2712-rpi-5-b.dtb"),
)

_FAT_LBA: Final = "c"
_ARM64_MAGIC: Final = (56, b"ARM\x64")  # Documentation/arch/arm64/booting.rst
_GZIP: Final = b"\x1f\x8b"
_CPIO: Final = (b"070701", _GZIP, b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\x00", b"\x04\x22\x4d\x18")
"""An initramfs, plain or packed with gzip, zstd, xz or lz4."""
_DEVICE_TREE: Final = b"\xd0\x0d\xfe\xed"
_SECTION: Final = re.compile(r"\[(.*)\]")


@dataclass(frozen=True, slots=True)
class Boot:
    """What the firmware is told to start."""

    prefix: str
    kernel: str
    initramfs: str
    arguments: str
    """The kernel's command line."""
    upstream: bool


@dataclass(slots=True)
class Findings:
    """What was seen, a line each, and what is wrong."""

    seen: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def is_pi(table: Table) -> bool:
    """Only a Pi's image has an MBR."""
    return table.scheme == "dos"


def examine(disk: Path, table: Table) -> Findings:
    """Everything that keeps one of `MODELS` from booting. Raises ApplianceError: unreadable."""
    found = Findings()
    first = min(table.partitions, key=lambda one: one.number, default=None)
    if table.scheme != "dos" or first is None or first.kind != _FAT_LBA:
        found.wrong.append(
            "the first partition of an MBR must be FAT (type c): the ROM looks there"
        )
        return found
    found.seen.append(f"MBR with {len(table.partitions)} partitions, the first FAT")
    fat = FatFiles(disk, first)
    for model in MODELS:
        if missing := [name for name in model.firmware if not fat.has(name)]:
            found.wrong.append(f"Pi {model.name}: {', '.join(missing)} missing")
    try:
        boot = read_boot(fat)
    except ApplianceError as error:
        found.wrong.append(error.message)
        return found
    found.wrong += _wrong_files(fat, boot)
    found.wrong += _wrong_trees(fat, boot)
    found.wrong += _wrong_root(disk, table, boot)
    names = ", ".join(model.name for model in MODELS)
    found.seen.append(f"firmware, kernel, initramfs and device trees for {names}")
    found.seen.append(f"{boot.prefix}{boot.kernel} starts with {boot.arguments}")
    return found


def read_boot(fat: FatFiles) -> Boot:
    """As `config.txt` tells it to every model. Raises ApplianceError."""
    text = fat.read("config.txt")
    if text is None:
        raise ApplianceError("config.txt is missing: the firmware would look for other kernels")
    settings = dict(_settings(text.decode(errors="replace")))
    prefix = settings.get("os_prefix", "")
    command_line = prefix + settings.get("cmdline", "cmdline.txt")
    arguments = fat.read(command_line)
    if arguments is None:
        raise ApplianceError(f"{command_line} is missing")
    lines = arguments.decode(errors="replace").strip().splitlines()
    if len(lines) != 1:
        raise ApplianceError(f"{command_line} has {len(lines)} lines; the firmware reads one")
    return Boot(
        prefix=prefix,
        kernel=settings.get("kernel", "kernel8.img"),
        initramfs=settings.get("initramfs", ""),
        arguments=lines[0],
        upstream=settings.get("upstream_kernel") == "1",
    )


def _settings(text: str) -> Iterator[tuple[str, str]]:
    """Those that hold for all models; what stands in a model's own section is none of them."""
    everywhere = True
    for raw in text.splitlines():
        line = raw.partition("#")[0].strip()
        if section := _SECTION.fullmatch(line):
            everywhere = section[1] == "all"
        elif everywhere and line.startswith("initramfs "):
            yield "initramfs", line.split()[1]  # `initramfs NAME followkernel`: without `=`
        elif everywhere and "=" in line:
            name, _, value = line.partition("=")
            yield name.strip(), value.strip()


def _wrong_files(fat: FatFiles, boot: Boot) -> Iterator[str]:
    name = boot.prefix + boot.kernel
    kernel = fat.read(name)
    offset, magic = _ARM64_MAGIC
    if kernel is None:
        yield f"the kernel {name} is missing"
    elif kernel[offset : offset + len(magic)] != magic and not kernel.startswith(_GZIP):
        yield f"{name} is no arm64 kernel that the firmware can start"
    if boot.initramfs:
        name = boot.prefix + boot.initramfs
        initramfs = fat.read(name)
        if initramfs is None:
            yield f"the initramfs {name} is missing"
        elif not initramfs.startswith(_CPIO):
            yield f"{name} is no initramfs"


def _wrong_trees(fat: FatFiles, boot: Boot) -> Iterator[str]:
    for model in MODELS:
        name = boot.prefix + (model.device_tree if boot.upstream else model.downstream)
        tree = fat.read(name)
        if tree is None:
            yield f"Pi {model.name}: {name} is missing"
        elif not tree.startswith(_DEVICE_TREE):
            yield f"Pi {model.name}: {name} is no device tree"


def _wrong_root(disk: Path, table: Table, boot: Boot) -> Iterator[str]:
    given = [word.partition("=")[2] for word in boot.arguments.split() if word.startswith("root=")]
    if len(given) != 1:
        yield f"the command line names {len(given)} roots"
        return
    if not any(given[0] in _names_of(disk, table, one) for one in table.partitions):
        yield f"root={given[0]} is no partition of this image"


def _names_of(disk: Path, table: Table, partition: Partition) -> set[str]:
    """What `root=` may call it: the kernel's PARTUUID of an MBR, or what is in its file system."""
    identifier = table.identifier.removeprefix("0x").lower()
    names = {f"PARTUUID={identifier}-{partition.number:02x}"}
    span = ("--offset", str(partition.start), "--size", str(partition.size))
    probe = [find("blkid"), "--probe", *span, "--output", "export", str(disk)]
    done = subprocess.run(probe, capture_output=True, text=True, check=False)
    for line in done.stdout.splitlines():
        if line.startswith(("LABEL=", "UUID=")):
            key, _, value = line.partition("=")
            names |= {line, f"/dev/disk/by-{key.lower()}/{value}"}
    return names


def generic(fat: FatFiles, console: str) -> tuple[bytes, bytes, str]:
    """Kernel, initramfs and command line to start the image's system on another arm64 machine,
    with `console` as its serial line. Raises ApplianceError."""
    boot = read_boot(fat)
    kernel, initramfs = fat.read(boot.prefix + boot.kernel), fat.read(boot.prefix + boot.initramfs)
    if kernel is None or initramfs is None:
        raise ApplianceError("the image has no kernel or no initramfs where config.txt says")
    kept = [word for word in boot.arguments.split() if not word.startswith("console=")]
    return kernel, initramfs, " ".join([*kept, f"console={console}"])
