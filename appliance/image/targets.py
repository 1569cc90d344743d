"""What an image can be made for, and which of these a declaration asks for."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from appliance.declaration import Declaration
from appliance.errors import ApplianceError
from appliance.sizing import Profile

COMPONENTS: Final = ("main", "non-free-firmware")
"""Archive areas. One list for all targets, so that they share what they begin with."""


@dataclass(frozen=True, slots=True)
class Target:
    """One kind of machine that an image boots on."""

    name: str
    machine: str
    """As `uname -m` says it."""
    debian: str
    """Debian's name of the architecture."""
    packages: tuple[str, ...]
    """Lists below images/packages, in one go."""
    later: tuple[str, ...] = ()
    """Lists that are installed on top, so that targets share what comes before."""
    efi: str = ""
    """The firmware's suffix of EFI programs; empty: the machine has no UEFI."""
    console: str = ""
    """The serial line on which the kernel and a login appear, too."""

    @property
    def drivers(self) -> str:
        """Which of images/initramfs/drivers.* goes into the initrd."""
        return "x86-64" if self.debian == "amd64" else "arm64"


X86_64: Final = Target(
    name="x86-64",
    machine="x86_64",
    debian="amd64",
    packages=("common", "x86-64"),
    efi="x64",
    console="ttyS0,115200",
)
ARM64: Final = Target(
    name="arm64",
    machine="aarch64",
    debian="arm64",
    packages=("common", "arm64"),
    efi="aa64",
    console="ttyAMA0,115200",
)
RASPBERRY_PI: Final = Target(
    name="raspberry-pi",
    machine="aarch64",
    debian="arm64",
    packages=("common", "arm64"),
    later=("raspberry-pi",),
    console="ttyS1,115200",
)
TARGETS: Final = {target.name: target for target in (X86_64, ARM64, RASPBERRY_PI)}


def choose(declaration: Declaration, name: str | None = None) -> Target:
    """`name`, else what the declaration's hardware profile says.

    Raises ApplianceError: no image is made for that hardware, or `name` contradicts it.
    """
    wanted = declaration.hardware.profile
    profile = wanted if isinstance(wanted, Profile) else None
    machine = profile.architecture if profile is not None else platform.machine()
    if name is not None:
        target = TARGETS[name]
        if profile is not None and machine != target.machine:
            raise ApplianceError(
                f"the profile {profile.name} is of {machine}, and the target {name} is not",
                hint="leave --target out, or name another profile in the declaration",
            )
        return target
    if profile is not None and profile.name.startswith("raspberry-pi"):
        return RASPBERRY_PI
    for target in TARGETS.values():
        if target.machine == machine:
            return target
    raise ApplianceError(
        f"no image is made for {machine}", hint=f"there are images for {', '.join(TARGETS)}"
    )


def packages(project: Path, lists: tuple[str, ...]) -> list[str]:
    """The names in lists below images/packages; after `#` stands why."""
    texts = [
        (project / "images/packages" / f"{name}.list").read_text(encoding="utf-8") for name in lists
    ]
    words = (line.split("#", 1)[0].strip() for text in texts for line in text.splitlines())
    return sorted({word for word in words if word})
