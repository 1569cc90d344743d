"""The Linux calls that the laboratory needs and Python 3.11 does not have, with plain errors.

Numbers: linux/sched.h (CLONE_*), linux/prctl.h, linux/mount.h, linux/capability.h.
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

CLONE_NEWNS: Final = 0x00020000
CLONE_NEWUTS: Final = 0x04000000
CLONE_NEWIPC: Final = 0x08000000
CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWPID: Final = 0x20000000
CLONE_NEWNET: Final = 0x40000000

MS_NOSUID: Final = 0x2
MS_NODEV: Final = 0x4
MS_NOEXEC: Final = 0x8
MS_REC: Final = 0x4000
MS_PRIVATE: Final = 0x40000

_PR_SET_PDEATHSIG: Final = 1
_CAP_NET_ADMIN: Final = 12
_CAP_NET_RAW: Final = 13
_CAP_SYS_ADMIN: Final = 21

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def unshare(flags: int) -> None:
    """Put this process (for `CLONE_NEWPID`: its later children) into new namespaces.

    Raises OSError. `CLONE_NEWUSER` needs a process with one thread.
    """
    _check(_libc.unshare(flags), "unshare")


def setns(fd: int, kind: int) -> None:
    """Enter the namespace behind `fd`, of the kind `CLONE_NEW…`. Only the calling thread moves."""
    _check(_libc.setns(fd, kind), "setns")


def mount(
    source: str, target: str, fstype: str | None, flags: int, data: str | None = None
) -> None:
    """mount(2). Raises OSError."""

    def encoded(text: str | None) -> bytes | None:
        return None if text is None else text.encode()

    result = _libc.mount(
        source.encode(), target.encode(), encoded(fstype), ctypes.c_ulong(flags), encoded(data)
    )
    _check(result, f"mount on {target}")


def die_with_parent() -> None:
    """Ask the kernel to kill this process when the thread that started it ends, even by SIGKILL."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")


def may_make_namespaces() -> bool:
    """Whether this process has the three capabilities that spare it a user namespace."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("CapEff:"):
            bits = int(line.split()[1], 16)
            wanted = (_CAP_NET_ADMIN, _CAP_NET_RAW, _CAP_SYS_ADMIN)
            return all(bits >> bit & 1 for bit in wanted)
    return False


class NetNamespace:
    """A network namespace kept alive by a descriptor of ours; it goes when the process does."""

    def __init__(self, name: str, fd: int) -> None:
        self.name = name
        self.fd = fd

    @classmethod
    def create(cls, name: str) -> NetNamespace:
        """A new, empty one (its loopback is down). The calling thread stays where it is."""
        here = _current_net()
        try:
            unshare(CLONE_NEWNET)
            return cls(name, _current_net())
        finally:
            setns(here, CLONE_NEWNET)
            os.close(here)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """The calling thread is inside, and so is every process and socket that it makes.

        No `await` in the body: another task would run in the wrong namespace.
        """
        here = _current_net()
        try:
            setns(self.fd, CLONE_NEWNET)
            yield
        finally:
            setns(here, CLONE_NEWNET)
            os.close(here)


def _current_net() -> int:
    # Not /proc/self: that is the process; a namespace belongs to the thread.
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
