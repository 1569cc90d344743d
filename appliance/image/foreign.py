"""Programs of another architecture, run through qemu-user by the kernel's binfmt_misc.

A registration is the whole machine's: it is added when absent, and one that is there stays.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from appliance.errors import ApplianceError
from appliance.image.chamber import alone
from appliance.image.targets import Target

# From qemu's scripts/qemu-binfmt-conf.sh: the ELF header of a little-endian AArch64 executable or
# shared object, any OS ABI. Flags: O opens the file for the interpreter, C takes its credentials,
# F keeps the interpreter open, so that it need not be in the root.
_MAGIC: Final = r"\x7f\x45\x4c\x46\x02\x01\x01\x00" + r"\x00" * 8 + r"\x02\x00\xb7\x00"
_MASK: Final = r"\xff" * 7 + r"\x00" + r"\xff" * 8 + r"\xfe\xff\xff\xff"
_NAMES: Final = ("qemu-aarch64-static", "qemu-aarch64")
# The registrations live as long as the file system is mounted somewhere: where nobody did so (a
# container without systemd), the mount of this process, which ends with its standard input.
_HOLD: Final = """
set -eu
place=/proc/sys/fs/binfmt_misc
[ -e $place/register ] || mount -t binfmt_misc binfmt_misc $place
if [ -e $place/qemu-aarch64 ]; then
    grep -q '^flags:.*F' $place/qemu-aarch64 || { echo 'registered without the flag F'; exit 1; }
else
    printf '%s' "$1" >$place/register
fi
echo ready
exec cat
"""


def is_foreign(target: Target) -> bool:
    return platform.machine() != target.machine


def interpreter() -> str | None:
    """qemu-user for AArch64, if it is installed."""
    return next((path for path in map(shutil.which, _NAMES) if path), None)


@contextmanager
def enabled(target: Target) -> Iterator[None]:
    """Inside, the kernel runs the target's programs. Raises ApplianceError."""
    if not is_foreign(target):
        yield
        return
    qemu = interpreter()
    if qemu is None:
        raise ApplianceError("there is no qemu-user for AArch64 here")
    row = f":qemu-aarch64:M::{_MAGIC}:{_MASK}:{qemu}:OCF"
    with subprocess.Popen(
        alone(["sh", "-c", _HOLD, "sh", row]),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        said = holder.stdout.readline().decode(errors="replace").strip()
        if said != "ready":
            raise ApplianceError(f"the kernel cannot be told of {qemu}: {said or 'no answer'}")
        try:
            yield
        finally:
            holder.stdin.close()
            holder.wait()
