"""What the host itself needs for a build, and the offer to install it."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from typing import Final

from appliance.errors import ApplianceError
from appliance.image import foreign
from appliance.image.targets import Target

# Programs and their Debian packages; everything else is in the tools' own root.
_ALWAYS: Final = {"mmdebstrap": "mmdebstrap", "unshare": "util-linux", "setpriv": "util-linux"}


def missing(target: Target) -> dict[str, str]:
    """Programs that are not here, and the Debian packages that bring them."""
    found = {name: package for name, package in _ALWAYS.items() if shutil.which(name) is None}
    if foreign.is_foreign(target) and foreign.interpreter() is None:
        found["qemu-aarch64"] = _qemu_package()
    return found


def ensure(target: Target, *, install: bool) -> None:
    """Everything is there on return. Where it was not, it is installed if `install`, or if the
    person at the terminal says so. Raises ApplianceError, with the command to type."""
    found = missing(target)
    if not found:
        return
    packages = sorted(set(found.values()))
    command = ["apt-get", "install", "--yes", "--no-install-recommends", *packages]
    verb = "is" if len(found) == 1 else "are"
    sentence = f"{', '.join(sorted(found))} {verb} needed and not installed"
    if not install and not _agreed(sentence, packages):
        raise ApplianceError(
            sentence, hint=f"{' '.join(command)}   (or repeat with --install-missing)"
        )
    if subprocess.run(command, stdout=sys.stderr.fileno(), check=False).returncode != 0:
        raise ApplianceError(
            f"apt-get could not install {', '.join(packages)}", hint="apt-get update, then repeat"
        )
    if missing(target):
        raise ApplianceError(f"{sentence}, also after {', '.join(packages)} was installed")


def _agreed(sentence: str, packages: list[str]) -> bool:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    sys.stderr.write(f"{sentence}. Install {' '.join(packages)} now? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _qemu_package() -> str:
    """Debian 13 split the registration off the programs."""
    release = platform.freedesktop_os_release().get("VERSION_ID", "")
    return "qemu-user-static" if release == "12" else "qemu-user-binfmt"
