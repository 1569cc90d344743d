"""A file's text replaced in one step, with the old text kept beside it."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from pathlib import Path

from appliance.errors import ApplianceError


def replace(path: Path, old: bytes, new: bytes, backup: Path) -> None:
    """`path` holds `new`, `backup` the file as it was; or, after an error, nothing has changed.

    Mode and owner are kept. `old` is what the caller read: a file that has changed since is left
    alone, and so is a backup that holds anything else. Raises ApplianceError.
    """
    temporary = ""
    try:
        before = path.stat()
        if not stat.S_ISREG(before.st_mode):
            raise ApplianceError(f"{path}: is not a regular file", hint="--stdout prints the text")
        temporary = _written(path, new, before)
        if path.read_bytes() != old:
            raise ApplianceError(f"{path}: somebody changed it just now; nothing was written")
        made = _keep(path, old, backup)
        try:
            Path(temporary).replace(path)
        except OSError:
            if made:
                backup.unlink()
            raise
        temporary = ""
        _sync(path.parent)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise ApplianceError(
            f"{path}: cannot be rewritten: {why}",
            hint=f"{path.parent} must be writable; --stdout prints the text instead",
        ) from None
    finally:
        if temporary:
            Path(temporary).unlink(missing_ok=True)


def _written(path: Path, data: bytes, like: os.stat_result) -> str:
    """A file beside `path` with `data` in it, on the disk, its mode and owner those of `like`."""
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            ours = os.fstat(descriptor)
            if (ours.st_uid, ours.st_gid) != (like.st_uid, like.st_gid):
                os.fchown(descriptor, like.st_uid, like.st_gid)
            os.fchmod(descriptor, stat.S_IMODE(like.st_mode))
            file.flush()
            os.fsync(descriptor)
    except BaseException:  # Ctrl-C too: no half-written file stays
        Path(temporary).unlink(missing_ok=True)
        raise
    return temporary


def _keep(path: Path, old: bytes, backup: Path) -> bool:
    """The file under its second name; False if an earlier attempt left it there already."""
    try:
        # The very file: mode, owner and times stay with it once the name is another's.
        os.link(path, backup)
    except FileExistsError:
        with contextlib.suppress(OSError):
            if backup.read_bytes() == old:
                return False
        raise ApplianceError(
            f"{backup}: is there already, and holds something else; nothing was written",
            hint="move it away",
        ) from None
    except OSError:  # a file system without links, like that of many memory cards
        with backup.open("xb") as file:
            file.write(old)
            file.flush()
            os.fsync(file.fileno())
    return True


def _sync(directory: Path) -> None:
    """Without it the new name may not survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
