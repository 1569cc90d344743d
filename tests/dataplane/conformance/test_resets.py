"""A reset in every state of a stream: whoever uses it learns it, and nobody else notices."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from appliance.dataplane.streams import Carrier
from appliance.errors import StreamReset
from tests.dataplane.conformance.muxers import (
    Defect,
    End,
    Pair,
    ask,
    forgotten,
    pair_cells,
    pairs,
    serve,
)
from tests.dataplane.conformance.wire import INITIAL_WINDOW
from tests.dataplane.sessions import outcome_of, read_to_end


def roles(*, resets: str | None = None, learns: str | None = None) -> Any:
    """Every pair in both roles, reset by the end that opened the stream or by the other.

    `resets` and `learns` say why stock fails as the one that does it, and as the other.
    """
    cells = [
        *pair_cells("opener-", one=resets, other=learns, extra=[True]),
        *pair_cells("acceptor-", one=learns, other=resets, extra=[False]),
    ]
    return pytest.mark.parametrize(("pair", "opener_resets"), cells)


async def stream_between(one: End, other: End, opener_resets: bool) -> tuple[Carrier, Carrier]:
    """The end of the stream that will reset it, and the end that will learn it."""
    opened = one.session.open_stream()
    accepted = await other.accept()
    return (opened, accepted) if opener_resets else (accepted, opened)


async def check_over(stream: Carrier) -> None:
    """Its user is told: a reset is no end of file, and nothing can be sent."""
    with trio.fail_after(5):
        with pytest.raises(StreamReset):
            await read_to_end(stream, 1000)
        with pytest.raises(StreamReset):
            await stream.send_all(b"x")


async def check_alive(one: End, other: End) -> None:
    """Both ends forgot the stream, and others work."""
    await forgotten(one, other)
    for asking, serving in ((one, other), (other, one)):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve, serving)
            with trio.fail_after(5):
                assert await ask(asking.session.open_stream(), b"alive") == b"alive"
            nursery.cancel_scope.cancel()


@roles(learns=Defect.RESET_IS_EOF)
async def test_fresh(autojump_clock: MockClock, pair: Pair, opener_resets: bool) -> None:
    async with pair.connected() as (one, other):
        resets, learns = await stream_between(one, other, opener_resets)
        resets.reset()
        await trio.sleep(1)
        await check_over(learns)
        await check_alive(one, other)


@pairs(other=Defect.RESET_IS_EOF)
async def test_before_the_other_end_looked(autojump_clock: MockClock, pair: Pair) -> None:
    async with pair.connected() as (one, other):
        one.session.open_stream().reset()
        await check_over(await other.accept())
        await check_alive(one, other)


@roles(learns=Defect.RESET_IS_EOF)
async def test_after_traffic(autojump_clock: MockClock, pair: Pair, opener_resets: bool) -> None:
    async with pair.connected() as (one, other):
        resets, learns = await stream_between(one, other, opener_resets)
        for here, there in ((resets, learns), (learns, resets)):
            await here.send_all(b"some bytes")
            assert await there.receive_some() == b"some bytes"
        resets.reset()
        await trio.sleep(1)
        await check_over(learns)
        await check_alive(one, other)


@roles(resets=Defect.KEPT, learns=Defect.KEPT)
async def test_in_front_of_unread_bytes(
    autojump_clock: MockClock, pair: Pair, opener_resets: bool
) -> None:
    async with pair.connected() as (one, other):
        resets, learns = await stream_between(one, other, opener_resets)
        await resets.send_all(bytes(100_000))
        await learns.send_all(bytes(100_000))
        await trio.sleep(1)
        resets.reset()
        await trio.sleep(1)
        await check_over(learns)
        await check_alive(one, other)


@roles(learns=Defect.RESET_IS_EOF)
async def test_while_the_other_end_reads(
    autojump_clock: MockClock, pair: Pair, opener_resets: bool
) -> None:
    async with pair.connected() as (one, other):
        resets, learns = await stream_between(one, other, opener_resets)
        async with outcome_of(learns.receive_some) as got:
            resets.reset()
        assert [type(each) for each in got] == [StreamReset]
        await check_alive(one, other)


@roles(resets=Defect.KEPT)
async def test_while_the_other_end_waits_to_send(
    autojump_clock: MockClock, pair: Pair, opener_resets: bool
) -> None:
    async with pair.connected() as (one, other):
        resets, learns = await stream_between(one, other, opener_resets)
        async with outcome_of(lambda: learns.send_all(bytes(INITIAL_WINDOW + 1))) as sent:
            await trio.sleep(1)
            resets.reset()
            await trio.sleep(1)
            assert [type(each) for each in sent] == [StreamReset]
        await check_alive(one, other)


@roles(resets=Defect.READER_FORGOTTEN)
async def test_while_a_task_here_reads(
    autojump_clock: MockClock, pair: Pair, opener_resets: bool
) -> None:
    async with pair.connected() as (one, other):
        resets, _ = await stream_between(one, other, opener_resets)
        async with outcome_of(resets.receive_some) as got:
            resets.reset()
            await trio.sleep(1)
            assert [type(each) for each in got] == [StreamReset]
        await check_alive(one, other)


@roles()
async def test_behind_our_end_of_file(
    autojump_clock: MockClock, pair: Pair, opener_resets: bool
) -> None:
    async with pair.connected() as (one, other):
        resets, learns = await stream_between(one, other, opener_resets)
        await resets.send_all(b"all of it")
        await resets.send_eof()
        assert await read_to_end(learns) == b"all of it"
        resets.reset()
        await trio.sleep(1)
        with pytest.raises(StreamReset):
            await learns.send_all(b"x")
        await check_alive(one, other)


@roles(learns=Defect.RESET_IS_EOF)
async def test_behind_its_end_of_file(
    autojump_clock: MockClock, pair: Pair, opener_resets: bool
) -> None:
    async with pair.connected() as (one, other):
        resets, learns = await stream_between(one, other, opener_resets)
        await learns.send_eof()
        assert await resets.receive_some() == b""
        resets.reset()
        await trio.sleep(1)
        with trio.fail_after(5), pytest.raises(StreamReset):
            await learns.receive_some()
        await check_alive(one, other)


@roles()
async def test_by_both_at_once(autojump_clock: MockClock, pair: Pair, opener_resets: bool) -> None:
    async with pair.connected() as (one, other):
        for stream in await stream_between(one, other, opener_resets):
            stream.reset()
        await check_alive(one, other)


@roles(resets=Defect.UNREAD_CLOSE)
async def test_a_writer_learns_that_nobody_reads_any_more(
    autojump_clock: MockClock, pair: Pair, opener_resets: bool
) -> None:
    """`aclose` of a stream that still receives: its writer must not wait at the window for ever."""
    async with pair.connected() as (one, other):
        closes, writes = await stream_between(one, other, opener_resets)
        async with outcome_of(lambda: writes.send_all(bytes(INITIAL_WINDOW + 1))) as sent:
            await closes.aclose()
            await trio.sleep(1)
            assert [type(each) for each in sent] == [StreamReset]
        await check_alive(one, other)


@roles(resets=Defect.UNREAD_CLOSE)
async def test_a_writer_that_begins_behind_the_close_learns_it_too(
    autojump_clock: MockClock, pair: Pair, opener_resets: bool
) -> None:
    async with pair.connected() as (one, other):
        closes, writes = await stream_between(one, other, opener_resets)
        await closes.aclose()
        assert await writes.receive_some() == b""
        with trio.fail_after(3), suppress(StreamReset):
            await writes.send_all(b"anybody?")
            await trio.sleep(1)
            await writes.send_all(bytes(INITIAL_WINDOW))
            raise AssertionError("all of it went out")
        await check_alive(one, other)
