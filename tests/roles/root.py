"""The root file system that every scenario starts from: an untouched Debian 13, kept in the cache.

It also carries the packages that the roles install, as archives that are not unpacked, so that a
scenario needs no network. Which packages those are is read from the roles themselves.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import yaml

from appliance.errors import ApplianceError

PROJECT: Final = Path(__file__).resolve().parents[2]
ROOTS: Final = PROJECT / ".cache/roots"
ROOT: Final = ROOTS / "molecule-trixie"
SUITE: Final = "trixie"

# What a Debian server has after its installation, kernel and boot loader aside.
UNTOUCHED: Final = """
    ca-certificates dbus iproute2 kmod libpam-systemd login openssh-server passwd procps python3
    python3-apt sudo systemd systemd-sysv udev
""".split()
# What the tests themselves use inside.
PROBES: Final = ["nftables"]
# What the judges bring along. `linux-base` tells OpenSCAP that this is a machine with a kernel.
JUDGES: Final = ["linux-base", "lynis", "openscap-scanner"]


def wanted_packages() -> list[str]:
    """What roles install: every list named `*_packages` in `roles/*/vars/main.yaml`."""
    found = set(JUDGES)
    for path in sorted(PROJECT.glob("roles/*/vars/main.yaml")):
        for name, value in (yaml.safe_load(path.read_text()) or {}).items():
            if name.endswith("_packages"):
                found.update(value)
    return sorted(found)


def base_root() -> Path:
    """The base root; made when absent, or when a role wants a package that it does not carry.

    Errors: ApplianceError when mmdebstrap fails.
    """
    packages = wanted_packages()
    recipe = hashlib.sha256(Path(__file__).read_bytes() + repr(packages).encode()).hexdigest()
    root = ROOTS / f"{ROOT.name}-{recipe[:12]}"
    ROOTS.mkdir(parents=True, exist_ok=True)
    with _locked(ROOTS / f"{ROOT.name}.lock"):
        if not root.is_dir():
            _make(root, packages)
        # A machine may still run on the one before; the ones before that are of no use.
        named = ROOT.resolve() if ROOT.is_symlink() else None
        for old in ROOTS.glob(f"{ROOT.name}-*"):
            if old not in {root, named}:
                shutil.rmtree(old, ignore_errors=True)
        if named != root:
            ROOT.unlink(missing_ok=True)
            ROOT.symlink_to(root.name)
    return root


def _make(root: Path, packages: list[str]) -> None:
    print("==> making the base root: Debian 13, allow two minutes", file=sys.stderr, flush=True)
    sources = subprocess.run(
        [sys.executable, "-m", "appliance.image.sources", "--suite", SUITE],
        cwd=PROJECT,
        check=True,
        capture_output=True,
    ).stdout
    given = ROOTS / f"{ROOT.name}.sources"
    given.write_bytes(sources)
    fresh = ROOTS / f"{ROOT.name}.new"
    shutil.rmtree(fresh, ignore_errors=True)
    install = "apt-get --yes --no-install-recommends --download-only install"
    archives = f'chroot "$1" {install} {" ".join(packages)}'
    made = subprocess.run(
        [
            "mmdebstrap",
            "--variant=minbase",
            "--skip=cleanup/apt",
            f"--include={','.join([*UNTOUCHED, *PROBES])}",
            # Archives stay where apt looks for them, and the lists count as fresh.
            f"--customize-hook={archives}",
            '--customize-hook=touch "$1/var/lib/apt/periodic/update-success-stamp"',
            '--customize-hook=rm -f "$1"/etc/resolv.conf',
            SUITE,
            str(fresh),
            str(given),
        ],
        env=os.environ | {"DEBIAN_FRONTEND": "noninteractive", "TMPDIR": str(ROOTS)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if made.returncode:
        raise ApplianceError(f"mmdebstrap failed:\n{made.stdout[-3000:]}")
    fresh.rename(root)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    print(base_root())
