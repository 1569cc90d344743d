"""From a provisioned root to what is read-only on the machine, and what is its state."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Final

from appliance.image.bootstrap import drop_build_conf
from appliance.image.cache import remove
from appliance.image.chamber import inside
from appliance.image.steps import Steps

DPKG: Final = "usr/lib/sysimage/dpkg"
"""Where the package database lies: with the files it describes, not with the state."""
FACTORY: Final = "usr/share/factory/var"
"""What /var begins with, kept in the read-only root for a new or emptied data partition."""
SETUP: Final = "boot/appliance"
"""Where the setup partition is mounted."""

_UNCONFINED: Final = re.compile(r"^profile .*flags=\([^)]*\bunconfined\b", re.MULTILINE)

# Made anew on each machine, or of no use on it.
_GONE: Final = (
    "etc/ssh/ssh_host_*",
    "etc/*-",
    "etc/.pwd.lock",
    "etc/apt/apt.conf.d/*mmdebstrap*",
    "etc/dpkg/dpkg.cfg.d/*mmdebstrap*",
    "root/.*",
    "root/*",
    "tmp/*",
    "run/*",
    "var/backups/*",
    "var/cache/*",
    "var/lib/apt/lists/*",
    "var/lib/dbus/machine-id",
    "var/lib/dpkg/*-old",
    "var/lib/dpkg/lock*",
    "var/lib/dpkg/updates/*",
    "var/lib/systemd/random-seed",
    "var/lib/systemd/credential.secret",
    "var/log/*.log",
    "var/log/apt/*",
    "var/log/btmp",
    "var/log/lastlog",
    "var/log/wtmp*",
    "var/log/journal/*",
    "var/tmp/*",
)


def finish(steps: Steps, project: Path, root: Path, *, version: str, epoch: int) -> None:
    """Turn `root` into the image's: cleaned, with the image's own files, every time at most
    `epoch`. The kernel is still in /boot."""
    drop_build_conf(root)
    overlay(project / "images/root", root)
    for pattern in _GONE:
        for path in root.glob(pattern):
            _delete(path)
    drop_idle_profiles(root)
    # Empty, not missing: the initrd mounts the kept id over it.
    (root / "etc/machine-id").write_text("", encoding="utf-8")
    parents = [(root / path).parent for path in (DPKG, FACTORY)]
    steps.run(["mkdir", "--parents", root / SETUP, *parents])
    _link(root / "etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf")
    _identify(root, version)
    _normalise_shadow(root, epoch)
    # Which programs are enabled, and the loader's cache: with everything there is.
    steps.run(inside(root, ["ldconfig", "-X"]))
    _delete(root / "var/cache/ldconfig")
    _move(root / "var/lib/dpkg", root / DPKG)
    _link(root / "var/lib/dpkg", f"../../{DPKG}")
    _move(root / "home", root / "var/home")
    _link(root / "home", "var/home")
    remove(root / FACTORY)
    steps.run(["cp", "--archive", root / "var", root / FACTORY])
    clamp(root, epoch)


def overlay(source: Path, root: Path) -> None:
    """Copy what lies below `source` over `root`, with the modes of a distribution: a checkout has
    those of its owner's umask, and below a directory that a group can write sshd trusts no key."""
    for path in sorted(source.rglob("*")):
        target = root / path.relative_to(source)
        if path.is_symlink():
            _link(target, str(path.readlink()))
        elif path.is_dir():
            if not target.is_dir():
                target.mkdir()
                target.chmod(0o755)
        else:
            _delete(target)  # a link there is not followed
            shutil.copyfile(path, target)
            target.chmod(0o755 if os.access(path, os.X_OK) else 0o644)


def take_kernel(root: Path, to: Path) -> str:
    """Move the kernel out of `root` to `to`/vmlinuz; its release is returned."""
    [modules] = [path for path in (root / "usr/lib/modules").iterdir() if path.is_dir()]
    release = modules.name
    shutil.copyfile(root / f"boot/vmlinuz-{release}", to / "vmlinuz")
    for path in (root / "boot").iterdir():
        if path.name != Path(SETUP).name:
            _delete(path)
    for link in ("vmlinuz", "vmlinuz.old", "initrd.img", "initrd.img.old"):
        (root / link).unlink(missing_ok=True)
    return release


def drop_idle_profiles(root: Path) -> None:
    """Remove AppArmor's profiles that confine nothing: they name desktop programs to other
    distributions, and each is compiled at the first boot, before anything else starts."""
    for path in (root / "etc/apparmor.d").glob("*"):
        if path.is_file() and _UNCONFINED.search(path.read_text(encoding="utf-8")):
            path.unlink()


def clamp(root: Path, epoch: int) -> None:
    """No file is younger than the sources: what the build wrote carries their date."""
    for directory, names, files in os.walk(root, topdown=False):
        for name in (*files, *names):
            path = os.path.join(directory, name)  # noqa: PTH118  # half a million pathlib objects
            if os.lstat(path).st_mtime > epoch:
                os.utime(path, (epoch, epoch), follow_symlinks=False)
    os.utime(root, (epoch, epoch))


def _identify(root: Path, version: str) -> None:
    path = root / "usr/lib/os-release"
    lines = [
        line
        for line in path.read_text(encoding="utf-8").splitlines()
        if not line.startswith(("IMAGE_ID=", "IMAGE_VERSION="))
    ]
    lines += ["IMAGE_ID=appliance", f"IMAGE_VERSION={version}"]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _normalise_shadow(root: Path, epoch: int) -> None:
    """The day of the last change of each password, of which there is none, is the sources'."""
    path = root / "etc/shadow"
    rows = [line.split(":") for line in path.read_text(encoding="utf-8").splitlines()]
    day = str(epoch // 86_400)
    for row in rows:
        if len(row) > 2 and row[2] not in ("", "0"):
            row[2] = day
    path.write_text("".join(":".join(row) + "\n" for row in rows), encoding="utf-8")


def _move(source: Path, target: Path) -> None:
    if source.is_symlink():
        return
    if target.is_dir():
        target.rmdir()
    source.rename(target)


def _link(path: Path, target: str) -> None:
    _delete(path)
    path.symlink_to(target)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        remove(path)
    else:
        path.unlink(missing_ok=True)
