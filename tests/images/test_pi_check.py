"""What keeps a Raspberry Pi from starting is told from the image alone."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.image.partitions import FatFiles, read_table
from appliance.image.pi_check import MODELS, Findings, examine, generic
from tests.images.disks import make_image

_LAYOUT = """\
label: dos
label-id: 0x1234abcd
start=5MiB, size=8MiB, type=c
start=13MiB, size=8MiB, type=83
"""
_CONFIG = """\
# for all
arm_64bit=1
upstream_kernel=1
os_prefix=slot-a/
kernel=vmlinuz
initramfs initrd.img followkernel
[pi5]
kernel=another
[all]
"""
_COMMAND_LINE = "root=PARTUUID=1234abcd-02 ro console=serial0,115200 console=tty0\n"
_KERNEL = bytes(56) + b"ARM\x64" + bytes(100)


@pytest.fixture
def card(tmp_path: Path) -> Path:
    """An image that every model starts."""
    image = make_image(tmp_path / "pi.img", _LAYOUT)
    fat = _fat(image)
    subprocess.run(["mmd", "-i", f"{image}@@{5 * 1024 * 1024}", "::/slot-a"], check=True)
    firmware = {name for model in MODELS for name in model.firmware}
    trees = {model.device_tree for model in MODELS}
    fat.write(dict.fromkeys(firmware, b"firmware"))
    fat.write({f"slot-a/{name}": b"\xd0\x0d\xfe\xed tree" for name in trees})
    fat.write(
        {
            "config.txt": _CONFIG.encode(),
            "slot-a/cmdline.txt": _COMMAND_LINE.encode(),
            "slot-a/vmlinuz": _KERNEL,
            "slot-a/initrd.img": b"\x28\xb5\x2f\xfd packed",
        }
    )
    return image


def _fat(image: Path) -> FatFiles:
    return FatFiles(image, read_table(image).setup)


def judged(image: Path) -> Findings:
    return examine(image, read_table(image))


def test_a_complete_card_is_right(card: Path) -> None:
    found = judged(card)
    assert found.wrong == []
    assert "slot-a/vmlinuz starts with root=PARTUUID=1234abcd-02" in found.seen[-1]


def _without(path: str) -> Callable[[FatFiles], None]:
    return lambda fat: fat.remove(path)


def _with(path: str, content: bytes) -> Callable[[FatFiles], None]:
    return lambda fat: fat.write({path: content})


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_without("bootcode.bin"), "Pi 3 B: bootcode.bin missing"),
        (_without("start4.elf"), "Pi 4 B: start4.elf missing"),
        (_without("config.txt"), "config.txt is missing"),
        (_without("slot-a/cmdline.txt"), "slot-a/cmdline.txt is missing"),
        (_without("slot-a/vmlinuz"), "the kernel slot-a/vmlinuz is missing"),
        (_without("slot-a/initrd.img"), "the initramfs slot-a/initrd.img is missing"),
        (_without("slot-a/bcm2712-rpi-5-b.dtb"), "Pi 5: slot-a/bcm2712-rpi-5-b.dtb is missing"),
        (_with("slot-a/vmlinuz", b"MZ" + bytes(98)), "is no arm64 kernel"),
        (_with("slot-a/initrd.img", b"words"), "slot-a/initrd.img is no initramfs"),
        (_with("slot-a/bcm2711-rpi-4-b.dtb", b"words"), "Pi 4 B: slot-a/bcm2711-rpi-4-b.dtb is no"),
        (
            _with("slot-a/cmdline.txt", b"root=PARTUUID=1234abcd-07"),
            "is no partition of this image",
        ),
        (_with("slot-a/cmdline.txt", b"root=LABEL=elsewhere"), "is no partition of this image"),
        (_with("slot-a/cmdline.txt", b"quiet"), "names 0 roots"),
        (_with("slot-a/cmdline.txt", b"root=/dev/sda\nquiet"), "has 2 lines"),
        (_with("config.txt", b"kernel=vmlinuz\n"), "cmdline.txt is missing"),
    ],
)
def test_what_is_missing_is_named(
    card: Path, damage: Callable[[FatFiles], None], said: str
) -> None:
    damage(_fat(card))
    assert any(said in line for line in judged(card).wrong), judged(card).wrong


def test_the_names_of_raspberry_pis_own_kernel_are_asked_for_without_upstream(card: Path) -> None:
    _fat(card).write({"config.txt": _CONFIG.replace("upstream_kernel=1\n", "").encode()})
    assert "Pi Zero 2 W: slot-a/bcm2710-rpi-zero-2-w.dtb is missing" in judged(card).wrong


def test_a_gpt_is_refused(tmp_path: Path) -> None:
    assert "must be FAT" in judged(make_image(tmp_path / "gpt.img")).wrong[0]


def test_its_kernel_starts_elsewhere_with_another_console(card: Path) -> None:
    kernel, initramfs, arguments = generic(_fat(card), "ttyAMA0")
    assert kernel == _KERNEL
    assert initramfs.endswith(b"packed")
    assert arguments == "root=PARTUUID=1234abcd-02 ro console=ttyAMA0"
