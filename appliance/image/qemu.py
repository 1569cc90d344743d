"""The command line of QEMU for a guest; nothing here runs it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from appliance.errors import ApplianceError


@dataclass(frozen=True, slots=True)
class Architecture:
    """How QEMU emulates one, and where Debian keeps its UEFI firmware."""

    name: str
    program: str
    machine: str
    firmware: Path
    variables: Path
    package: str
    cpu: str
    console: str
    """The serial line's device, as the guest's kernel names it."""


ARCHITECTURES: Final = {
    one.name: one
    for one in (
        Architecture(
            name="x86-64",
            program="qemu-system-x86_64",
            machine="q35",
            firmware=Path("/usr/share/OVMF/OVMF_CODE_4M.fd"),
            variables=Path("/usr/share/OVMF/OVMF_VARS_4M.fd"),
            package="ovmf",
            # QEMU before 10 emulates cmpxchg16b so that Debian 13's kernel panics at random. The
            # kernel tests each instruction for ciphers when it finds it: minutes, under emulation.
            cpu="max,-cx16,-aes,-vaes,-pclmulqdq,-vpclmulqdq,-avx,-avx2,-sha-ni,-gfni",
            console="ttyS0",
        ),
        Architecture(
            name="arm64",
            program="qemu-system-aarch64",
            machine="virt",
            firmware=Path("/usr/share/AAVMF/AAVMF_CODE.fd"),
            variables=Path("/usr/share/AAVMF/AAVMF_VARS.fd"),
            package="qemu-efi-aarch64",
            cpu="max,pauth-impdef=on",  # the architected pointer authentication costs half the time
            console="ttyAMA0",
        ),
    )
}


CARD: Final = "card"
"""QEMU's name of the network card."""

PATIENCE: Final = (
    "systemd.default_timeout_start_sec=1200 systemd.default_device_timeout_sec=1200 "
    "systemd.service_watchdogs=no nowatchdog mitigations=off"
)
"""For the guest's kernel command line: emulated on a busy host, nothing keeps its usual times.

The emulator has none of the faults that the kernel's mitigations pay for.
"""


@dataclass(frozen=True, slots=True)
class Kernel:
    """Booted by QEMU itself, past any firmware: quicker, and for images that have none of it."""

    image: Path
    initrd: Path
    arguments: str

    @classmethod
    def beside(cls, image: Path) -> Self:
        """The files that `image build --keep-kernel` leaves there. Raises ApplianceError."""
        stem = image.name.removesuffix(".zst").removesuffix(".img")
        kernel, initrd, arguments = (
            image.with_name(f"{stem}.{suffix}") for suffix in ("vmlinuz", "initrd", "cmdline")
        )
        for path in (kernel, initrd, arguments):
            if not path.is_file():
                hint = "`appliance image build --keep-kernel` leaves it there"
                raise ApplianceError(f"there is no {path.name} beside the image", hint=hint)
        return cls(kernel, initrd, arguments.read_text(encoding="utf-8").strip())


@dataclass(frozen=True, slots=True)
class Wire:
    """The guest's network card, on a tap."""

    tap: str
    mac: str = "52:54:00:00:00:01"  # QEMU's own range


@dataclass(frozen=True, slots=True)
class Guest:
    """A machine to emulate. `disk` is raw, and is written."""

    architecture: Architecture
    disk: Path
    wire: Wire
    kernel: Kernel | None = None
    """None: through the UEFI, as the image's own machine would."""
    memory_mib: int = 2048
    cores: int = 1
    """More are slower under emulation where others use the host, too: they wait for each other."""
    accelerator: str = "tcg"


def require_firmware(architecture: Architecture) -> None:
    """Raises ApplianceError where the UEFI is not installed."""
    if not (architecture.firmware.exists() and architecture.variables.exists()):
        raise ApplianceError(
            f"the UEFI for {architecture.name} guests is not installed",
            hint=f"sudo apt install {architecture.package}",
        )


def command(guest: Guest, *, program: str, monitor: int, scratch: Path) -> list[str]:
    """The arguments; the serial line is standard output, `monitor` the QMP's descriptor.

    With the UEFI its variables are copied to `scratch`, where the guest changes them.
    """
    return [
        program,
        *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
        *("-machine", guest.architecture.machine, "-accel", guest.accelerator),
        *("-cpu", guest.architecture.cpu),
        *("-smp", str(guest.cores), "-m", f"{guest.memory_mib}M"),
        *("-chardev", f"socket,id=qmp,fd={monitor}", "-mon", "chardev=qmp,mode=control"),
        *("-chardev", "file,id=console,path=/dev/stdout", "-serial", "chardev:console"),
        *("-drive", f"if=none,id=disk,format=raw,cache=unsafe,file={_escaped(guest.disk)}"),
        *("-device", "virtio-blk-pci,drive=disk"),
        *(
            "-object",
            "rng-random,id=rng,filename=/dev/urandom",
            "-device",
            "virtio-rng-pci,rng=rng",
        ),
        *_network(guest.wire),
        *_boot(guest, scratch),
    ]


def _boot(guest: Guest, scratch: Path) -> list[str]:
    if guest.kernel is not None:
        files = ("-kernel", str(guest.kernel.image), "-initrd", str(guest.kernel.initrd))
        return [*files, "-append", f"{guest.kernel.arguments} {_extra(guest.architecture)}"]
    variables = scratch / "uefi-variables.fd"
    shutil.copyfile(guest.architecture.variables, variables)
    flash = "if=pflash,format=raw"
    # The stub of a UKI takes it from here, unless Secure Boot is on (systemd-stub(7)).
    words = _extra(guest.architecture)
    extra = f"type=11,value=io.systemd.stub.kernel-cmdline-extra={words}"
    return [
        *("-smbios", extra),
        *("-drive", f"{flash},readonly=on,file={guest.architecture.firmware}"),
        *("-drive", f"{flash},file={_escaped(variables)}"),
    ]


def _extra(architecture: Architecture) -> str:
    # The last console named is the one that systemd writes to; an image names its screen last.
    return f"{PATIENCE} console={architecture.console}"


def _network(wire: Wire) -> list[str]:
    card = f"virtio-net-pci,id={CARD},mac={wire.mac},romfile="
    tap = f"tap,id=tap,ifname={wire.tap},script=no,downscript=no"
    return ["-netdev", tap, "-device", f"{card},netdev=tap"]


def _escaped(path: Path) -> str:
    """In QEMU's options a comma is doubled."""
    return str(path).replace(",", ",,")
