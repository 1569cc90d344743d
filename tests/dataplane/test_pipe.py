"""The pipe: bytes, ends of file in every order, resets of each side, the limit, cancellation."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import trio
from trio.testing import MockClock

from appliance.bridge.negotiate import NegotiatedStream
from appliance.dataplane.pipe import CHUNK, PipeCounts, PipeEnd, Side, pipe
from appliance.errors import RemoteProtocolError, StreamReset
from appliance.reasons import Reason
from appliance.wire import multistream
from tests.dataplane.carriers import MemoryCarrier, carrier_pair
from tests.dataplane.sessions import exchange, read_to_end, settle

PAYLOAD = random.Random(6).randbytes(1_000_000)


@dataclass
class Piped:
    """The outer ends of a running pipe."""

    left: MemoryCarrier
    right: MemoryCarrier
    inner: tuple[MemoryCarrier, MemoryCarrier]
    scope: trio.CancelScope
    counts: PipeCounts = field(default_factory=PipeCounts)
    end: PipeEnd | None = None
    over: trio.Event = field(default_factory=trio.Event)
    first_backward: int = 0


@asynccontextmanager
async def piped(*, limit: int = 0, capacity: int = 1 << 30) -> AsyncIterator[Piped]:
    left, inner_left = carrier_pair(capacity=capacity)
    right, inner_right = carrier_pair(capacity=capacity)
    state = Piped(left, right, (inner_left, inner_right), trio.CancelScope())

    def first() -> None:
        state.first_backward += 1

    async def run() -> None:
        with state.scope:
            state.end = await pipe(
                inner_left, inner_right, state.counts, limit=limit, on_first_backward=first
            )
        state.over.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        yield state
        with trio.fail_after(1000):
            await state.over.wait()


async def test_bytes_and_ends_of_file_both_ways(autojump_clock: MockClock) -> None:
    async with piped(capacity=5000) as state:
        await exchange(state.left, state.right, PAYLOAD, PAYLOAD[::-1])
    assert state.end == PipeEnd(clean=True)
    assert (state.counts.forward, state.counts.backward) == (len(PAYLOAD), len(PAYLOAD))
    assert state.counts.total == 2 * len(PAYLOAD)
    assert state.first_backward == 1


@pytest.mark.parametrize("left_first", [True, False])
async def test_a_half_closed_pipe_carries_on(autojump_clock: MockClock, left_first: bool) -> None:
    async with piped() as state:
        early, late = (state.left, state.right) if left_first else (state.right, state.left)
        await early.send_all(b"question")
        await early.send_eof()
        assert await read_to_end(late) == b"question"
        await trio.sleep(10_000)
        assert state.end is None
        await late.send_all(b"answer")
        await late.send_eof()
        assert await read_to_end(early) == b"answer"
    assert state.end == PipeEnd(clean=True)


@pytest.mark.parametrize("when", ["at once", "after bytes", "after its end", "after the other end"])
@pytest.mark.parametrize("side", ["left", "right"])
async def test_a_reset_goes_through(autojump_clock: MockClock, side: Side, when: str) -> None:
    async with piped() as state:
        here, there = (state.left, state.right) if side == "left" else (state.right, state.left)
        match when:
            case "after bytes":
                await here.send_all(b"x")
                await there.send_all(b"y")
            case "after its end":
                await here.send_eof()
            case "after the other end":
                await there.send_eof()
        await settle()
        here.reset()
        if when == "after its end":
            # Nobody reads from that side any more: the next byte to it tells.
            await there.send_all(b"z")
        await state.over.wait()
        with pytest.raises(StreamReset):
            await read_to_end(there)
    assert state.end == PipeEnd(clean=False, reset_by=side)
    assert all(inner.was_reset for inner in state.inner)


@pytest.mark.parametrize("forward", [True, False])
@pytest.mark.parametrize("limit", [1, 1000, CHUNK, CHUNK + 1])
async def test_the_limit_is_exact_to_the_byte(
    autojump_clock: MockClock, limit: int, forward: bool
) -> None:
    async with piped(limit=limit) as state:
        here, there = (state.left, state.right) if forward else (state.right, state.left)
        await here.send_all(PAYLOAD[:limit])
        await here.send_eof()
        assert await read_to_end(there) == PAYLOAD[:limit]
        await there.send_all(PAYLOAD[:limit])
        await there.send_eof()
        assert await read_to_end(here) == PAYLOAD[:limit]
    assert state.end == PipeEnd(clean=True), "each direction has the limit for itself"

    async with piped(limit=limit) as state:
        here, there = (state.left, state.right) if forward else (state.right, state.left)
        await here.send_all(PAYLOAD[:limit])
        await settle()
        await here.send_all(b"!")
        await state.over.wait()
        assert there.unread == limit, "the byte beyond it was not carried"
        with pytest.raises(StreamReset):
            await read_to_end(there)
        with pytest.raises(StreamReset):
            await read_to_end(here)
    assert state.end == PipeEnd(clean=False, over_limit=True)
    assert state.counts.total == limit


async def test_a_stalled_side_holds_the_other_back(autojump_clock: MockClock) -> None:
    async with piped(capacity=CHUNK) as state:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(state.left.send_all, PAYLOAD)
            await trio.sleep(100)
            # One chunk in the pipe, one in each carrier.
            assert state.counts.forward + state.inner[0].unread <= 2 * CHUNK
            assert state.right.unread == CHUNK
            got = b""
            while len(got) < len(PAYLOAD):
                got += await state.right.receive_some()
            assert got == PAYLOAD
        state.left.reset()


@pytest.mark.parametrize("moment", ["idle", "sending", "after one end", "closing"])
async def test_cancelled_it_resets_both(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    async with piped(capacity=1000) as state:
        match moment:
            case "sending":
                await state.left.send_all(bytes(1500))
            case "after one end":
                await state.left.send_eof()
            case "closing":
                # Cancelled between the two closes: the second stream must not be forgotten.
                real = state.inner[0].aclose

                async def slow() -> None:
                    await real()
                    await trio.sleep(5)

                monkeypatch.setattr(state.inner[0], "aclose", slow)
                await state.left.send_eof()
                await state.right.send_eof()
        await trio.sleep(1)
        state.scope.cancel()
        await state.over.wait()
    assert state.end is None
    assert all(inner.was_reset for inner in state.inner)


async def test_a_protocol_that_is_refused_late_is_that_fault_alone(
    autojump_clock: MockClock,
) -> None:
    """Not a group of exceptions, which the guard of the bridge would call a bug of ours."""
    node, inner_left = carrier_pair()
    peer, inner_right = carrier_pair()
    stream = NegotiatedStream.propose(inner_right, "/kaspad/transport/1.0.0")
    await node.send_all(b"PRI * HTTP/2.0")
    await peer.send_all(multistream.line(multistream.HEADER) + multistream.line("na"))
    with pytest.raises(RemoteProtocolError) as caught:
        await pipe(inner_left, stream, PipeCounts())
    assert caught.value.reason is Reason.UNSUPPORTED_PROTOCOL
    assert inner_left.was_reset and inner_right.was_reset
