"""A process that is inside its limits before it becomes the program."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, Final

import trio

from tests.bench.capacity.cgroup import Group

ROOT: Final = Path(__file__).parents[3]
_ENTER: Final = """
test -z "$1" || echo $$ > "$1"
test -z "$2" || ulimit -n "$2"
shift 2
exec "$@"
"""


def environment() -> dict[str, str]:
    """Ours, without what would lead an appliance to somebody else's state."""
    hidden = ("STATE_DIRECTORY", "APPLIANCE_SOCKET", "NOTIFY_SOCKET", "WATCHDOG_USEC")
    env = {name: value for name, value in os.environ.items() if name not in hidden}
    return {**env, "PYTHONPATH": str(ROOT)}


@asynccontextmanager
async def limited(
    command: Sequence[str],
    group: Group | str,
    *,
    nofile: int | None = None,
    stderr: IO[bytes] | None = None,
) -> AsyncIterator[trio.Process]:
    """The program in `group` (if that is one) with so many open files, its standard input and
    output ours. At the end it is gone, whatever happened."""
    procs = "" if isinstance(group, str) else str(group.procs)
    files = "" if nofile is None else str(nofile)
    process = await trio.lowlevel.open_process(
        ["sh", "-c", _ENTER, "sh", procs, files, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        env=environment(),
    )
    try:
        yield process
    finally:
        with trio.CancelScope(shield=True):
            if process.returncode is None:
                process.kill()
            await process.wait()
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                await pipe.aclose()
