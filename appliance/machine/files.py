"""Files written whole or not at all, and read within bounds."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile
from pathlib import Path

from appliance.errors import ApplianceError


def read(path: Path, limit: int) -> bytes | None:
    """At most `limit` bytes of a regular file; None if there is none. Raises ApplianceError."""
    # Not through a link, and not held up by a pipe.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY | os.O_NOFOLLOW
    try:
        descriptor = os.open(path, flags)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ApplianceError(f"{path.name}: is not a regular file")
            data = file.read(limit + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ApplianceError(f"{path.name}: cannot be read: {why(error)}") from None
    if len(data) > limit:
        raise ApplianceError(f"{path.name}: is larger than {limit} bytes")
    return data


def write(path: Path, data: bytes, *, mode: int = 0o644, durable: bool = False) -> bool:
    """`path` holds `data`; False if it did already. After an error it is as it was.

    `durable`: also after a power cut. Raises OSError.
    """
    with contextlib.suppress(OSError):
        if path.read_bytes() == data and stat.S_IMODE(path.stat().st_mode) == mode:
            return False
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            os.fchmod(descriptor, mode)
            file.flush()
            if durable:
                os.fsync(descriptor)
        Path(temporary).replace(path)
    except BaseException:  # Ctrl-C too: no half-written file stays
        Path(temporary).unlink(missing_ok=True)
        raise
    if durable:
        sync(path.parent)
    return True


def write_beside(path: Path, data: bytes) -> bool:
    """As `write`, durable, on a FAT file system: no modes there, and no writing without a change,
    which would wear a memory card. Raises OSError."""
    with contextlib.suppress(OSError):
        if path.read_bytes() == data:
            return False
    temporary = path.with_name(f"{path.name}.new")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    sync(path.parent)
    return True


def remove(path: Path) -> bool:
    """Whether there was such a file. Raises OSError."""
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True


def left(path: Path) -> int:
    """Bytes that others than root may still write where `path` lies. Raises OSError."""
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


def sync(directory: Path) -> None:
    """Without it a new name may not survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def why(error: OSError) -> str:
    """The system's reason, in the words of somebody who owns a memory card."""
    if error.errno == errno.ENOSPC:
        return "the disk is full"
    if error.errno == errno.EROFS:
        return "the disk is read-only"
    return (error.strerror or str(error)).lower()
