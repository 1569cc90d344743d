"""Programs in a root file system of their own: mounts that nobody else sees, and one owner.

Everything runs in private mount and process namespaces. When the program ends, or the build dies,
its children die with it and the mounts are gone; nothing has to be undone on the host.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

_ENVIRONMENT: Final = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
    "HOME": "/root",
    "TMPDIR": "/tmp",  # noqa: S108  # of the root that we enter, which nobody else uses
}

_ALONE: Final = (
    *("setpriv", "--pdeathsig", "KILL"),
    *("unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"),
    "--",
)

# $1 the root, $2 the number of words of the binds, then pairs FROM TO, then the program.
_MOUNTS: Final = """
set -eu
root=$1 count=$2
shift 2
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t tmpfs -o mode=1777 tmp "$root/tmp"
mount -t tmpfs -o mode=755 run "$root/run"
while [ "$count" -gt 0 ]; do
    mkdir -p "$(dirname "$root$2")"
    if [ -d "$1" ]; then mkdir -p "$root$2"; else [ -e "$root$2" ] || : >"$root$2"; fi
    mount --rbind "$1" "$root$2"
    shift 2
    count=$((count - 2))
done
"""
_CHROOT: Final = 'exec chroot "$root" "$@"\n'
_OUTSIDE: Final = 'exec "$@"\n'


def alone(command: Sequence[str | Path]) -> list[str]:
    """`command` with mounts and processes of its own, killed with all its children."""
    return [*_ALONE, *(str(word) for word in command)]


def inside(
    root: Path,
    command: Sequence[str | Path],
    *,
    binds: Mapping[Path, str] | None = None,
    env: Mapping[str, str] | None = None,
) -> list[str]:
    """`command` inside `root`. `binds` are files and directories of the host and where they show;
    those below /run and /tmp leave no trace in the root."""
    variables = [f"{name}={value}" for name, value in {**_ENVIRONMENT, **(env or {})}.items()]
    return _entered(root, ["env", "-i", *variables, *command], binds or {}, _CHROOT)


def beside(
    root: Path, command: Sequence[str | Path], *, binds: Mapping[Path, str] | None = None
) -> list[str]:
    """`command` outside, with `root` mounted so that it can enter by chroot."""
    return _entered(root, command, binds or {}, _OUTSIDE)


def _entered(
    root: Path, command: Sequence[str | Path], binds: Mapping[Path, str], last: str
) -> list[str]:
    pairs = [word for source, target in binds.items() for word in (str(source), target)]
    entering = ("sh", "-c", _MOUNTS + last, "chamber", root, str(len(pairs)))
    return alone([*entering, *pairs, *command])
