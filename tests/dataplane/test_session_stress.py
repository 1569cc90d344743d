"""Many streams one after the other, and readers that are slow, stalled, or gone."""

from __future__ import annotations

import gc
import random
import sys
from collections.abc import Collection, Iterator
from itertools import cycle, islice

import pytest
import trio
from trio.testing import MockClock

from appliance.dataplane.session import MuxStream, Session
from appliance.dataplane.vigil import PING_DEADLINE, PING_INTERVAL
from appliance.dataplane.windows import INITIAL_WINDOW, MAX_WINDOW
from appliance.errors import StreamReset
from appliance.reasons import Reason
from appliance.units import KIB, MIB
from tests.dataplane.carriers import carrier_pair
from tests.dataplane.frames import RST, SYN, window
from tests.dataplane.sessions import (
    assert_accounted,
    assert_settled,
    outcome_of,
    read_to_end,
    say,
    settle,
    stream_pair,
    two_ends,
)

PAYLOAD = random.Random(13).randbytes(2 * MIB)


# --- 10,000 streams


def tables(session: Session) -> Iterator[int]:
    """The size of everything that a session and its machine keep by stream."""
    outbound = session._outbound
    for holder in (session, session._machine, outbound, outbound._turns, session.plane):
        names = getattr(holder, "__slots__", None) or vars(holder)
        for name in names:
            held = getattr(holder, name)
            if isinstance(held, Collection) and not isinstance(held, str):
                yield len(held)


ENDS = ("reset", "reset by the acceptor", "reset with bytes unread", "ended")


async def test_10_000_streams_leave_nothing_behind(autojump_clock: MockClock) -> None:
    left, right = carrier_pair()
    one, other = Session(left, client=True, max_inbound=8), Session(right, client=False)
    got: list[MuxStream] = []

    async def some(count: int) -> None:
        for how in islice(cycle(ENDS), count):
            ours = one.open_stream()
            if how == "reset with bytes unread":
                await ours.send_all(b"unread")
            while not got:
                await trio.lowlevel.checkpoint()
            theirs = got.pop()
            match how:
                case "reset by the acceptor":
                    theirs.reset()
                case "ended":
                    await ours.aclose()
                    await theirs.aclose()
                case _:
                    ours.reset()
        await settle(5)

    def blocks() -> int:
        gc.collect()
        return sys.getallocatedblocks()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.run, got.append)
        nursery.start_soon(other.run, got.append)
        await some(500)
        sizes, before = [*tables(one), *tables(other)], blocks()
        await some(9_500)
        assert [*tables(one), *tables(other)] == sizes
        assert blocks() - before < 500, "less than one for nineteen streams"
        assert one.open_streams == other.open_streams == 0
        assert_settled(one.plane)
        assert_accounted(one.plane, one)
        assert_accounted(other.plane, other)
        # It is as good as new.
        stream = one.open_stream()
        await stream.send_all(PAYLOAD[:1000])
        await settle()
        assert await got.pop().receive_some() == PAYLOAD[:1000]
        one.abort(Reason.IDLE)


async def test_streams_opened_and_reset_while_the_carrier_is_full_are_let_go(
    autojump_clock: MockClock,
) -> None:
    """They had bytes to send and were in line for their turn when they ended."""
    async with two_ends(capacity=0) as (one, other):
        one.session.open_stream()
        await settle()
        assert one.carrier.sending
        ends: list[StreamReset] = []

        async def send(stream: MuxStream) -> None:
            try:
                await stream.send_all(b"x")
            except StreamReset as error:
                ends.append(error)

        async with trio.open_nursery() as nursery:
            for _ in range(2000):
                stream = one.session.open_stream()
                nursery.start_soon(send, stream)
                await settle(2)
                stream.reset()
                assert not one.session._outbound._turns, "it does not stay in line"
        assert len(ends) == 2000
        one.carrier._out.capacity = 1 << 30
        other.carrier._in.touch()
        await settle()
        assert not one.session._outbound._turns and len(one.session._streams) == 1
        ours = one.session.open_stream()
        await ours.send_all(b"hello")
        await settle()
        assert [stream.unread for stream in other.session._streams.values()] == [0, 5]


async def test_a_peer_that_resets_what_it_opened_and_never_reads_holds_little(
    autojump_clock: MockClock,
) -> None:
    """Each of its streams had an answer of ours in line for a carrier that is full."""
    carrier, raw = carrier_pair(capacity=10)
    raw._out.capacity = 1 << 30
    session = Session(carrier, client=False)

    async def answer(stream: MuxStream) -> None:
        with pytest.raises(StreamReset):
            await stream.send_all(b"an answer")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(session.run, lambda stream: nursery.start_soon(answer, stream))
        for number in range(1, 1001, 2):
            for flags in (SYN, RST):
                await raw.send_all(window(number, flags=flags))
                await settle(6)
            assert sum(tables(session)) - session._machine.backlog < 10
        session.abort(Reason.IDLE)


async def test_a_connection_that_is_over_waits_for_no_garbage_collector(
    autojump_clock: MockClock,
) -> None:
    """A relay sees many come and go: what they held is free with their end."""

    def sessions() -> int:
        return sum(type(thing) is Session for thing in gc.get_objects())

    gc.collect()
    before = sessions()
    gc.disable()
    try:
        async with two_ends(capacity=1000) as (one, other):
            ours, theirs = await stream_pair(one, other)
            await ours.send_all(bytes(10 * KIB))
            await ours.aclose()
            assert await read_to_end(theirs) == bytes(10 * KIB)
            await theirs.aclose()
            assert sessions() == before + 2
        del one, other, ours, theirs
        await settle()
        assert sessions() == before
    finally:
        gc.enable()


# --- readers


async def test_a_slow_reader_slows_nobody_else(autojump_clock: MockClock) -> None:
    async with two_ends(capacity=100_000) as (one, other):
        slow_sender, slow = await stream_pair(one, other)
        got = bytearray()

        async def read_slowly() -> None:
            while data := await slow.receive_some(16 * KIB):
                got.extend(data)
                assert slow.unread <= MAX_WINDOW
                await trio.sleep(1)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_slowly)
            nursery.start_soon(say, slow_sender, PAYLOAD)
            await trio.sleep(5)
            for _ in range(3):
                started = trio.current_time()
                ours, theirs = await stream_pair(one, other)
                nursery.start_soon(say, ours, PAYLOAD)
                assert await read_to_end(theirs) == PAYLOAD
                assert trio.current_time() == started
            assert len(got) < len(PAYLOAD)
        assert got == PAYLOAD
        assert trio.current_time() >= len(PAYLOAD) // (16 * KIB)


async def test_a_slow_reader_of_one_byte_at_a_time_gets_them_all(
    autojump_clock: MockClock,
) -> None:
    async with two_ends() as (one, other):
        ours, theirs = await stream_pair(one, other)
        await ours.send_all(PAYLOAD[: 20 * KIB])
        await ours.send_eof()
        assert await read_to_end(theirs, 1) == PAYLOAD[: 20 * KIB]
        assert_accounted(other.session.plane, other.session)


async def test_a_stalled_reader_holds_its_window_and_stops_nobody_else(
    autojump_clock: MockClock,
) -> None:
    async with two_ends(capacity=100_000) as (one, other):
        stalled_sender, stalled = await stream_pair(one, other)
        async with outcome_of(lambda: stalled_sender.send_all(PAYLOAD)) as outcome:
            for _ in range(20):
                ours, theirs = await stream_pair(one, other)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(ours.send_all, PAYLOAD)
                    got = 0
                    while got < len(PAYLOAD):
                        got += len(await theirs.receive_some())
                ours.reset()
                await trio.sleep(100)
                assert stalled.unread == other.session.unread == INITIAL_WINDOW
                assert not outcome
            stalled.reset()
        assert isinstance(outcome[0], StreamReset)


async def test_a_reader_that_vanishes_is_noticed_by_who_sends(autojump_clock: MockClock) -> None:
    """In the middle of bulk, with more to send than the network ever takes."""
    async with two_ends(capacity=50_000) as (one, other):
        ours, theirs = await stream_pair(one, other)
        async with outcome_of(lambda: ours.send_all(PAYLOAD)) as sent:
            await theirs.receive_some()
            other.carrier.vanish()
            vanished = trio.current_time()
            await one.ended.wait()
        assert one.reason is Reason.PING_TIMEOUT
        assert trio.current_time() - vanished <= 2 * PING_INTERVAL + PING_DEADLINE + 1
        assert isinstance(sent[0], StreamReset)
        assert one.session.unread == 0 and not one.carrier.sending


async def test_a_reader_that_stops_reading_its_connection_is_noticed_too(
    autojump_clock: MockClock,
) -> None:
    """Nothing leaves any more: our ping stays behind what the carrier does not take."""
    left, raw = carrier_pair(capacity=1000)
    session = Session(left, client=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(session.run, lambda _: None)
        stream = session.open_stream()
        with pytest.raises(StreamReset):
            await stream.send_all(PAYLOAD)
    assert session.closed_reason is Reason.PING_TIMEOUT and raw.unread == 1000
