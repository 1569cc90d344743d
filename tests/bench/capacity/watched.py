"""The appliance's command line; SIGUSR1 makes the daemon collect garbage and say how many tasks it
has, in a file beside its declaration. The kernel cannot tell what is garbage, and knows no tasks.

    .venv/bin/python -m tests.bench.capacity.watched run FILE
"""

from __future__ import annotations

import ctypes
import gc
import signal
import sys
from pathlib import Path

import trio

from appliance.cli.main import entry


def tell(*_: object) -> None:
    # Python runs this between two instructions of the main thread, inside the event loop.
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:  # musl has none
        trim(0)
    told = Path(sys.argv[-1]).with_suffix(".tasks")
    fresh = told.with_suffix(".fresh")
    fresh.write_text(str(trio.lowlevel.current_statistics().tasks_living))
    fresh.replace(told)


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, tell)
    entry()
