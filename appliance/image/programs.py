"""The programs that testing and flashing an image call, and the Debian packages they are in."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from typing import Final

from appliance.errors import ApplianceError

PACKAGES: Final = {
    "blkid": "util-linux",
    "debugfs": "e2fsprogs",
    "fsck.erofs": "erofs-utils",
    "ip": "iproute2",
    "mcopy": "mtools",
    "mdel": "mtools",
    "mdir": "mtools",
    "mtype": "mtools",
    "qemu-system-aarch64": "qemu-system-arm",
    "qemu-system-x86_64": "qemu-system-x86",
    "setpriv": "util-linux",
    "sfdisk": "fdisk",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "unshare": "util-linux",
    "zstd": "zstd",
}

_SBIN: Final = ("/usr/local/sbin", "/usr/sbin", "/sbin")


def find(name: str) -> str:
    """Its path, also where `sbin` is not on the PATH. Raises ApplianceError."""
    require([name])
    found = _which(name)
    assert found is not None
    return found


def require(names: Iterable[str]) -> None:
    """Raises one ApplianceError for all that are missing, with the command that installs them."""
    missing = [name for name in names if _which(name) is None]
    if missing:
        packages = " ".join(sorted({PACKAGES[name] for name in missing}))
        verb = "is" if len(missing) == 1 else "are"
        raise ApplianceError(
            f"{', '.join(missing)} {verb} needed and not installed",
            hint=f"sudo apt install {packages}",
        )


def _which(name: str) -> str | None:
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *_SBIN])
    return shutil.which(name, path=path)
