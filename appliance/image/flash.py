"""Writes an image to a disk, reads it back, and puts the user's files on it."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import mmap
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from appliance.errors import ApplianceError
from appliance.image.blockdev import Target, inspect
from appliance.image.imagefile import CHUNK, Image, Told, chunks
from appliance.image.partitions import FatFiles, read_table
from appliance.units import human_bytes

# linux/fs.h: read the partition table anew; forget the cached blocks.
_BLKRRPART: Final = 0x125F
_BLKFLSBUF: Final = 0x1261

_SYNC_EVERY: Final = 64 * 1024 * 1024
"""Bytes: progress that counts what is only in the cache would run ahead of a slow card."""


@dataclass(frozen=True, slots=True)
class Step:
    """A part of the work that takes long; `progress` gives the callback of one."""

    name: str


WRITING: Final = Step("writing")
VERIFYING: Final = Step("reading back")

Progress = Callable[[Step], Told]


def refusals(image: Image, target: Target, *, force: bool) -> None:
    """Raises ApplianceError if the image must not be written there, or not without `force`."""
    if target.is_file:
        if not force:
            message = f"{target.path} is no disk, but a file"
            raise ApplianceError(message, hint="--force writes to a file, too")
        return
    if target.size < image.size:
        here, needed = human_bytes(target.size), human_bytes(image.size)
        raise ApplianceError(f"{target.path} is too small: it has {here}, the image needs {needed}")
    if not target.uses or force:
        return
    told = "; ".join(use.what for use in target.uses)
    if any(use.system for use in target.uses):
        message = f"{target.path} holds the system that is running here: {told}"
        raise ApplianceError(message, hint="name another disk; --force would destroy this system")
    raise ApplianceError(
        f"{target.path} is in use: {told}", hint=f"unmount it (umount {target.path}*), or --force"
    )


def flash(
    image: Image, path: Path, files: Mapping[str, bytes], progress: Progress, *, force: bool
) -> None:
    """Write, read back and compare, then the files.

    Raises ApplianceError; then, as after KeyboardInterrupt, the disk holds no usable image.
    """
    # Looked at again: it may have been mounted since the question was asked.
    target = inspect(path)
    refusals(image, target, force=force)
    _write(image, target, progress(WRITING), exclusive=not force)
    found = _hash_on(path, image.size, progress(VERIFYING))
    if found != image.sha256:
        raise ApplianceError(
            f"{path} gives back something else than was written: it is worn out or not genuine",
            hint="use another card or disk; do not boot this one",
        )
    if files:
        FatFiles(path, read_table(path).setup).write(files)
        _settle(path)


def _write(image: Image, target: Target, told: Told, *, exclusive: bool) -> None:
    # On a block device O_EXCL needs no O_CREAT, and fails while anything has mounted or holds it.
    create = os.O_CREAT if target.is_file else os.O_EXCL if exclusive else 0
    try:
        disk = os.open(target.path, os.O_WRONLY | os.O_CLOEXEC | create, 0o644)
    except OSError as error:
        raise _failed(target.path, "cannot be opened", error) from error
    with ExitStack() as stack:
        stack.callback(os.close, disk)
        pieces = stack.enter_context(closing(chunks(image.path)))
        done = unsynced = 0
        try:
            for piece in pieces:
                rest = memoryview(piece)
                while rest:
                    rest = rest[os.write(disk, rest) :]
                done += len(piece)
                unsynced += len(piece)
                if unsynced >= _SYNC_EVERY:
                    os.fdatasync(disk)
                    told(done, image.size)
                    unsynced = 0
            os.fsync(disk)
        except OSError as error:
            raise _failed(target.path, f"failed after {human_bytes(done)}", error) from error
        told(done, image.size)
        if not target.is_file:
            _ask_kernel(disk, _BLKRRPART)
    if done != image.size:
        raise ApplianceError(f"{image.path} has changed while it was written")


def _hash_on(path: Path, size: int, told: Told) -> str:
    """The SHA-256 of the first `size` bytes, from the medium and not from the cache."""
    content, done = hashlib.sha256(), 0
    with _opened_past_cache(path) as disk, mmap.mmap(-1, CHUNK) as buffer:
        try:
            while done < size:
                # The buffer is aligned to pages and the offset to CHUNK, as O_DIRECT wants it.
                count = os.preadv(disk, [buffer], done)
                if count == 0:
                    break
                wanted = min(count, size - done)
                content.update(memoryview(buffer)[:wanted])
                done += wanted
                told(done, size)
        except OSError as error:
            raise _failed(path, f"cannot be read back after {human_bytes(done)}", error) from error
    return content.hexdigest()


@contextmanager
def _opened_past_cache(path: Path) -> Iterator[int]:
    try:
        disk = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECT)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system without O_DIRECT, tmpfs for one
            raise _failed(path, "cannot be read back", error) from error
        disk = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _ask_kernel(disk, _BLKFLSBUF)
        os.posix_fadvise(disk, 0, 0, os.POSIX_FADV_DONTNEED)
        yield disk
    finally:
        os.close(disk)


def _settle(path: Path) -> None:
    """What mtools wrote is on the medium when this returns."""
    disk = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.fsync(disk)
    finally:
        os.close(disk)


def _ask_kernel(disk: int, request: int) -> None:
    """For block devices; a file, or a disk that is in use by force, cannot do it and need not."""
    with suppress(OSError):
        fcntl.ioctl(disk, request)


def _failed(path: Path, what: str, error: OSError) -> ApplianceError:
    hint = None
    if error.errno in (errno.EACCES, errno.EPERM):
        hint = "writing to a disk takes root: sudo"
    elif error.errno == errno.EBUSY:
        hint = "something has it open for itself; unmount it"
    elif error.errno == errno.EIO:
        hint = "the card or disk is broken, or was pulled out"
    return ApplianceError(f"{path} {what}: {(error.strerror or str(error)).lower()}", hint=hint)
