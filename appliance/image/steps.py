"""The steps of a build: shown, logged, and every process they start ended with them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TextIO

from appliance.errors import ApplianceError

_SHOWN: Final = 78
_TAIL: Final = 12
"""Lines of a failed program's output that are shown."""

_CHUNK: Final = 1 << 16


class Steps:
    """Shows which step of how many runs, and keeps what the programs print in one log file.

    On a terminal one line is rewritten with the program's latest line; elsewhere each step is one
    line when it begins and one when it ends.
    """

    def __init__(self, log: Path, total: int, stream: TextIO | None = None) -> None:
        self.log = log
        self._total = total
        self._stream = sys.stderr if stream is None else stream
        self._live = self._stream.isatty() and os.environ.get("TERM") != "dumb"
        self._number = 0
        self.seconds: dict[str, float] = {}
        """How long each step took, for the report at the end."""
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("", encoding="utf-8")

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        self._number += 1
        head = f"[{self._number}/{self._total}] {what}"
        self._note(f"\n=== {head}\n")
        stop = threading.Event()
        begun = time.monotonic()
        if self._live:
            watcher = threading.Thread(target=self._watch, args=(head, begun, stop), daemon=True)
            watcher.start()
        else:
            self._say(f"{head} …")
        try:
            yield
        finally:
            stop.set()
            if self._live:
                watcher.join()
        took = time.monotonic() - begun
        self.seconds[what] = round(took, 1)
        if self._live:
            self._say(f"\r\x1b[K{head}: {took:.0f} s")
        else:
            self._say(f"{head}: {took:.0f} s")

    def note(self, text: str) -> None:
        """A line for the person who waits, and for the log."""
        self._note(f"{text}\n")
        self._say(f"\r\x1b[K  {text}" if self._live else f"  {text}")

    def run(
        self,
        command: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        feed: str | None = None,
        cwd: Path | None = None,
    ) -> str:
        """Run to the end; what it prints goes to the log. Returns its standard output.

        Raises ApplianceError when it fails or is not there. Interrupted, it is killed and awaited
        before the exception leaves.
        """
        words = [str(word) for word in command]
        self._note(f"+ {' '.join(words)}\n")
        said = bytearray()
        with self.log.open("ab", buffering=0) as log:
            mark = log.tell()
            try:
                process = subprocess.Popen(
                    words,
                    stdin=subprocess.PIPE if feed is not None else subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    env=None if env is None else {**os.environ, **env},
                    cwd=cwd,
                    umask=0o022,  # what is made must not depend on who makes it
                )
            except FileNotFoundError as error:
                raise ApplianceError(f"there is no program {words[0]} here") from error
            with process:
                try:
                    if feed is not None:
                        said += process.communicate(feed.encode())[0]
                        log.write(said)
                    elif process.stdout is not None:
                        # As it comes: who waits for it sees the latest line.
                        while more := os.read(process.stdout.fileno(), _CHUNK):
                            said += more
                            log.write(more)
                    process.wait()
                except BaseException:  # Ctrl-C too: no program outlives its build
                    process.kill()
                    process.wait()
                    raise
        if process.returncode != 0:
            raise self._failure(words, process.returncode, mark)
        return said.decode(errors="replace")

    def _failure(self, words: Sequence[str], code: int, mark: int) -> ApplianceError:
        with self.log.open("rb") as log:
            log.seek(mark)
            lines = log.read().decode(errors="replace").split("\n")
        told = [line.strip() for line in lines if line.strip()][-_TAIL:]
        for line in told:
            self._say(f"  | {line}")
        return ApplianceError(
            f"{program(words)} failed with exit code {code}",
            hint=f"the whole output is in {self.log}",
        )

    def _watch(self, head: str, begun: float, stop: threading.Event) -> None:
        while not stop.wait(0.5):
            with self.log.open("rb") as log:
                log.seek(max(0, self.log.stat().st_size - 400))
                lines = log.read().decode(errors="replace").replace("\r", "\n").split("\n")
            last = next((line.strip() for line in reversed(lines) if line.strip()), "")
            printable = "".join(char for char in last if char.isprintable())
            text = f"{head} ({time.monotonic() - begun:.0f} s) {printable}"
            self._stream.write(f"\r\x1b[K{text[:_SHOWN]}")
            self._stream.flush()

    def _note(self, text: str) -> None:
        with self.log.open("a", encoding="utf-8") as log:
            log.write(text)

    def _say(self, text: str) -> None:
        self._stream.write(f"{text}\n")
        self._stream.flush()


def program(words: Sequence[str]) -> str:
    """The program that a command is about, past the wrappers that `chamber` puts in front."""
    rest = list(words)
    if "--" in rest and Path(rest[0]).name in ("setpriv", "unshare"):
        # … -- sh -c SCRIPT chamber ROOT COUNT BINDS… [env -i NAME=VALUE…] PROGRAM …
        rest = rest[rest.index("--") + 1 :]
        if "chamber" in rest:
            rest = rest[rest.index("chamber") + 1 :]
            rest = rest[2 + int(rest[1]) :]
        if rest[:2] == ["env", "-i"]:
            rest = [word for word in rest[2:] if "=" not in word or word.startswith("-")]
    return Path(rest[0]).name if rest else "a program"
