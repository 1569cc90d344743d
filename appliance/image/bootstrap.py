"""The root file systems that a build begins with: the tools' own, and the target's."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Final

from appliance.image import native
from appliance.image.cache import Cache, remove
from appliance.image.chamber import alone, inside
from appliance.image.native import Native
from appliance.image.sources import KEYRING, SUITE
from appliance.image.steps import Steps
from appliance.image.targets import Target, packages

# What nobody reads on the machine. The copyright files stay: the licences ask for it.
_LEFT_OUT: Final = (
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/lintian/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/man/*",
)
# What the host says about reaching the archive: its proxies, and whether old lists are accepted.
_CARRIED: Final = ("Proxy", "Acquire::Check-", "Acquire::https::CA")
# The kernel's own hooks make no initrd: that is done once, late, from everything that is there.
_ENVIRONMENT: Final = {"INITRD": "No", "LC_ALL": "C.UTF-8"}
_BUILD_CONF: Final = "etc/apt/apt.conf.d/00build"
_PACKAGES_LAST: Final = 7 * 86_400.0
"""Seconds: as long as Debian's security archive lets its own lists be used (their Valid-Until)."""


def tools_root(cache: Cache, steps: Steps, project: Path, sources: str, *, fresh: bool) -> Path:
    """The root with systemd-repart, ukify and the file systems' makers; this machine's own
    architecture."""
    wanted = packages(project, ("tools",))

    def make(directory: Path) -> None:
        _mmdebstrap(steps, directory, sources, wanted)

    inputs = [SUITE, sources, wanted]
    return cache.entry("tools", inputs, make, fresh=fresh, lasts=_PACKAGES_LAST) / "root"


def target_root(
    cache: Cache,
    steps: Steps,
    project: Path,
    target: Target,
    sources: str,
    *,
    helper: Native | None,
    fresh: bool,
) -> Path:
    """The root that `target` is provisioned from, never to be changed.

    What a target installs `later` is in an entry of its own, made from a copy of the shared one.
    """
    wanted = packages(project, target.packages)

    def make(directory: Path) -> None:
        _mmdebstrap(steps, directory, sources, wanted, _for(target, helper))

    inputs = [SUITE, sources, wanted, _LEFT_OUT]
    name = f"root-{target.debian}"
    shared = cache.entry(name, inputs, make, fresh=fresh, lasts=_PACKAGES_LAST)
    root = shared / "root"
    if not target.later:
        return root
    more = packages(project, target.later)

    def add(directory: Path) -> None:
        copy = directory / "root"
        steps.run(["cp", "--archive", "--reflink=auto", root, copy])
        install(steps, copy, more, helper)

    grounds = [shared.name, shared.stat().st_mtime_ns, more]
    return cache.entry(f"root-{target.name}", grounds, add) / "root"


def install(steps: Steps, root: Path, wanted: list[str], helper: Native | None) -> None:
    """More packages into a root, from the sources it carries."""
    binds = resolver(root)
    if helper is not None:
        binds |= {helper.tools: native.PLACE}
    with helper.lent(root) if helper is not None else nullcontext():
        for words in (["update"], ["install", "--yes", "--no-install-recommends", *wanted]):
            command = ["apt-get", "-o", "Dpkg::Use-Pty=0", *words]
            steps.run(inside(root, command, binds=binds, env=_ENVIRONMENT))


def resolver(root: Path) -> dict[Path, str]:
    """The host's resolv.conf where the programs of `root` look for theirs.

    systemd-resolved's link points below /run, which is empty while nothing runs.
    """
    link = root / "etc/resolv.conf"
    place = os.path.normpath(Path("/etc") / link.readlink()) if link.is_symlink() else None
    return {Path("/etc/resolv.conf"): place or "/etc/resolv.conf"}


def host_conf() -> str:
    """The host's apt settings that matter for fetching, as a file for apt.conf.d."""
    done = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=False)
    lines = [
        line
        for line in done.stdout.splitlines()
        if line.startswith("Acquire::") and any(word in line for word in _CARRIED)
    ]
    return "".join(f"{line}\n" for line in lines)


def drop_build_conf(root: Path) -> None:
    """How this host reaches the archive is not the image's business."""
    (root / _BUILD_CONF).unlink(missing_ok=True)


def _for(target: Target, helper: Native | None) -> list[str]:
    """mmdebstrap's options for a target's root."""
    options = [f"--architectures={target.debian}"]
    options += [f"--dpkgopt={option}" for option in _LEFT_OUT]
    # The roles install from the same lists in a moment; we looked at binfmt ourselves.
    options += ["--skip=cleanup/apt/lists,check/qemu"]
    if helper is not None:
        options += [f"--extract-hook={helper.hook('lend')}"]
        options += [f"--customize-hook={helper.hook('take-back')}"]
    return options


def _mmdebstrap(
    steps: Steps, directory: Path, sources: str, wanted: list[str], options: Sequence[str] = ()
) -> None:
    root = directory / "root"
    file = directory / "debian.sources"
    file.write_text(sources, encoding="utf-8")
    conf = directory / "00build"
    conf.write_text(host_conf(), encoding="utf-8")
    command: list[str | Path] = [
        *("mmdebstrap", "--variant=apt", "--mode=root", "--format=directory", *options),
        *("--dpkgopt=force-unsafe-io", f"--aptopt={conf}", f"--keyring={KEYRING}"),
        f"--include={','.join(wanted)}",
        *(SUITE, root, file),
    ]
    steps.run(alone(command), env=_ENVIRONMENT)
    # mmdebstrap keeps its options under a name of its own; ours says whose they are.
    (root / "etc/apt/apt.conf.d/99mmdebstrap").unlink(missing_ok=True)
    (root / _BUILD_CONF).write_text(host_conf(), encoding="utf-8")
    remove(root / "var/cache/apt/archives/partial")
