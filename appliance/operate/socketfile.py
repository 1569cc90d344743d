"""The file of a listening Unix socket: one owner, the right mode from its first moment on."""

from __future__ import annotations

import contextlib
import fcntl
import grp
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final

from appliance.errors import ApplianceError

_MAX_NAME: Final = 107  # bytes of sun_path without its NUL, unix(7)
_BACKLOG: Final = 16


@contextlib.contextmanager
def reachable_name(path: Path) -> Iterator[str]:
    """A name of `path` that fits into a socket address, valid inside the `with`.

    Raises OSError if `path` is too long and its directory cannot be opened.
    """
    if len(os.fsencode(path)) <= _MAX_NAME:
        yield str(path)
        return
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


class SocketFile:
    """`with SocketFile(path, group) as listening:` – a listening, non-inheritable stdlib socket.

    Whoever holds the lock file beside it owns the socket's file; a process that dies lets go of it.
    The socket is bound and listening under another name before it takes its own by a rename, so
    that nobody ever meets one with a wrong mode or one that refuses. Raises ApplianceError.
    """

    def __init__(self, path: Path, group: str | None) -> None:
        self._path = path
        self._group = group
        self._lock = path.with_name(f".{path.name}.lock")
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> socket.socket:
        gid = _group_id(self._group)
        with contextlib.ExitStack() as stack:
            try:
                _check_directory(self._path.parent)
                stack.enter_context(self._locked())
                self._check_place()
                listening = stack.enter_context(self._listening(gid))
            except OSError as error:
                raise ApplianceError(
                    f"the control socket {self._path} cannot be made: {error.strerror}",
                    hint="set control.socket to a place that this user may write to",
                ) from None
            self._stack = stack.pop_all()
        return listening

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        while True:
            lock = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                raise self._taken() from None
            if _same_file(os.fstat(lock), self._lock):
                break
            os.close(lock)  # its owner removed the file between our two calls: try the new one
        try:
            yield
        finally:
            self._lock.unlink(missing_ok=True)  # still locked: nobody else can believe in it
            os.close(lock)

    def _taken(self) -> ApplianceError:
        return ApplianceError(
            "another appliance is running with this state directory",
            hint=f"look at it with `appliance status --socket {self._path}`, or stop it first",
        )

    def _check_place(self) -> None:
        try:
            mode = self._path.lstat().st_mode
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(mode):
            raise ApplianceError(
                f"{self._path} is in the way of the control socket and is not a socket",
                hint="move it away, or set control.socket to another place",
            )
        with reachable_name(self._path) as name, socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)
            try:
                probe.connect(name)
            except (ConnectionRefusedError, FileNotFoundError):
                return  # left by a dead process
            except BlockingIOError:
                pass  # alive, with a full backlog
        raise self._taken()

    @contextlib.contextmanager
    def _listening(self, gid: int | None) -> Iterator[socket.socket]:
        temporary = self._path.with_name(f".{self._path.name}.new")
        temporary.unlink(missing_ok=True)  # we hold the lock: a dead process left it
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
            # Linux gives the file the mode of the socket's inode, less the umask.
            os.fchmod(listening.fileno(), 0o600)
            try:
                with reachable_name(temporary) as name:
                    listening.bind(name)
                if gid is not None:
                    self._share(temporary, gid)
                listening.listen(_BACKLOG)
                temporary.rename(self._path)
            finally:
                temporary.unlink(missing_ok=True)
            ours = self._path.lstat()
            try:
                yield listening
            finally:
                if _same_file(ours, self._path):
                    self._path.unlink(missing_ok=True)

    def _share(self, path: Path, gid: int) -> None:
        try:
            if path.lstat().st_gid != gid:  # a unit's sandbox may forbid even a needless change
                os.chown(path, -1, gid)
        except PermissionError:
            raise ApplianceError(
                f"control.group: this user may not give files to the group {self._group!r}",
                hint="make the user that runs the appliance a member of that group",
            ) from None
        path.chmod(0o660)


def _group_id(group: str | None) -> int | None:
    if group is None:
        return None
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise ApplianceError(
            f"control.group: there is no group {group!r} on this machine"
        ) from None


def _check_directory(directory: Path) -> None:
    mode = directory.stat().st_mode
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        raise ApplianceError(
            f"everybody may write to {directory}, so that anybody could replace the control socket",
            hint=f"chmod o-w {directory}, or set control.socket to another place",
        )


def _same_file(known: os.stat_result, path: Path) -> bool:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    return (known.st_dev, known.st_ino) == (found.st_dev, found.st_ino)
