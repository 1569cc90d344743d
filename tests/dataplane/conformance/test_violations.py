"""Frames that no peer may send: each ends the connection, with a word to the peer."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock

from appliance.errors import StreamReset
from appliance.reasons import Reason
from tests.dataplane.conformance.muxers import Defect, Subject, subjects
from tests.dataplane.conformance.wire import (
    ACK,
    FIN,
    GO_AWAY,
    INITIAL_WINDOW,
    PING,
    RST,
    SYN,
    Frame,
    Wire,
    data,
    update,
)


def foreign(wire: Wire) -> int:
    """An id that only the muxer under test may open."""
    return wire.new_id() + 1001


VIOLATIONS: dict[str, Callable[[Wire], list[Frame]]] = {
    "another version": lambda _: [Frame(PING, SYN, 0, version=1)],
    "an unknown kind": lambda _: [Frame(GO_AWAY + 1, 0, 0)],
    "an unknown flag": lambda w: [update(w.new_id(), SYN | 0x10)],
    "a ping on a stream": lambda w: [Frame(PING, SYN, w.new_id())],
    "a ping that asks and answers": lambda _: [Frame(PING, SYN | ACK, 0)],
    "a go-away on a stream": lambda w: [Frame(GO_AWAY, 0, w.new_id())],
    "payload on stream 0": lambda _: [data(0, b"x")],
    "stream 0 is opened": lambda _: [update(0, SYN)],
    "an id of the wrong parity": lambda w: [update(foreign(w), SYN)],
    "an id opened twice": lambda w: [update(w.new_id(), SYN)] * 2,
    "payload of no stream": lambda w: [data(w.new_id() + 100, b"x")],
    "a window of no stream": lambda w: [update(w.new_id() + 100, 0, 1)],
    "an end of no stream": lambda w: [update(w.new_id() + 100, FIN)],
    "a reset of no stream": lambda w: [update(foreign(w), RST)],
    "payload beyond the window": lambda w: [data(w.new_id(), bytes(INITIAL_WINDOW + 1), SYN)],
    "a window that overflows": lambda w: [
        update(stream := w.new_id(), SYN, 0xFFFF_FFFF),
        update(stream, 0, 0xFFFF_FFFF),
    ],
    "payload behind the end": lambda w: [
        data(stream := w.new_id(), b"x", SYN | FIN),
        data(stream, b"x"),
    ],
}


@subjects(stock=Defect.UNCHECKED)
@pytest.mark.parametrize("frames", VIOLATIONS.values(), ids=VIOLATIONS)
async def test_a_violation_ends_the_connection(
    autojump_clock: MockClock, subject: Subject, frames: Callable[[Wire], list[Frame]]
) -> None:
    async with subject.wired() as (end, wire):
        ours = end.session.open_stream()
        await wire.syn()
        await wire.send(*frames(wire))
        with trio.fail_after(5):
            assert (await wire.heard(GO_AWAY)).length == 1
            await end.ended.wait()
        assert end.reason is Reason.YAMUX_VIOLATION
        with pytest.raises(StreamReset):
            await ours.receive_some()
