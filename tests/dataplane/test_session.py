"""Streams over a session: bytes, ends of file, resets, closing, cancellation."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock

from appliance.dataplane.session import CLOSE_LINGER
from appliance.dataplane.streams import BATCH
from appliance.dataplane.vigil import PING_INTERVAL
from appliance.dataplane.windows import INITIAL_WINDOW
from appliance.errors import StreamReset
from appliance.reasons import Reason
from appliance.units import KIB, MIB
from tests.dataplane.sessions import (
    End,
    outcome_of,
    read_to_end,
    say,
    settle,
    stream_pair,
    two_ends,
)

PAYLOAD = random.Random(3).randbytes(3 * MIB)


async def echo(end: End) -> None:
    """Serve one stream: give back what comes."""
    stream = await end.accept()
    while data := await stream.receive_some():
        await stream.send_all(data)
    await stream.aclose()


# --- bytes


@pytest.mark.parametrize("client_opens", [True, False])
@pytest.mark.parametrize("segments", [None, [1, 2, 70_000, 11, 13]], ids=["whole", "cut"])
async def test_an_echo_over_a_narrow_carrier(
    autojump_clock: MockClock, client_opens: bool, segments: list[int] | None
) -> None:
    async with two_ends(capacity=20_000, segments=segments) as ends:
        one, other = ends if client_opens else ends[::-1]
        stream = one.session.open_stream()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(echo, other)
            nursery.start_soon(say, stream, PAYLOAD)
            assert await read_to_end(stream) == PAYLOAD
        await settle()
        assert one.session.open_streams == other.session.open_streams == 0


async def test_one_byte_at_a_time(autojump_clock: MockClock) -> None:
    async with two_ends(segments=[1]) as (one, other):
        stream = one.session.open_stream()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(echo, other)
            await stream.send_all(b"slowly but surely")
            await stream.send_eof()
            assert await read_to_end(stream, 3) == b"slowly but surely"


async def test_many_streams_at_once_both_ways(autojump_clock: MockClock) -> None:
    async with two_ends(capacity=50_000) as (one, other):

        async def ask(end: End, number: int) -> None:
            stream = end.session.open_stream()
            payload = PAYLOAD[number : number + 300 * KIB]
            async with trio.open_nursery() as nursery:
                nursery.start_soon(say, stream, payload)
                assert await read_to_end(stream) == payload

        async with trio.open_nursery() as nursery:
            for end, peer in ((one, other), (other, one)):
                for number in range(8):
                    nursery.start_soon(ask, end, number)
                    nursery.start_soon(echo, peer)


# --- ends of file


@pytest.mark.parametrize("first", ["opener", "acceptor", "both"])
async def test_half_close_in_every_order(autojump_clock: MockClock, first: str) -> None:
    async with two_ends() as (one, other):
        ours, theirs = await stream_pair(one, other)
        if first == "both":
            await ours.send_all(b"a")
            await theirs.send_all(b"b")
            await ours.send_eof()
            await theirs.send_eof()
        else:
            early, late = (ours, theirs) if first == "opener" else (theirs, ours)
            await early.send_all(b"a" if early is ours else b"b")
            await early.send_eof()
            assert await read_to_end(late)
            await trio.sleep(1000)
            await late.send_all(b"b" if early is ours else b"a")
            await late.send_eof()
        assert await read_to_end(ours) == (b"" if first == "acceptor" else b"b")
        assert await read_to_end(theirs) == (b"" if first == "opener" else b"a")
        await settle()
        assert one.session.open_streams == other.session.open_streams == 0


async def test_an_end_of_file_stays_and_sending_behind_it_is_a_mistake(
    autojump_clock: MockClock,
) -> None:
    async with two_ends() as (one, other):
        ours, theirs = await stream_pair(one, other)
        await ours.send_eof()
        await ours.send_eof()
        with pytest.raises(trio.ClosedResourceError):
            await ours.send_all(b"x")
        assert await theirs.receive_some() == await theirs.receive_some() == b""


async def test_an_end_of_file_while_somebody_sends_is_a_mistake(autojump_clock: MockClock) -> None:
    async with two_ends() as (one, other):
        ours, theirs = await stream_pair(one, other)
        async with outcome_of(lambda: ours.send_all(bytes(INITIAL_WINDOW + 1))) as sent:
            with pytest.raises(trio.BusyResourceError):
                await ours.send_eof()
            await theirs.receive_some(INITIAL_WINDOW)
        assert sent == [None]


# --- resets


WAITS: dict[str, Callable[..., Awaitable[object]]] = {
    "receiving": lambda stream: stream.receive_some(),
    "sending beyond the window": lambda stream: stream.send_all(bytes(INITIAL_WINDOW + 1)),
    "sending beyond the backlog": lambda stream: stream.send_all(bytes(BATCH * 2)),
}


@pytest.mark.parametrize("by", ["peer", "us", "connection", "carrier"])
@pytest.mark.parametrize("wait", WAITS)
async def test_a_reset_wakes_whoever_waits(autojump_clock: MockClock, wait: str, by: str) -> None:
    capacity = 1000 if wait.endswith("backlog") else 1 << 30
    async with two_ends(capacity=capacity) as (one, other):
        ours, theirs = await stream_pair(one, other)
        if wait.endswith("backlog"):
            other.carrier._in.black_hole = True
        async with outcome_of(lambda: WAITS[wait](ours)) as outcome:
            assert not outcome
            other.carrier._in.black_hole = False
            match by:
                case "peer":
                    theirs.reset()
                case "us":
                    ours.reset()
                case "connection":
                    one.session.abort(Reason.CONNECTION_LOST)
                case "carrier":
                    one.carrier.reset()
        assert isinstance(outcome[0], StreamReset), outcome
        with pytest.raises(StreamReset):
            await ours.receive_some()
        with pytest.raises(StreamReset):
            await ours.send_all(b"x")
        with pytest.raises(StreamReset):
            await ours.send_eof()
        ours.reset()
        await ours.aclose()
        await settle()
        assert one.session.open_streams == 0 or one.session.closed.is_set()


STATES = ["fresh", "data sent", "data unread", "our end of file", "its end of file"]


@pytest.mark.parametrize("by_opener", [True, False])
@pytest.mark.parametrize("state", STATES)
async def test_a_reset_in_every_state_reaches_the_other_end(
    autojump_clock: MockClock, state: str, by_opener: bool
) -> None:
    async with two_ends() as (one, other):
        pair = await stream_pair(one, other)
        ours, theirs = pair if by_opener else pair[::-1]
        match state:
            case "data sent":
                await ours.send_all(b"x")
            case "data unread":
                await theirs.send_all(b"x")
            case "our end of file":
                await ours.send_eof()
            case "its end of file":
                await theirs.send_eof()
        await settle()
        ours.reset()
        await settle()
        with pytest.raises(StreamReset):
            await theirs.receive_some()
        with pytest.raises((StreamReset, trio.ClosedResourceError)):
            await theirs.send_all(b"x")
        assert one.session.open_streams == other.session.open_streams == 0
        assert not one.session.closed.is_set(), "one stream's end is not the connection's"


async def test_a_reset_behind_both_ends_of_file_says_nothing(autojump_clock: MockClock) -> None:
    async with two_ends() as (one, other):
        ours, theirs = await stream_pair(one, other)
        await ours.send_all(b"kept")
        await ours.send_eof()
        await theirs.send_eof()
        await settle()
        ours.reset()
        await settle()
        assert await read_to_end(theirs) == b"kept"


# --- closing


async def test_a_closed_stream_lets_the_peer_end_in_peace(autojump_clock: MockClock) -> None:
    async with two_ends() as (one, other):
        ours, theirs = await stream_pair(one, other)
        await ours.send_all(b"answer")
        await ours.aclose()
        await ours.aclose()
        assert await read_to_end(theirs) == b"answer"
        await theirs.aclose()
        await settle()
        assert one.session.open_streams == other.session.open_streams == 0
        with pytest.raises(StreamReset):
            await ours.receive_some()


async def test_what_the_peer_sends_to_a_closed_stream_resets_it(autojump_clock: MockClock) -> None:
    async with two_ends() as (one, other):
        ours, theirs = await stream_pair(one, other)
        await ours.aclose()
        await theirs.send_all(b"anybody there?")
        await settle()
        with pytest.raises(StreamReset):
            await theirs.send_all(b"?")
        assert one.session.open_streams == other.session.open_streams == 0


async def test_closing_with_unread_bytes_does_not_leave_the_peer_waiting_for_its_window(
    autojump_clock: MockClock,
) -> None:
    async with two_ends() as (one, other):
        ours, theirs = await stream_pair(one, other)
        async with outcome_of(lambda: theirs.send_all(bytes(INITIAL_WINDOW + 1))) as outcome:
            await ours.aclose()
        assert isinstance(outcome[0], StreamReset)
        assert trio.current_time() < 1, "at once, and not when patience ends"
        assert one.session.open_streams == other.session.open_streams == 0


async def test_unread_bytes_in_front_of_an_end_of_file_do_not_spoil_our_answer(
    autojump_clock: MockClock,
) -> None:
    async with two_ends() as (one, other):
        ours, theirs = await stream_pair(one, other)
        await theirs.send_all(b"a question that nobody reads")
        await theirs.send_eof()
        await settle()
        await ours.send_all(b"answer")
        await ours.aclose()
        assert await read_to_end(theirs) == b"answer"


async def test_closing_wakes_the_receiver(autojump_clock: MockClock) -> None:
    async with two_ends() as (one, other):
        ours, theirs = await stream_pair(one, other)
        async with outcome_of(ours.receive_some) as outcome:
            await ours.aclose()
            await settle()
            assert isinstance(outcome[0], StreamReset)
        assert await theirs.receive_some() == b""


async def test_closing_while_sending_is_not_a_clean_end(autojump_clock: MockClock) -> None:
    async with two_ends() as (one, other):
        ours, theirs = await stream_pair(one, other)
        async with outcome_of(lambda: ours.send_all(bytes(INITIAL_WINDOW + 1))) as outcome:
            await ours.aclose()
        assert isinstance(outcome[0], StreamReset)
        with pytest.raises(StreamReset):
            await read_to_end(theirs)


async def test_a_closed_stream_that_the_peer_keeps_open_is_reset_in_the_end(
    autojump_clock: MockClock,
) -> None:
    async with two_ends() as (one, other):
        ours, theirs = await stream_pair(one, other)
        await ours.aclose()
        await trio.sleep(CLOSE_LINGER - 1)
        assert one.session.open_streams == 1
        await trio.sleep(PING_INTERVAL + 2)
        assert one.session.open_streams == other.session.open_streams == 0
        with pytest.raises(StreamReset):
            await theirs.send_all(b"x")


async def test_closing_holds_after_cancelled(autojump_clock: MockClock) -> None:
    async with two_ends() as (one, other):
        ours, theirs = await stream_pair(one, other)
        with trio.CancelScope() as scope:
            scope.cancel()
            await ours.aclose()
        assert await theirs.receive_some() == b""


# --- the owner's mistakes, and cancellation


async def test_two_tasks_may_not_do_the_same(autojump_clock: MockClock) -> None:
    async with two_ends() as (one, other):
        ours, theirs = await stream_pair(one, other)
        async with outcome_of(ours.receive_some) as received:
            with pytest.raises(trio.BusyResourceError):
                await ours.receive_some()
            await theirs.send_all(b"x")
        assert received == [b"x"]
        async with outcome_of(lambda: ours.send_all(bytes(INITIAL_WINDOW + 1))) as sent:
            with pytest.raises(trio.BusyResourceError):
                await ours.send_all(b"x")
            await theirs.receive_some(INITIAL_WINDOW)
        assert sent == [None]


async def test_a_cancelled_receive_loses_nothing(autojump_clock: MockClock) -> None:
    payload = PAYLOAD[:40_000]
    got = bytearray()
    async with two_ends(segments=[100, 1000]) as (one, other):
        ours, theirs = await stream_pair(one, other)

        async def send() -> None:
            for at in range(0, len(payload), 100):
                await theirs.send_all(payload[at : at + 100])
            await theirs.send_eof()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            for patience in range(1_000_000):
                with trio.CancelScope() as scope:
                    async with trio.open_nursery() as racing:

                        async def cancel(after: int = patience % 7) -> None:
                            await settle(after)
                            scope.cancel()

                        racing.start_soon(cancel)
                        data = await ours.receive_some(333)
                        got += data
                        racing.cancel_scope.cancel()
                        if not data:
                            break
                if scope.cancelled_caught:
                    continue
    assert bytes(got) == payload


async def test_after_a_cancelled_send_the_stream_can_be_reset_and_the_rest_lives(
    autojump_clock: MockClock,
) -> None:
    async with two_ends() as (one, other):
        ours, theirs = await stream_pair(one, other)
        with trio.move_on_after(1) as scope:
            await ours.send_all(bytes(INITIAL_WINDOW + 1))
        assert scope.cancelled_caught
        ours.reset()
        again, there = await stream_pair(one, other)
        await again.send_all(b"still here")
        assert await there.receive_some() == b"still here"
        with pytest.raises(StreamReset):
            await read_to_end(theirs)
