"""What is held unread: who waits, for how long, who pays for it, and what is given back."""

from __future__ import annotations

import random
from contextlib import suppress

import pytest
import trio
from trio.testing import MockClock

from appliance.dataplane.plane import Plane, PlaneLimits
from appliance.dataplane.session import MuxStream, Session
from appliance.dataplane.streams import BATCH
from appliance.dataplane.unread import STALL_PATIENCE
from appliance.dataplane.vigil import PING_DEADLINE, PING_INTERVAL
from appliance.dataplane.windows import INITIAL_WINDOW, READ_WINDOW
from appliance.errors import StreamReset
from appliance.reasons import Reason
from appliance.units import KIB, MIB
from tests.dataplane.carriers import carrier_pair
from tests.dataplane.frames import ACK, PING, SYN, data, frame
from tests.dataplane.sessions import (
    End,
    assert_accounted,
    assert_over,
    connected,
    read_to_end,
    say,
    settle,
    stream_pair,
    two_ends,
)

PAYLOAD = random.Random(5).randbytes(3 * MIB)


async def hold(nursery: trio.Nursery, one: End, other: End, streams: int) -> list[MuxStream]:
    """Streams on which `one` sends for ever and `other` does not read. As `other` sees them."""
    held = []
    for _ in range(streams):
        ours, theirs = await stream_pair(one, other)
        nursery.start_soon(_send, ours)
        held.append(theirs)
    await settle()
    return held


async def _send(stream: MuxStream) -> None:
    with suppress(StreamReset):
        while True:
            await stream.send_all(PAYLOAD)


async def _read(stream: MuxStream, size: int) -> None:
    while size > 0:
        size -= len(await stream.receive_some(size))


async def asked(one: End, other: End) -> tuple[MuxStream, MuxStream]:
    """A stream on which `one` asked its question to the end, which `other` has and did not read."""
    ours, theirs = await stream_pair(one, other)
    await ours.send_all(b"question")
    await ours.send_eof()
    await settle()
    return ours, theirs


async def test_who_waits_for_its_own_bound_and_then_for_the_others_is_woken(
    autojump_clock: MockClock,
) -> None:
    plane = Plane(
        PlaneLimits(connection_unread=512 * KIB, total_unread=800 * KIB, assured=64 * KIB)
    )
    async with trio.open_nursery() as nursery:
        pairs = [connected(nursery, plane=plane) for _ in range(4)]
        sessions = [end.session for pair in pairs for end in pair]
        x = pairs[0][1]
        many = await hold(nursery, *pairs[0], 3)
        assert x.session.unread > 512 * KIB
        others: list[MuxStream] = []
        for pair in pairs[1:]:
            # The total falls below its bound and rises again; x still holds too much of its own.
            if len(others) == 1:
                await _read(others[0], INITIAL_WINDOW)
            ours, theirs = await stream_pair(*pair)
            nursery.start_soon(ours.send_all, bytes(INITIAL_WINDOW))
            others.append(theirs)
            await settle()
            assert plane.unread > 800 * KIB
        held = x.session.unread
        # Then x holds little enough and waits for the others.
        for stream in many:
            await _read(stream, 110 * KIB)
        await settle()
        assert x.session.unread == held - 330 * KIB and plane.unread > 800 * KIB
        assert_accounted(plane, *sessions)
        started = trio.current_time()
        for stream in others[1:]:
            await _read(stream, INITIAL_WINDOW)
        await settle()
        assert x.session.unread > held - 330 * KIB, "read again, and at once"
        assert trio.current_time() - started < STALL_PATIENCE / 2
        for session in sessions:
            session.abort(Reason.IDLE)
    assert_over(*sessions)


async def test_room_is_made_by_who_holds_and_not_by_the_innocent(
    autojump_clock: MockClock,
) -> None:
    """Bytes may be held by streams that have ended both ways and were not read yet."""
    limits = PlaneLimits(connection_unread=512 * KIB, assured=64 * KIB)
    async with two_ends(limits=limits) as (one, other):
        innocent, there = await stream_pair(one, other)
        ended = []
        for _ in range(3):
            ours, theirs = await stream_pair(one, other)
            await theirs.send_eof()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ours.send_all, bytes(INITIAL_WINDOW - 1))
            await ours.send_eof()
            ended.append(theirs)
        await settle()
        assert other.session.unread > limits.connection_unread
        await trio.sleep(4 * STALL_PATIENCE)
        assert_accounted(other.session.plane, one.session, other.session)
        with trio.fail_after(1):
            await innocent.send_all(b"still here?")
            assert await there.receive_some() == b"still here?"
        got = 0
        for theirs in ended:
            with suppress(StreamReset):
                got += len(await read_to_end(theirs))
        assert got == 2 * (INITIAL_WINDOW - 1), "one was given up, which was enough"
        await settle()
        assert list(other.session._streams.values()) == [there]


@pytest.mark.parametrize("how", ["read", "reset", "aclose"])
async def test_a_stream_that_ended_both_ways_is_forgotten_once_it_is_read_or_dropped(
    autojump_clock: MockClock, how: str
) -> None:
    async with two_ends() as (one, other):
        ours, theirs = await asked(one, other)
        await theirs.send_eof()
        await settle()
        assert other.session.open_streams == 0 and other.session.unread == 8
        match how:
            case "read":
                assert await read_to_end(theirs) == b"question"
            case "reset":
                theirs.reset()
            case "aclose":
                await theirs.aclose()
        await settle()
        assert other.session.unread == 0 and not other.session._streams
        assert await read_to_end(ours) == b"", "a reset behind both ends of file says nothing"


@pytest.mark.parametrize("both_ways", [False, True])
async def test_what_came_whole_can_still_be_read_after_the_connection(
    autojump_clock: MockClock, both_ways: bool
) -> None:
    async with two_ends() as (one, other):
        _, theirs = await asked(one, other)
        if both_ways:
            await theirs.send_eof()
        other.session.abort(Reason.IDLE)
        assert await read_to_end(theirs, 3) == b"question"
        with pytest.raises((StreamReset, trio.ClosedResourceError)):
            await theirs.send_all(b"answer")
        theirs.reset()
        assert theirs.unread == other.session.unread == 0


async def test_what_came_whole_and_is_dropped_behind_the_connection_is_gone(
    autojump_clock: MockClock,
) -> None:
    async with two_ends() as (one, other):
        _, theirs = await asked(one, other)
        other.session.abort(Reason.IDLE)
        theirs.reset()
        assert theirs.unread == 0
        with pytest.raises(StreamReset):
            await theirs.receive_some()


async def test_a_pause_takes_no_longer_than_its_patience(autojump_clock: MockClock) -> None:
    """However many streams hold a little each: the peer's pings must be answered in time."""
    limits = PlaneLimits(connection_unread=32 * KIB, assured=16 * KIB)
    async with two_ends(limits=limits) as (one, other):
        pairs = [await stream_pair(one, other) for _ in range(60)]
        for ours, _ in pairs:
            ours.head = memoryview(bytes(4 * KIB))
            one.session.offer(ours)
        one.session.open_stream()  # all of it arrives in one read
        await settle()
        assert other.session.unread == 60 * 4 * KIB
        await trio.sleep(2 * STALL_PATIENCE)
        assert 16 * KIB < other.session.unread <= limits.connection_unread
        await trio.sleep(10 * (PING_INTERVAL + PING_DEADLINE))
        assert not one.session.closed.is_set() and not other.session.closed.is_set()


async def test_our_own_pause_is_not_the_peers_silence(autojump_clock: MockClock) -> None:
    """The answer to our ping came, and we did not read it since others hold too much."""
    plane = Plane(PlaneLimits(total_unread=300 * KIB, assured=64 * KIB))
    carrier, raw = carrier_pair()
    end = End(carrier, Session(carrier, client=False, plane=plane))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(end.run)
        await raw.send_all(data(1, bytes(100 * KIB), SYN))
        await trio.sleep(PING_INTERVAL + 1)
        assert raw._in.buffer.endswith(frame(PING, SYN, 0, 2)), "a ping is out"
        await trio.sleep(PING_DEADLINE - 3)
        plane.add_unread(300 * KIB)
        await raw.send_all(frame(PING, ACK, 0, 2))
        await trio.sleep(4)
        assert not end.session.closed.is_set()
        plane.add_unread(-300 * KIB)
        await trio.sleep(2)
        end.session.abort(Reason.IDLE)
    assert end.reason is Reason.IDLE


# --- stalled readers (stock defect 2: gives up after 5 s)


async def test_a_stalled_reader_does_not_kill_the_stream(autojump_clock: MockClock) -> None:
    payload = PAYLOAD[: 2 * MIB]
    async with two_ends() as (one, other):
        ours, theirs = await stream_pair(one, other)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(say, ours, payload)
            await trio.sleep(3600)
            first = await theirs.receive_some(MIB)
            assert len(first) == INITIAL_WINDOW
            await trio.sleep(3600)
            assert first + await read_to_end(theirs) == payload


async def test_stalled_readers_bound_the_memory_of_a_connection(autojump_clock: MockClock) -> None:
    limits = PlaneLimits(connection_unread=2 * MIB, assured=64 * KIB)
    async with two_ends(limits=limits) as (one, other):
        pairs = [await stream_pair(one, other) for _ in range(32)]
        outcomes: list[bool] = []

        async def send(stream: MuxStream) -> None:
            try:
                await stream.send_all(PAYLOAD)
                outcomes.append(True)
            except StreamReset:
                outcomes.append(False)

        async with trio.open_nursery() as nursery:
            for ours, _ in pairs:
                nursery.start_soon(send, ours)
            # All of them together would hold 8 MiB.
            for _ in range(150):
                await trio.sleep(1)
                assert other.session.unread <= limits.connection_unread + BATCH
            # Room was made by giving up some; the others only wait for their readers.
            survivors = [theirs for _, theirs in pairs if theirs.unread]
            assert len(survivors) >= limits.connection_unread // INITIAL_WINDOW
            assert outcomes == [False] * (len(pairs) - len(survivors))
            for theirs in survivors:
                nursery.start_soon(read_to_end, theirs)
            await trio.sleep(1)
            assert outcomes.count(True) == len(survivors)
            nursery.cancel_scope.cancel()
        # The connection was never in danger.
        assert not one.ended.is_set()


async def test_all_connections_together_hold_a_bounded_amount(autojump_clock: MockClock) -> None:
    plane = Plane(PlaneLimits(connection_unread=MIB, total_unread=2 * MIB, assured=64 * KIB))
    async with trio.open_nursery() as nursery:
        for _ in range(8):
            one, other = connected(nursery, plane=plane)
            for _ in range(2):
                ours, _ = await stream_pair(one, other)
                nursery.start_soon(ours.send_all, PAYLOAD)
        for _ in range(4):
            await trio.sleep(1)
            assert plane.unread <= 2 * MIB + 8 * BATCH
        nursery.cancel_scope.cancel()


async def test_a_connection_that_waited_for_the_others_goes_on(autojump_clock: MockClock) -> None:
    plane = Plane(PlaneLimits(total_unread=300 * KIB, assured=64 * KIB))
    async with trio.open_nursery() as nursery:
        hog, hogged = connected(nursery, plane=plane)
        ours, stalled = await stream_pair(hog, hogged)
        nursery.start_soon(ours.send_all, PAYLOAD)
        await settle()
        one, other = connected(nursery, plane=plane)
        ours, theirs = await stream_pair(one, other)
        nursery.start_soon(ours.send_all, PAYLOAD)
        await settle()
        waiting = other.session.unread
        assert 0 < waiting < INITIAL_WINDOW
        nursery.start_soon(read_to_end, stalled)
        with trio.fail_after(STALL_PATIENCE / 2):
            while other.session.unread < INITIAL_WINDOW:
                await settle()
        nursery.cancel_scope.cancel()
    del theirs


# --- windows


async def test_what_windows_grew_by_comes_back_with_the_end_of_a_connection(
    autojump_clock: MockClock,
) -> None:
    plane = Plane(PlaneLimits(total_growth=READ_WINDOW - INITIAL_WINDOW))

    async def ahead(one: End, other: End) -> int:
        """How far a sender is ahead of a reader that stops after the first half window."""
        async with trio.open_nursery() as nursery:
            (theirs,) = await hold(nursery, one, other, 1)
            await _read(theirs, INITIAL_WINDOW // 2)
            await settle()
            unread = theirs.unread
            nursery.cancel_scope.cancel()
        return unread

    for _ in range(3):
        async with trio.open_nursery() as nursery:
            one, other = connected(nursery, plane=plane)
            assert await ahead(one, other) == READ_WINDOW
            one.session.abort(Reason.IDLE)
            other.session.abort(Reason.IDLE)
        assert_over(one.session, other.session)
