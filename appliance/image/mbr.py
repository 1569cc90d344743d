"""The Raspberry Pi's image: an MBR, and a FAT partition that its boot ROM and firmware read.

The firmware reads config.txt; `os_prefix` there names the directory of the slot to start, so that
an update can be tried from the other one. Root slots and data are as elsewhere.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from appliance.image.disk import MEBIBYTE, Parts, fat
from appliance.image.steps import Steps

SLOT: Final = "a"
# What the boards load before the kernel: 3 and Zero 2 W bootcode.bin and start.elf, 4 start4.elf;
# 5 carries its own in an EEPROM.
_FIRMWARE: Final = ("bootcode.bin", "start.elf", "fixup.dat", "start4.elf", "fixup4.dat")
_BOARDS: Final = (
    "bcm2837-rpi-3-a-plus",
    "bcm2837-rpi-3-b",
    "bcm2837-rpi-3-b-plus",
    "bcm2837-rpi-zero-2-w",
    "bcm2711-rpi-4-b",
    "bcm2711-rpi-400",
    "bcm2711-rpi-cm4-io",
    "bcm2712-rpi-5-b",  # for a later kernel: 6.12 finds neither its card nor its USB
)
# MiB; the first begins at 4 MiB, where cards like it.
_START: Final = 4
_SETUP: Final = 512
_ROOT: Final = 1024
_DATA: Final = 512


def mbr(steps: Steps, project: Path, parts: Parts) -> Path:
    """`work`/disk.img. The root needs raspi-firmware and the kernel's device trees."""
    work = parts.work
    disk_id = f"{parts.seed('mbr').int & 0xFFFFFFFF:08x}"
    setup = work / "setup"
    slot = setup / f"slot-{SLOT}"
    slot.mkdir(parents=True)
    firmware = work / "root/usr/lib/raspi-firmware"
    for name in _FIRMWARE:
        shutil.copyfile(firmware / name, setup / name)
    trees = work / f"root/usr/lib/linux-image-{parts.release}/broadcom"
    for board in _BOARDS:
        shutil.copyfile(trees / f"{board}.dtb", slot / f"{board}.dtb")
    shutil.copyfile(work / "vmlinuz", slot / "vmlinuz")
    shutil.copyfile(work / "initrd", slot / "initrd.img")
    line = parts.command_line(f"PARTUUID={disk_id}-02")
    (work / "cmdline").write_text(line + "\n", encoding="utf-8")
    (slot / "cmdline.txt").write_text(line + "\n", encoding="utf-8")
    shutil.copyfile(project / "images/raspberry-pi/config.txt", setup / "config.txt")
    fat(steps, parts, "setup.img", mebibytes=_SETUP)
    parts.tool(
        steps,
        *("mkfs.erofs", "--quiet", "-zlz4hc", f"-U{parts.seed('root')}", f"-T{parts.epoch}"),
        *("--exclude-regex=^var/.+", "/run/build/root.img", "/run/build/root"),
    )
    parts.tool(
        steps,
        *("mkfs.ext4", "-q", "-L", "data", "-U", str(parts.seed("data"))),
        *("-E", f"hash_seed={parts.seed('hash')},nodiscard", "-d", "/run/build/root/var"),
        *("/run/build/data.img", f"{_DATA}M"),
    )
    return _joined(steps, parts, disk_id)


def table(disk_id: str) -> str:
    """The partitions, as sfdisk reads them."""
    rows = ((_SETUP, "c, bootable"), (_ROOT, "83"), (_ROOT, "83"), (_DATA, "83"))
    lines = ["label: dos", f"label-id: 0x{disk_id}"]
    start = _START
    for size, kind in rows:
        lines.append(f"start={start}MiB, size={size}MiB, type={kind}")
        start += size
    return "\n".join(lines) + "\n"


def _joined(steps: Steps, parts: Parts, disk_id: str) -> Path:
    disk = parts.work / "disk.img"
    places = {"setup.img": _START, "root.img": _START + _SETUP}
    places["data.img"] = _START + _SETUP + 2 * _ROOT
    with disk.open("wb") as file:
        file.truncate((_START + _SETUP + 2 * _ROOT + _DATA) * MEBIBYTE)
    (parts.work / "table").write_text(table(disk_id), encoding="utf-8")
    parts.tool(steps, "sh", "-c", "sfdisk --quiet /run/build/disk.img </run/build/table")
    for name, place in places.items():
        parts.tool(
            steps,
            *("dd", f"if=/run/build/{name}", "of=/run/build/disk.img", "bs=1M", f"seek={place}"),
            *("conv=notrunc,sparse", "status=none"),
        )
        (parts.work / name).unlink()
    return disk
