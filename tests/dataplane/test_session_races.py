"""Two things at once: ends, violations, pauses and full carriers in each other's way."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock

from appliance.dataplane.channel import CipherState, SecureChannel
from appliance.dataplane.secure import SecureStream
from appliance.dataplane.session import MuxStream, Session
from appliance.dataplane.streams import BATCH
from appliance.dataplane.windows import INITIAL_WINDOW
from appliance.errors import StreamReset
from appliance.reasons import Reason
from appliance.units import KIB, MIB
from tests.dataplane.carriers import carrier_pair
from tests.dataplane.frames import DATA, FIN, RST, SYN, data, frame, window
from tests.dataplane.sessions import (
    End,
    assert_over,
    outcome_of,
    read_to_end,
    settle,
    stream_pair,
    two_ends,
)

PAYLOAD = random.Random(5).randbytes(3 * MIB)


VIOLATION = frame(DATA, 0, 9, 1)


# --- the reason of the end


async def test_a_violator_that_hangs_up_is_a_violator_all_the_same(
    autojump_clock: MockClock,
) -> None:
    carrier, raw = carrier_pair()
    end = End(carrier, Session(carrier, client=True))
    await raw.send_all(VIOLATION)
    carrier._out.reset = True  # our last words find nobody
    await end.run()
    assert end.reason is Reason.YAMUX_VIOLATION
    assert end.session.closed_detail == "stream 9 was never opened"
    assert_over(end.session)


@pytest.mark.parametrize("something_to_send", [False, True])
@pytest.mark.parametrize("full", [False, True])
async def test_bytes_that_do_not_authenticate_end_it_as_a_noise_violation(
    autojump_clock: MockClock, something_to_send: bool, full: bool
) -> None:
    keys = CipherState(bytes(32)), CipherState(bytes([1]) * 32)
    carrier, raw = carrier_pair(capacity=10 if full else 1 << 30)
    peer = SecureChannel(CipherState(bytes([1]) * 32), CipherState(bytes(32)))
    session = Session(SecureStream(carrier, SecureChannel(*keys)), client=False)
    got: list[MuxStream] = []
    sealed = memoryview(bytearray(BATCH + KIB))
    plain = data(1, bytes(INITIAL_WINDOW - 100), SYN)
    hello = bytes(sealed[: peer.seal(memoryview(plain), sealed)])
    async with trio.open_nursery() as nursery:
        reasons: list[Reason] = []

        async def run() -> None:
            reasons.append(await session.run(got.append))

        nursery.start_soon(run)
        raw._out.capacity = 1 << 30
        await raw.send_all(hello)
        await settle()
        if something_to_send:
            # A driver used up what came and has not flushed yet: there is a window to grant.
            got[0].receive_nowait(memoryview(bytearray(BATCH)))
        await raw.send_all(b"\x00\x20" + bytes(32))
    assert reasons == [Reason.NOISE_VIOLATION] and carrier.was_reset
    assert session.closed_detail == "noise message does not authenticate"
    assert_over(session)


async def test_a_violation_during_a_goodbye_ends_the_wait(autojump_clock: MockClock) -> None:
    """Both the goodbye and the last words wait until the carrier has taken everything."""
    carrier, raw = carrier_pair(capacity=10)
    raw._out.capacity = 1 << 30
    end = End(carrier, Session(carrier, client=True))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(end.run)
        async with outcome_of(lambda: end.session.close(Reason.SHUTTING_DOWN, patience=30)):
            await raw.send_all(VIOLATION)
        assert trio.current_time() < 5
    assert end.reason is Reason.YAMUX_VIOLATION


async def test_a_peer_that_hangs_up_during_our_goodbye_does_not_change_its_reason(
    autojump_clock: MockClock,
) -> None:
    carrier, raw = carrier_pair(capacity=10)
    end = End(carrier, Session(carrier, client=True))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(end.run)
        async with outcome_of(lambda: end.session.close(Reason.SHUTTING_DOWN, patience=30)):
            await raw.send_eof()
        assert trio.current_time() < 1
    assert end.reason is Reason.SHUTTING_DOWN


# --- while it ends


@pytest.mark.parametrize("after", range(8))
async def test_opening_streams_while_the_connection_ends_is_an_ordinary_failure(
    autojump_clock: MockClock, after: int
) -> None:
    carrier, raw = carrier_pair()
    end = End(carrier, Session(carrier, client=True))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(end.run)
        await settle()
        carrier._out.capacity = 0  # the next frame finds the carrier full
        await raw.send_eof()
        await settle(after)
        try:
            stream = end.session.open_stream()
            with pytest.raises(StreamReset):
                await stream.receive_some()
        except StreamReset:
            assert end.session.closed.is_set()
    assert end.reason is Reason.CONNECTION_LOST
    assert_over(end.session)


async def test_streams_that_come_with_the_end_are_not_forgotten(autojump_clock: MockClock) -> None:
    """The owner gives up on the connection when it sees the first of two streams in one read."""
    carrier, raw = carrier_pair()
    session = Session(carrier, client=False)
    got: list[MuxStream] = []

    def give_up(stream: MuxStream) -> None:
        got.append(stream)
        session.abort(Reason.IDLE)

    await raw.send_all(window(1, flags=SYN) + window(3, flags=SYN))
    assert await session.run(give_up) is Reason.IDLE
    for stream in got:
        with trio.fail_after(1), pytest.raises(StreamReset):
            await stream.receive_some()
    assert_over(session)


class _Ending:
    """A sink that ends its partner's direction when its own has ended, as a splice does."""

    def __init__(self, partner: MuxStream) -> None:
        self.partner = partner
        self.heard: list[str] = []

    def received(self, data: memoryview) -> None:
        self.heard.append("received")

    def ended(self) -> None:
        self.heard.append("ended")
        self.partner.half_close()

    def lost(self, why: str) -> None:
        self.heard.append("lost")

    def supplied(self, size: int) -> None:
        raise AssertionError("nothing was to be sent")


async def test_an_end_of_file_is_carried_to_a_stream_whose_reset_is_in_the_same_read(
    autojump_clock: MockClock,
) -> None:
    carrier, raw = carrier_pair()
    end = End(carrier, Session(carrier, client=False))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(end.run)
        await raw.send_all(window(1, flags=SYN) + window(3, flags=SYN))
        one, other = await end.accept(), await end.accept()
        sinks = _Ending(other), _Ending(one)
        one.join(sinks[0])
        other.join(sinks[1])
        await raw.send_all(window(1, flags=FIN) + window(3, flags=RST))
        await settle()
        assert not end.session.closed.is_set()
        assert sinks[0].heard == ["ended"] and sinks[1].heard == ["lost"]
        end.session.abort(Reason.IDLE)
    assert_over(end.session)


async def test_ending_a_stream_during_the_last_words_is_an_ordinary_failure(
    autojump_clock: MockClock,
) -> None:
    carrier, raw = carrier_pair(capacity=0)
    raw._out.capacity = 1 << 30
    end = End(carrier, Session(carrier, client=False))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(end.run)
        await raw.send_all(window(1, flags=SYN))
        stream = await end.accept()
        await raw.send_all(window(1, flags=RST) + VIOLATION)
        await settle()
        assert not end.session.closed.is_set(), "the last words wait"
        await stream.send_eof()
        stream.reset()
    assert end.reason is Reason.YAMUX_VIOLATION


async def test_credit_for_a_stream_that_was_reset_is_not_counted_twice(
    autojump_clock: MockClock,
) -> None:
    async with two_ends() as (one, other):
        ours, theirs = await stream_pair(one, other)
        await ours.send_all(b"some bytes")
        await settle()
        assert other.session.unread == 10
        theirs.reset()
        theirs.credit(10)  # whoever used them up is late
        assert theirs.unread == other.session.unread == other.session.plane.unread == 0


async def test_an_end_of_file_waits_for_what_was_sent_in_front_of_it(
    autojump_clock: MockClock,
) -> None:
    async with two_ends() as (one, other):
        ours, theirs = await stream_pair(one, other)
        sent = PAYLOAD[: INITIAL_WINDOW + 1000]
        ours.send_nowait(memoryview(sent))
        assert ours.sending
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ours.send_eof)
            await settle()
            assert await read_to_end(theirs) == sent
        assert not ours.sending


async def test_closing_with_accepted_bytes_unsent_is_not_a_clean_end(
    autojump_clock: MockClock,
) -> None:
    async with two_ends() as (one, other):
        ours, theirs = await stream_pair(one, other)
        ours.send_nowait(memoryview(bytes(INITIAL_WINDOW + 1)))
        await ours.aclose()
        with pytest.raises(StreamReset):
            await read_to_end(theirs)


# --- carriers that are full already


async def test_a_carrier_that_still_sends_is_waited_for(autojump_clock: MockClock) -> None:
    """What an upgrade left unsent goes first, and the first frames behind it."""
    carrier, raw = carrier_pair(capacity=10)
    raw._out.capacity = 1 << 30
    carrier.send_nowait(memoryview(b"a proposal that is longer"))
    end = End(carrier, Session(carrier, client=True))
    async with trio.open_nursery() as nursery:
        end.session.open_stream()
        nursery.start_soon(end.run)
        await settle()
        wire = b""
        while len(wire) < 25 + 12:
            wire += await raw.receive_some()
        assert wire == b"a proposal that is longer" + window(1, flags=SYN)
        end.session.abort(Reason.IDLE)


async def test_two_tasks_may_not_wait_for_the_same_stream(autojump_clock: MockClock) -> None:
    """The second would take the seat of the first, which would then wait for ever."""
    async with two_ends() as (one, other):
        ours, theirs = await stream_pair(one, other)
        async with outcome_of(ours.wait_receivable) as outcome:
            with pytest.raises(trio.BusyResourceError):
                await ours.wait_receivable()
            await theirs.send_all(b"x")
        assert outcome == [None]


# --- behind the end


SENDERS: dict[str, Callable[[MuxStream], None]] = {
    "send_nowait": lambda stream: stream.send_nowait(memoryview(bytes(BATCH))),
    "half_close": lambda stream: stream.half_close(),
    "credit": lambda stream: stream.credit(stream.unread),
    "reset": lambda stream: stream.reset(),
}


@pytest.mark.parametrize("how", SENDERS)
async def test_nothing_raises_but_a_reset_behind_the_end_of_a_connection(
    autojump_clock: MockClock, how: str
) -> None:
    async with two_ends() as (one, other):
        ours, theirs = await stream_pair(one, other)
        await ours.send_all(bytes(100))
        await settle()
        other.session.abort(Reason.IDLE)
        try:
            SENDERS[how](theirs)
        except StreamReset:
            assert how == "send_nowait"
        assert theirs.unread == other.session.unread == 0
