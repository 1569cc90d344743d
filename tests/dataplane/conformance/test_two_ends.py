"""What two muxers do for those who use them, whoever's they are: bytes, ends, windows, goodbyes."""

from __future__ import annotations

import random

import pytest
import trio
from trio.testing import MockClock

from appliance.errors import StreamReset
from appliance.reasons import Reason
from appliance.units import KIB
from tests.dataplane.conformance.muxers import (
    Defect,
    End,
    Pair,
    ask,
    echo,
    forgotten,
    pairs,
    serve,
)
from tests.dataplane.conformance.wire import INITIAL_WINDOW
from tests.dataplane.sessions import outcome_of, read_to_end

PAYLOAD = random.Random(5).randbytes(1024 * KIB)


# --- bytes


@pytest.mark.parametrize(
    ("segments", "size"),
    [
        pytest.param(None, 700 * KIB, id="whole"),
        pytest.param([1], 1000, id="bytes"),
        pytest.param([11, 1, 13, 12], 5000, id="headers cut"),
        pytest.param([70_000, 1, 65_548, 12, 3], 700 * KIB, id="payload cut"),
        pytest.param(random.Random(3).choices(range(1, 5000), k=97), 300 * KIB, id="anywhere"),
    ],
)
@pairs()
async def test_an_echo(
    autojump_clock: MockClock, pair: Pair, segments: list[int] | None, size: int
) -> None:
    async with pair.connected(segments=segments, capacity=100_000) as (one, other):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve, other)
            assert await ask(one.session.open_stream(), PAYLOAD[:size]) == PAYLOAD[:size]
            nursery.cancel_scope.cancel()
        await forgotten(one, other)


@pairs()
async def test_many_streams_at_once(autojump_clock: MockClock, pair: Pair) -> None:
    async with pair.connected() as (one, other):
        wrong = []

        async def check(end: End, number: int) -> None:
            payload = PAYLOAD[number * 1000 : number * 5000]
            if await ask(end.session.open_stream(), payload) != payload:
                wrong.append(number)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve, one)
            nursery.start_soon(serve, other)
            async with trio.open_nursery() as asking:
                for number in range(32):
                    asking.start_soon(check, one if number % 2 else other, number)
            nursery.cancel_scope.cancel()
        assert not wrong
        await forgotten(one, other)


@pairs()
async def test_small_writes_arrive_in_order(autojump_clock: MockClock, pair: Pair) -> None:
    async with pair.connected() as (one, other):
        ours = one.session.open_stream()
        for at in range(200):
            await ours.send_all(PAYLOAD[at : at + 1])
        await ours.send_all(b"")
        await ours.send_eof()
        assert await read_to_end(await other.accept()) == PAYLOAD[:200]


# --- ends of file


@pytest.mark.parametrize("first", ["one", "other", "both"])
@pairs()
async def test_half_close_in_every_order(autojump_clock: MockClock, pair: Pair, first: str) -> None:
    async with pair.connected() as (one, other):
        ours = one.session.open_stream()
        theirs = await other.accept()
        if first == "both":
            await ours.send_all(b"a")
            await theirs.send_all(b"b")
            await ours.send_eof()
            await theirs.send_eof()
            assert await read_to_end(ours) == b"b"
            assert await read_to_end(theirs) == b"a"
        else:
            early, late = (ours, theirs) if first == "one" else (theirs, ours)
            await early.send_all(b"question")
            await early.send_eof()
            assert await read_to_end(late) == b"question"
            await trio.sleep(120)
            await late.send_all(b"answer")
            await late.send_eof()
            assert await read_to_end(early) == b"answer"
        await forgotten(one, other)


@pairs()
async def test_data_in_front_of_the_end_is_read(autojump_clock: MockClock, pair: Pair) -> None:
    """Both ends have said everything before either reads."""
    async with pair.connected() as (one, other):
        ours = one.session.open_stream()
        theirs = await other.accept()
        for stream, payload in ((ours, PAYLOAD[:200_000]), (theirs, PAYLOAD[7:200_000])):
            await stream.send_all(payload)
            await stream.send_eof()
        await trio.sleep(10)
        assert await read_to_end(theirs, 1000) == PAYLOAD[:200_000]
        assert await read_to_end(ours, 1000) == PAYLOAD[7:200_000]
        assert await ours.receive_some() == await theirs.receive_some() == b""
        await forgotten(one, other)


@pairs()
async def test_open_and_close_at_once(autojump_clock: MockClock, pair: Pair) -> None:
    async with pair.connected() as (one, other):
        for _ in range(100):
            ours = one.session.open_stream()
            await ours.send_eof()
            theirs = await other.accept()
            assert await theirs.receive_some() == b""
            await theirs.send_eof()
            assert await ours.receive_some() == b""
        await forgotten(one, other)


# --- windows


@pairs()
async def test_an_exhausted_window_recovers(autojump_clock: MockClock, pair: Pair) -> None:
    """The writer waits at the window, and goes on when the reader does."""
    async with pair.connected() as (one, other):
        ours = one.session.open_stream()
        theirs = await other.accept()
        async with outcome_of(lambda: ours.send_all(PAYLOAD)) as sent:
            await trio.sleep(4)
            assert not sent
            got = await theirs.receive_some(INITIAL_WINDOW)
            while len(got) < len(PAYLOAD):
                got += await theirs.receive_some(INITIAL_WINDOW)
        assert got == PAYLOAD
        assert sent == [None]


@pairs(one=Defect.STALLED_READER)
async def test_a_stalled_reader_is_waited_for(autojump_clock: MockClock, pair: Pair) -> None:
    async with pair.connected() as (one, other):
        ours = one.session.open_stream()
        theirs = await other.accept()
        async with outcome_of(lambda: ours.send_all(PAYLOAD[: 300 * KIB])) as sent:
            await trio.sleep(120)
            assert not sent
            got = b""
            while len(got) < 300 * KIB:
                got += await theirs.receive_some()
        assert got == PAYLOAD[: 300 * KIB]


@pairs()
async def test_a_slow_reader_gets_it_all_and_holds_up_nobody(
    autojump_clock: MockClock, pair: Pair
) -> None:
    async with pair.connected() as (one, other):
        ours = one.session.open_stream()
        slow = await other.accept()

        async def send() -> None:
            await ours.send_all(PAYLOAD[: 400 * KIB])
            await ours.send_eof()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            got = b""
            while data := await slow.receive_some(8 * KIB):
                got += data
                await trio.sleep(0.1)
                if len(got) == 80 * KIB:
                    quick = one.session.open_stream()
                    async with trio.open_nursery() as beside:
                        beside.start_soon(echo, await other.accept())
                        with trio.fail_after(0.5):
                            assert await ask(quick, b"quick") == b"quick"
        assert got == PAYLOAD[: 400 * KIB]


# --- the connection


@pairs()
async def test_an_idle_connection_stays(autojump_clock: MockClock, pair: Pair) -> None:
    async with pair.connected() as (one, other):
        await trio.sleep(250)
        assert not one.session.closed.is_set()
        assert not other.session.closed.is_set()


@pairs()
async def test_a_goodbye_ends_both_in_order(autojump_clock: MockClock, pair: Pair) -> None:
    async with pair.connected() as (one, other):
        ours = one.session.open_stream()
        await ours.send_all(b"last words")
        await ours.send_eof()
        theirs = await other.accept()
        assert await read_to_end(theirs) == b"last words"
        with trio.fail_after(2):
            await one.session.close(Reason.SHUTTING_DOWN)
            await one.ended.wait()
            await other.ended.wait()
        assert one.reason is Reason.SHUTTING_DOWN
        assert other.reason is Reason.CONNECTION_LOST
        with pytest.raises(StreamReset):
            await theirs.send_all(b"x")
        for end in (one, other):
            with pytest.raises(StreamReset):
                end.session.open_stream()


@pairs()
async def test_the_loss_of_the_connection_frees_a_waiting_writer(
    autojump_clock: MockClock, pair: Pair
) -> None:
    async with pair.connected() as (one, other):
        ours = one.session.open_stream()
        async with outcome_of(lambda: ours.send_all(PAYLOAD)) as sent:
            await other.accept()
            await trio.sleep(1)
            other.session.abort(Reason.IDLE)
            await one.ended.wait()
            await trio.sleep(1)
            assert [type(each) for each in sent] == [StreamReset]
