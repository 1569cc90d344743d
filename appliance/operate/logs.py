"""Structured logs: one JSON object a line, or a readable line on a terminal.

Our own loggers (`appliance…`) follow the declared level. Everybody else's speak from `warning` up,
as the event `library_message`, and not the same thing again and again.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, TextIO

from appliance.errors import ApplianceError
from appliance.events import FIELDS
from appliance.operate.safetext import describe, one_line, plain, protect

__all__ = ["FORMATS", "LEVELS", "configure", "protect"]

LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
FORMATS: Final = ("auto", "json", "text")

REPEAT_WINDOW: Final = 60.0  # seconds for which a library's message is not repeated
LIBRARY_BURST: Final = 20  # different messages of libraries at once; then one a second
_REMEMBERED: Final = 256  # different messages that we can tell apart
_MAX_TRACEBACK: Final = 16384  # characters; a recursion error can make a megabyte

_RESERVED: Final = frozenset({"t", "level", "event", "logger"})
_OURS: Final = "appliance"

_COLOURS: Final = {"debug": "2", "info": "32", "warning": "33", "error": "31", "critical": "31"}


def configure(
    level: str,
    fmt: str,
    stream: TextIO | None = None,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Send every log record of the process to `stream` (default: standard error).

    `level` is one of `LEVELS`, `fmt` one of `FORMATS`; `auto` means text on a terminal and JSON
    elsewhere. `clock` (seconds) is what the limits for libraries go by. May be called again; the
    last call counts. Raises ApplianceError.
    """
    if level not in LEVELS:
        raise ApplianceError(f"log.level: {level!r} is not one of {', '.join(LEVELS)}")
    if fmt not in FORMATS:
        raise ApplianceError(f"log.format: {fmt!r} is not one of {', '.join(FORMATS)}")
    out = sys.stderr if stream is None else stream
    as_text = fmt == "text" or (fmt == "auto" and _is_terminal(out))
    with_traceback = LEVELS[level] <= logging.DEBUG
    formatter: logging.Formatter
    if as_text:
        formatter = _TextFormatter(with_traceback, colours=_may_colour(out))
    else:
        formatter = _JsonFormatter(with_traceback)
    handler = _Handler(out)
    handler.setFormatter(formatter)
    handler.addFilter(_LibraryFilter(clock))

    root = logging.getLogger()
    for old in [h for h in root.handlers if isinstance(h, _Handler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger(_OURS).setLevel(LEVELS[level])
    # libp2p clears its logger's handlers on import and stops propagation: without this its
    # warnings would go to Python's handler of last resort, unformatted.
    logging.lastResort = handler
    logging.captureWarnings(True)


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except ValueError:  # closed
        return False


def _may_colour(stream: TextIO) -> bool:
    # https://no-color.org: any non-empty value switches colours off.
    return (
        _is_terminal(stream)
        and not os.environ.get("NO_COLOR")
        and os.environ.get("TERM", "dumb") != "dumb"
    )


class _Handler(logging.StreamHandler[TextIO]):
    """Writes and flushes; a log that cannot be written never hurts who logs."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name in the base
        error = sys.exc_info()[1]
        if isinstance(error, OSError) or self.stream.closed:
            return  # nobody is left to tell
        line = {
            "t": record.created,
            "level": "error",
            "event": "log_record_unreadable",
            "logger": one_line(record.name),
            "exception": type(error).__name__,
        }
        with contextlib.suppress(OSError, ValueError):
            self.stream.write(json.dumps(line) + "\n")


class _LibraryFilter(logging.Filter):
    """Lets our records pass; of the libraries' only warnings, deduplicated and rate limited.

    A message that repeats within `REPEAT_WINDOW` is counted, and the count goes out with its next
    appearance as `repeated`. Messages count as the same by logger and template, so that a peer who
    varies the arguments gains nothing.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__()
        self._clock = clock
        self._seen: OrderedDict[tuple[str, str], tuple[float, int]] = OrderedDict()
        self._tokens = float(LIBRARY_BURST)
        self._refilled = clock()

    def filter(self, record: logging.LogRecord) -> bool:
        if _is_ours(record):
            return True
        if record.levelno < logging.WARNING:
            return False
        now = self._clock()
        key = (record.name, str(record.msg)[:200])
        since, repeats = self._seen.get(key, (-REPEAT_WINDOW, 0))
        if now - since < REPEAT_WINDOW or not self._take_token(now):
            self._remember(key, since, repeats + 1)
            return False
        self._remember(key, now, 0)
        setattr(record, _REPEATED, repeats)
        return True

    def _take_token(self, now: float) -> bool:
        self._tokens = min(float(LIBRARY_BURST), self._tokens + now - self._refilled)
        self._refilled = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True

    def _remember(self, key: tuple[str, str], since: float, repeats: int) -> None:
        self._seen[key] = (since, repeats)
        self._seen.move_to_end(key)
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)


_REPEATED: Final = "appliance_repeated"


def _is_ours(record: logging.LogRecord) -> bool:
    return record.name == _OURS or record.name.startswith(_OURS + ".")


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError, KeyError):
        return str(record.msg)  # template and arguments do not fit: show the template


def _content(record: logging.LogRecord) -> tuple[str, dict[str, object]]:
    """Event name and fields, all of them safe to print."""
    fields: dict[str, object] = {}
    own = getattr(record, FIELDS, None)
    if not _is_ours(record):
        event = "library_message"
        fields["message"] = one_line(_message(record))
        if repeated := getattr(record, _REPEATED, 0):
            fields["repeated"] = repeated
    elif isinstance(own, dict):
        event = one_line(str(record.msg), 64)
        for name, value in own.items():
            fields[f"{name}_" if name in _RESERVED else str(name)] = plain(value)
    else:
        event = "message"
        fields["message"] = one_line(_message(record))
    if record.exc_info and record.exc_info[1] is not None:
        fields["exception"] = one_line(describe(record.exc_info[1]))
    return event, fields


def _traceback(record: logging.LogRecord) -> list[str]:
    if not record.exc_info or record.exc_info[1] is None:
        return []
    text = "".join(traceback.format_exception(record.exc_info[1]))[-_MAX_TRACEBACK:]
    return [one_line(line) for line in text.splitlines()]


class _JsonFormatter(logging.Formatter):
    def __init__(self, with_traceback: bool) -> None:
        super().__init__()
        self._with_traceback = with_traceback

    def format(self, record: logging.LogRecord) -> str:
        event, fields = _content(record)
        if self._with_traceback and (lines := _traceback(record)):
            fields["traceback"] = lines
        head = {
            "t": round(record.created, 6),
            "level": record.levelname.lower(),
            "event": event,
            "logger": record.name,
        }
        return json.dumps(head | fields, allow_nan=False)


class _TextFormatter(logging.Formatter):
    def __init__(self, with_traceback: bool, *, colours: bool) -> None:
        super().__init__()
        self._with_traceback = with_traceback
        self._colours = colours

    def format(self, record: logging.LogRecord) -> str:
        event, fields = _content(record)
        level = record.levelname.lower()
        at = time.strftime("%H:%M:%S", time.localtime(record.created))
        pairs = " ".join(f"{name}={_shown(value)}" for name, value in fields.items())
        if not _is_ours(record):
            pairs = f"{pairs} library={record.name}"
        line = f"{self._paint(level, f'{at} {level:<7}')} {event} {pairs}".rstrip()
        if self._with_traceback:
            line = "\n".join([line, *(f"    {text}" for text in _traceback(record))])
        return line

    def _paint(self, level: str, text: str) -> str:
        return f"\x1b[{_COLOURS.get(level, '0')}m{text}\x1b[0m" if self._colours else text


def _shown(value: object) -> str:
    if isinstance(value, str) and value and not set(value) & set(' "='):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
