"""Logs: what a reader, a script and a nosy eavesdropper find on standard error."""

from __future__ import annotations

import base64
import io
import json
import logging
import os
import pty
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import ApplianceError
from appliance.events import emit
from appliance.operate import logs, safetext
from appliance.reasons import Reason

OURS = logging.getLogger("appliance.tests.logs")


@pytest.fixture(autouse=True)
def _put_back() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("appliance")
    before = (root.handlers[:], root.level, ours.level, logging.lastResort)
    yield
    root.handlers[:], last = before[0], before[3]
    root.setLevel(before[1])
    ours.setLevel(before[2])
    logging.lastResort = last
    logging.captureWarnings(False)
    safetext.forget_secrets()


class StoppedClock:
    """A clock that goes on when a test says so, however slow the machine is."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def configured(
    level: str = "info", fmt: str = "json", clock: Callable[[], float] = time.monotonic
) -> io.StringIO:
    # pytest's own handlers would raise on what ours must survive.
    logging.getLogger().handlers.clear()
    # pytest also listens at loggers that do not propagate, as libp2p's once it was imported.
    logging.getLogger("libp2p").handlers.clear()
    stream = io.StringIO()
    logs.configure(level, fmt, stream, clock=clock)
    return stream


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_event_is_one_json_object_with_time_level_name_logger_and_fields() -> None:
    stream = configured()
    emit(OURS, logging.INFO, "kaspa_stream", peer="12D3", path="direct", bytes_in=7, ok=True)
    (line,) = lines(stream)
    assert isinstance(line.pop("t"), float)
    assert line == {
        "level": "info",
        "event": "kaspa_stream",
        "logger": "appliance.tests.logs",
        "peer": "12D3",
        "path": "direct",
        "bytes_in": 7,
        "ok": True,
    }


def test_reasons_exceptions_and_odd_values_become_plain_json() -> None:
    stream = configured()
    emit(
        OURS,
        logging.INFO,
        "refused",
        reason=Reason.CIRCUITS_FULL,
        error=ValueError("no\nway"),
        ratio=float("nan"),
        data=b"secret payload",
        t="mine",
        deep={"a": {"b": {"c": {"d": 1}}}},
        many=list(range(100)),
    )
    (line,) = lines(stream)
    assert line["reason"] == "circuits-full"
    assert line["error"] == "ValueError: no\\nway"
    assert line["ratio"] == "nan"
    assert line["data"] == "14 bytes"
    assert line["t_"] == "mine"
    assert isinstance(line["t"], float)
    assert line["deep"] == {"a": {"b": {"c": "…"}}}
    assert isinstance(line["many"], list)
    assert len(line["many"]) == 33


@pytest.mark.parametrize("fmt", ["json", "text"])
def test_text_from_a_peer_can_neither_forge_a_line_nor_steer_the_terminal(fmt: str) -> None:
    stream = configured(fmt=fmt)
    hostile = 'x\n{"event":"forged"}\x1b[2J\x07\x9b31m\u202e\u2028' + "A" * 100_000
    emit(OURS, logging.INFO, "kaspa_handshake", user_agent=hostile)
    text = stream.getvalue()
    assert len(text.splitlines()) == 1
    assert len(text) < 2000
    assert not set(text.rstrip("\n")) & set("\n\x1b\x07\x9b\u202e\u2028")


def test_levels_cut_ours_and_libraries_start_at_warning_even_at_debug() -> None:
    stream = configured("debug")
    emit(OURS, logging.DEBUG, "small_thing")
    logging.getLogger("h2.connection").info("chatter")
    logging.getLogger("h2.connection").warning("bad frame %d", 7)
    assert [line["event"] for line in lines(stream)] == ["small_thing", "library_message"]
    assert lines(stream)[1]["message"] == "bad frame 7"
    assert lines(stream)[1]["logger"] == "h2.connection"
    quiet = configured("error")
    emit(OURS, logging.WARNING, "unheard")
    emit(OURS, logging.ERROR, "heard")
    assert [line["event"] for line in lines(quiet)] == ["heard"]


def test_a_library_that_repeats_itself_is_heard_once() -> None:
    clock = StoppedClock()
    stream = configured(clock=clock)
    noisy = logging.getLogger("libp2p.noise")
    for number in range(1000):
        noisy.warning("handshake with %s failed", number)
    assert len(lines(stream)) == 1
    clock.now += logs.REPEAT_WINDOW
    noisy.warning("handshake with %s failed", "somebody")
    assert lines(stream)[1]["repeated"] == 999


def test_libraries_with_ever_new_messages_are_rate_limited() -> None:
    clock = StoppedClock()
    stream = configured(clock=clock)
    swarm = logging.getLogger("libp2p.swarm")
    news = [f"{number} is odd" for number in range(2000)]
    for message in news[:1000]:
        swarm.error(message)
    assert len(lines(stream)) == logs.LIBRARY_BURST
    clock.now += 3
    for message in news[1000:]:
        swarm.error(message)
    assert len(lines(stream)) == logs.LIBRARY_BURST + 3


def test_libp2p_is_heard_although_it_unhooks_its_logger() -> None:
    # What `import libp2p` does to its logger when LIBP2P_DEBUG is not set.
    library = logging.getLogger("libp2p")
    before = (library.handlers[:], library.propagate)
    try:
        stream = configured()
        library.handlers.clear()
        library.propagate = False
        logging.getLogger("libp2p.host").warning("something")
    finally:
        library.handlers[:], library.propagate = before
    assert [line["event"] for line in lines(stream)] == ["library_message"]


def test_a_message_that_does_not_fit_its_arguments_is_still_logged() -> None:
    stream = configured()
    logging.getLogger("trio").warning("%d files", "many")
    assert lines(stream)[0]["message"] == "%d files"


def test_an_exception_is_one_line_and_its_traceback_shows_only_at_debug() -> None:
    def fail() -> None:
        try:
            raise ExceptionGroup("tasks", [OSError("disk\ngone"), KeyError("k")])
        except ExceptionGroup:
            OURS.exception("store_failed", extra={"appliance_fields": {"path": "x"}})

    stream = configured("info")
    fail()
    (line,) = lines(stream)
    assert line["exception"] == "OSError: disk\\ngone; KeyError: 'k'"
    assert "traceback" not in line
    stream = configured("debug")
    fail()
    traceback = lines(stream)[0]["traceback"]
    assert isinstance(traceback, list)
    assert any("in fail" in text for text in traceback)


def test_a_broken_stream_does_not_hurt_who_logs() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", buffering=1) as stream:
        logs.configure("info", "json", stream)
        emit(OURS, logging.INFO, "into_the_void")
        try:
            stream.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), writer)
    emit(OURS, logging.INFO, "after_close")


@given(secret=st.binary(min_size=32, max_size=64), lead=st.binary(max_size=5), tail=st.binary())
def test_a_protected_key_never_appears(secret: bytes, lead: bytes, tail: bytes) -> None:
    logs.protect(secret)
    blob = lead + secret + tail[:8]
    try:
        stream = configured("debug")
        forms = [
            blob.hex(),
            blob.hex().upper(),
            base64.b64encode(blob).decode(),
            base64.urlsafe_b64encode(blob).decode(),
            repr(secret),
        ]
        for form in forms:
            emit(OURS, logging.INFO, "oops", key=form, nested={"k": [form]}, raw=blob)
            OURS.info("the key is %s", form)
            logging.getLogger("cryptography").error("bad key %s", form)
            try:
                raise ValueError(form)
            except ValueError as error:
                OURS.warning("failed: %s", error, exc_info=True)
        text = stream.getvalue()
    finally:
        safetext.forget_secrets()
    middle = len(secret) // 2
    assert secret.hex() not in text.lower()
    assert secret.hex()[middle:] not in text.lower()
    for coded in (base64.b64encode, base64.urlsafe_b64encode):
        assert coded(secret).decode().rstrip("=")[:-1] not in text
    assert repr(secret)[2:-1] not in text.replace("\\\\", "\\")


def test_a_short_secret_is_refused_rather_than_eating_every_line() -> None:
    with pytest.raises(ValueError, match="less than 16"):
        logs.protect(b"abc")


@pytest.mark.parametrize(("level", "fmt"), [("loud", "json"), ("info", "xml")])
def test_a_wrong_setting_is_one_sentence(level: str, fmt: str) -> None:
    with pytest.raises(ApplianceError, match="is not one of"):
        logs.configure(level, fmt)


PROGRAM = """
import logging
from appliance.events import emit
from appliance.operate import logs
logs.configure("info", "auto")
emit(logging.getLogger("appliance.x"), logging.WARNING, "role", effective="private", why="a b")
"""


def on_a_terminal(**environment: str) -> str:
    """What the program writes when standard error is a real (pseudo) terminal."""
    leader, follower = pty.openpty()
    env = {**os.environ, "TERM": "xterm", **environment}
    subprocess.run([sys.executable, "-c", PROGRAM], stderr=follower, env=env, check=True)
    os.close(follower)
    written = os.read(leader, 65536).decode()
    os.close(leader)
    return written


def test_auto_is_json_in_a_pipe() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], stderr=subprocess.PIPE, check=True, text=True
    )
    assert json.loads(done.stderr)["event"] == "role"


def test_auto_is_coloured_text_on_a_terminal_and_plain_with_no_color() -> None:
    os.environ.pop("NO_COLOR", None)
    coloured = on_a_terminal()
    assert "\x1b[33m" in coloured
    assert 'role effective=private why="a b"' in coloured
    assert "\x1b" not in on_a_terminal(NO_COLOR="1")
    assert "\x1b" not in on_a_terminal(TERM="dumb")
