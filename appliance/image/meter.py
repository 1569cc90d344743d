"""Progress of long work: one line that is written over on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from typing import Final, TextIO

from appliance.units import human_bytes, human_seconds

_EVERY: Final = 0.2  # seconds between two drawings on a terminal
_TENTHS: Final = 10


class Meter:
    """Called with what is done and the whole, in bytes; tells a line at most every tenth."""

    def __init__(self, what: str, stream: TextIO) -> None:
        self._what = what
        self._stream = stream
        self._terminal = stream.isatty()
        self._began = time.monotonic()
        self._drawn = 0.0
        self._tenth = 0

    def __call__(self, done: int, whole: int) -> None:
        now, finished = time.monotonic(), done >= whole
        if self._terminal:
            if finished or now - self._drawn >= _EVERY:
                self._drawn = now
                end = "\n" if finished else ""
                self._stream.write(f"\r\x1b[K{self._line(done, whole, now)}{end}")
                self._stream.flush()
            return
        tenth = done * _TENTHS // whole if whole else _TENTHS
        if tenth > self._tenth:
            self._tenth = tenth
            print(self._line(done, whole, now), file=self._stream, flush=True)

    def _line(self, done: int, whole: int, now: float) -> str:
        took = now - self._began
        line = f"{self._what}: {done * 100 // max(whole, 1)} % of {human_bytes(whole)}"
        if done and took > 1:
            left = took * (whole - done) / done
            line += f", {human_bytes(int(done / took))}/s"
            line += f", {human_seconds(left)} left" if done < whole else ""
        return line
