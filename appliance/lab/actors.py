"""The processes of a run: started inside a host's namespace, read line by line, ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import trio

import appliance
from appliance.lab.journal import Journal
from appliance.lab.kernel import NetNamespace

# Longer lines are cut; nothing that we log comes near it.
_MAX_LINE: Final = 64 * 1024
_TAIL_LINES: Final = 30
# What a service manager or a developer's shell may have set and a lab host must not see.
_PRIVATE_TO_US: Final = ("NOTIFY_SOCKET", "STATE_DIRECTORY", "WATCHDOG_USEC", "LISTEN_FDS")


def environment(home: Path) -> dict[str, str]:
    """What a lab process gets to see: ours, with its own home and temporary directory."""
    kept = {key: value for key, value in os.environ.items() if key not in _PRIVATE_TO_US}
    package_root = str(Path(appliance.__file__).parent.parent)
    path = os.pathsep.join(filter(None, [package_root, kept.get("PYTHONPATH", "")]))
    return {
        **kept,
        "HOME": str(home),
        "TMPDIR": str(home),
        "PYTHONPATH": path,
        "PYTHONUNBUFFERED": "1",
        "NO_COLOR": "1",
    }


@dataclass(slots=True)
class Actor:
    """One program on one host; may be started, killed and started again."""

    who: str
    namespace: NetNamespace
    arguments: Sequence[str]  # of `python -m appliance`
    home: Path
    log: Path
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=_TAIL_LINES))
    exit_codes: list[int] = field(default_factory=list)
    _process: subprocess.Popen[bytes] | None = None
    _gone: trio.Event = field(default_factory=trio.Event)

    def launch(self, journal: Journal) -> None:
        """Start the program; `watch` must follow at once."""
        # Popen and not trio's, which starts from a thread: namespaces belong to threads.
        with self.namespace.entered():
            self._process = subprocess.Popen(
                [sys.executable, "-m", "appliance", *self.arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd=self.home,
                env=environment(self.home),
            )
        self._gone = trio.Event()
        journal.process_started(self.who)

    async def watch(self, journal: Journal) -> None:
        """Its lines go to the journal, the tail and the log; returns when it ended.

        Cancelled: the process is killed.
        """
        process = self._process
        assert process is not None
        assert process.stdout is not None
        try:
            # The stream closes its descriptor itself.
            async with trio.lowlevel.FdStream(os.dup(process.stdout.fileno())) as lines:
                process.stdout.close()
                await self._read(lines, journal)
            await _wait(process)
        finally:
            process.kill()
            process.wait()
            self.exit_codes.append(process.returncode)
            self._gone.set()
            last_line = self.tail[-1] if self.tail else ""
            journal.process_ended(self.who, _how_it_ended(process.returncode, last_line))

    async def _read(self, stream: trio.lowlevel.FdStream, journal: Journal) -> None:
        pending = bytearray()
        with self.log.open("ab") as log:
            async for data in stream:
                log.write(data)
                log.flush()
                pending += data
                *lines, rest = pending.split(b"\n")
                for line in lines:
                    self._take(bytes(line), journal)
                pending = bytearray(rest[:_MAX_LINE])
        if pending:
            self._take(bytes(pending), journal)

    def _take(self, line: bytes, journal: Journal) -> None:
        journal.add_line(self.who, line)
        self.tail.append(line.decode(errors="replace"))

    async def end(self, how: signal.Signals, within: float) -> bool:
        """Signal it and wait until it is gone; False when it had to be killed after `within`."""
        if self._process is None or self._gone.is_set():
            return True
        self._process.send_signal(how)
        with trio.move_on_after(within) as patience:
            await self._gone.wait()
        if patience.cancelled_caught:
            self._process.kill()
            await self._gone.wait()
        return not patience.cancelled_caught

    def usage(self) -> dict[str, float]:
        """Memory (MB) and CPU (s) that it has used so far; empty when it does not run."""
        if self._process is None or self._gone.is_set():
            return {}
        proc = Path(f"/proc/{self._process.pid}")
        try:
            status = (proc / "status").read_text(encoding="utf-8")
            times = (proc / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:
            return {}  # it ended this moment
        peak = next((row.split()[1] for row in status.splitlines() if row.startswith("VmHWM")), 0)
        # proc(5): utime and stime are fields 14 and 15, the name is field 2.
        ticks = int(times[11]) + int(times[12])
        return {
            "peak_rss_mb": round(int(peak) / 1024, 1),
            "cpu_s": round(ticks / os.sysconf("SC_CLK_TCK"), 2),
        }


async def _wait(process: subprocess.Popen[bytes]) -> None:
    handle = os.pidfd_open(process.pid)
    try:
        await trio.lowlevel.wait_readable(handle)
    finally:
        os.close(handle)


def _how_it_ended(code: int, last_line: str) -> str:
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended with exit code {code}" + (f": {last_line.strip()}" if last_line else "")
