"""A world of its own for each run: made by the kernel, and removed by the kernel.

Three processes stand one in the other:

- the *outer* one (`run`) starts the launcher, reads what comes out, and changes nothing itself;
- the *launcher* (`python -m appliance.lab.world`) steps into new namespaces and waits;
- the *init* process, its child, is process 1 of the new world and plays the scenario.

When init ends, however it ends, the kernel kills every process of the world and drops its network
namespaces, mounts and the tmpfs that holds all its files. Init dies with the launcher and the
launcher with the outer process (`PR_SET_PDEATHSIG`), so not even SIGKILL leaves anything behind.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import appliance
from appliance.errors import ApplianceError
from appliance.lab import kernel

# A result with all its events is a few hundred KiB.
_MAX_OUTPUT_LINE: Final = 16 * 1024 * 1024
_SCRATCH_SIZE: Final = "512m"
# Empty or unimportant on nearly every system; the first that hides nothing we need is covered.
_SCRATCH_PLACES: Final = ("/mnt", "/media", "/srv", "/opt", "/run")
_GRACE: Final = 5.0
_BY_SIGNAL: Final = 128  # what shells add to the number of the signal that ended a process

Message = dict[str, Any]
Send = Callable[[Message], None]


class WorldFailed(ApplianceError):
    """The world ended without an answer; says how."""


# --- outside


def run(
    target: str, order: Message, on_message: Callable[[Message], None], limit: float
) -> Message:
    """Call `target` ("module:function", taking the order and a `Send`) in a new world.

    Returns what it returns; passes what it sends to `on_message`. Raises ApplianceError when the
    world cannot be made or the function raised one, WorldFailed when it ended otherwise or took
    longer than `limit` seconds. The world is gone in every case, also after KeyboardInterrupt.
    """
    package_root = str(Path(appliance.__file__).parent.parent)
    path = os.pathsep.join(filter(None, [package_root, os.environ.get("PYTHONPATH", "")]))
    process = subprocess.Popen(
        [sys.executable, "-m", "appliance.lab.world", target, json.dumps(order)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
        # Ctrl-C in the terminal is for us alone; we end the world.
        start_new_session=True,
    )
    try:
        return _listen(process, on_message, time.monotonic() + limit)
    finally:
        _end(process)


def _listen(
    process: subprocess.Popen[bytes], on_message: Callable[[Message], None], deadline: float
) -> Message:
    assert process.stdout is not None
    pending = bytearray()
    while True:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([process.stdout], [], [], left)[0]:
            raise WorldFailed("the laboratory did not end in time and was stopped")
        data = os.read(process.stdout.fileno(), 65536)
        if not data:
            code = process.wait()
            signalled = -code if code < 0 else code - _BY_SIGNAL
            how = f"signal {signalled}" if signalled > 0 else f"exit code {code}"
            raise WorldFailed(f"the laboratory's world ended without a result ({how})")
        pending += data
        while (end := pending.find(b"\n")) >= 0:
            message = json.loads(pending[:end])
            del pending[: end + 1]
            if message["kind"] == "result":
                result: Message = message["result"]
                return result
            if message["kind"] == "error":
                raise ApplianceError(message["message"], hint=message["hint"])
            on_message(message)
        if len(pending) > _MAX_OUTPUT_LINE:
            raise WorldFailed("the laboratory said more than can be taken in")


def _end(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()  # the launcher takes it as the order to end
    try:
        process.wait(_GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()


# --- the launcher


def _step_out() -> None:
    """Leave for new namespaces; the next child is process 1. Raises ApplianceError."""
    flags = (
        kernel.CLONE_NEWNS
        | kernel.CLONE_NEWNET
        | kernel.CLONE_NEWPID
        | kernel.CLONE_NEWIPC
        | kernel.CLONE_NEWUTS
    )
    own_user = not kernel.may_make_namespaces()
    uid, gid = os.geteuid(), os.getegid()
    try:
        kernel.unshare(flags | (kernel.CLONE_NEWUSER if own_user else 0))
        if own_user:
            # A user may map only itself, and only after giving up setgroups (user_namespaces(7)).
            Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
            Path("/proc/self/uid_map").write_text(f"0 {uid} 1", encoding="ascii")
            Path("/proc/self/gid_map").write_text(f"0 {gid} 1", encoding="ascii")
        kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    except OSError as error:
        what = "user namespaces" if own_user else "namespaces"
        raise ApplianceError(
            f"this system does not let us make {what} ({error.strerror})",
            hint="run it as root; inside a container, one that may unshare (--privileged)",
        ) from error


def _send(message: Message) -> None:
    # One write for a line: init and launcher share the pipe, but never speak at the same time.
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def _fail(error: ApplianceError) -> int:
    _send({"kind": "error", "message": error.message, "hint": error.hint})
    return 1


def _guard(child: int) -> int:
    """Wait for init; kill it when the outer process closes our standard input."""
    ended, _, _ = select.select([os.pidfd_open(child), sys.stdin], [], [])
    if sys.stdin in ended:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else _BY_SIGNAL - code


def main() -> int:
    """Entry of the launcher; after the fork also of init, which leaves by `os._exit`."""
    kernel.die_with_parent()
    target, order = sys.argv[1], json.loads(sys.argv[2])
    try:
        _step_out()
    except ApplianceError as error:
        return _fail(error)
    child = os.fork()
    if child:
        return _guard(child)
    code = 1
    try:
        code = _init(target, order)
    finally:
        if sys.exc_info()[0] is not None:
            traceback.print_exc()  # a defect of ours: nobody above is left to show it
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


# --- init


def _scratch_place() -> str:
    needed = [
        Path(path).resolve() for path in (sys.prefix, sys.base_prefix, appliance.__file__, ".")
    ]
    for place in map(Path, _SCRATCH_PLACES):
        if place.is_dir() and not any(path.is_relative_to(place) for path in needed):
            return str(place)
    raise ApplianceError("no directory is free to hold the laboratory's temporary files")


def _init(target: str, order: Message) -> int:
    kernel.die_with_parent()
    if select.select([sys.stdin], [], [], 0)[0]:
        return 1  # the outer process ended before we asked to die with it
    try:
        try:
            kernel.mount(
                "proc", "/proc", "proc", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
            )
            scratch = _scratch_place()
            kernel.mount(
                "lab", scratch, "tmpfs", kernel.MS_NOSUID, f"mode=0755,size={_SCRATCH_SIZE}"
            )
        except OSError as error:
            raise ApplianceError(
                f"this system does not let us mount in namespaces of our own ({error})",
                hint="run it as root; inside a container, one that may mount (--privileged)",
            ) from error
        module, _, function = target.partition(":")
        call = getattr(importlib.import_module(module), function)
        result = call({**order, "scratch": scratch}, _send)
    except ApplianceError as error:
        return _fail(error)
    _send({"kind": "result", "result": result})
    return 0


if __name__ == "__main__":
    sys.exit(main())
