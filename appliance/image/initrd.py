"""The initial RAM file system: a list of drivers, and what mounts the root and its data."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from appliance.image.chamber import inside
from appliance.image.rootfs import overlay
from appliance.image.steps import Steps
from appliance.image.targets import Target

_CONFIGURATION: Final = "run/build/initramfs"


def make(
    steps: Steps, project: Path, root: Path, work: Path, target: Target, *, release: str, epoch: int
) -> Path:
    """`work`/initrd, made by the root's own initramfs-tools for the kernel `release`."""
    configuration = work / "initramfs"
    configuration.mkdir()
    overlay(project / "images/initramfs", configuration)
    drivers = configuration / f"drivers.{target.drivers}"
    drivers.rename(configuration / "drivers")
    # Nothing is loaded by name: each would be looked for, also where there is no such device.
    (configuration / "modules").touch()
    for directory in ("conf.d", "scripts", "hooks"):
        (configuration / directory).mkdir(exist_ok=True)
    output = work / "initrd-out"
    output.mkdir()
    command = ["mkinitramfs", "-d", f"/{_CONFIGURATION}", "-o", "/run/build/out/initrd", release]
    binds = {configuration: f"/{_CONFIGURATION}", output: "/run/build/out"}
    steps.run(inside(root, command, binds=binds, env={"SOURCE_DATE_EPOCH": str(epoch)}))
    return (output / "initrd").rename(work / "initrd")
