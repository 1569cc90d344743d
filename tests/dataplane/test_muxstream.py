"""One stream: how it keeps what came, and what holds when somebody is cancelled."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Awaitable, Callable

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from appliance.dataplane.muxstream import MuxStream
from appliance.dataplane.streams import BATCH
from appliance.dataplane.windows import INITIAL_WINDOW
from appliance.errors import StreamReset
from appliance.units import KIB, MIB
from tests.dataplane.sessions import (
    assert_accounted,
    outcome_of,
    read_to_end,
    settle,
    stream_pair,
    two_ends,
)

PAYLOAD = random.Random(11).randbytes(2 * MIB)


class Quiet:
    """A session that only counts: what a stream may ask of one."""

    def __init__(self) -> None:
        self.unread = 0
        self.credited = 0

    def window_of(self, stream: MuxStream) -> int:
        return 0

    def offer(self, stream: MuxStream) -> None: ...

    def flush(self) -> None: ...

    def flush_credit(self) -> None: ...

    def pump(self) -> None: ...

    def add_unread(self, size: int) -> None:
        self.unread += size

    def credit(self, stream: MuxStream, consumed: int) -> None:
        self.credited += consumed

    def send_eof(self, stream: MuxStream) -> None: ...

    def forget_if_over(self, stream: MuxStream) -> None: ...

    def reset_stream(self, stream: MuxStream) -> None: ...

    def reset_unless_it_ends(self, stream: MuxStream) -> None: ...


# --- what is kept


@pytest.mark.parametrize("piece", [1, 100, 4 * KIB - 1, 4 * KIB])
def test_unread_bytes_cost_about_what_they_weigh(piece: int) -> None:
    """A peer that sends a window's worth of tiny frames to nobody must not cost much more."""
    stream = MuxStream(Quiet(), 1)
    data = memoryview(PAYLOAD)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for at in range(0, INITIAL_WINDOW, piece):
            stream.deliver(data[at : at + piece])
        after, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert stream.unread >= INITIAL_WINDOW
    assert after - before < 1.5 * INITIAL_WINDOW
    assert most - before < 2 * INITIAL_WINDOW


def test_large_and_tiny_pieces_in_turn_cost_about_what_they_weigh_too() -> None:
    stream = MuxStream(Quiet(), 1)
    data = memoryview(PAYLOAD)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        while stream.unread < INITIAL_WINDOW:
            stream.deliver(data[: 4 * KIB])
            stream.deliver(data[:1])
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 1.5 * INITIAL_WINDOW


ACTS = st.lists(
    st.one_of(
        st.tuples(st.just("deliver"), st.one_of(st.integers(1, 10), st.integers(1, 70_000))),
        st.tuples(st.just("read"), st.one_of(st.integers(1, 10), st.integers(1, 70_000))),
        st.tuples(st.just("drive"), st.just(BATCH)),
    ),
    max_size=60,
)


@settings(max_examples=150)
@given(acts=ACTS)
def test_bytes_come_out_as_they_came_in_whatever_the_pieces(acts: list[tuple[str, int]]) -> None:
    session = Quiet()
    stream = MuxStream(session, 1)
    came = read = 0
    received = bytearray(BATCH)  # one buffer for all that arrives, used again and again
    into = memoryview(bytearray(BATCH))
    for kind, size in acts:
        if kind == "deliver":
            received[:size] = PAYLOAD[came : came + size]
            stream.deliver(memoryview(received)[:size])
            received[:size] = b"\xaa" * size
            came += size
        elif came > read:
            if kind == "drive":
                got = bytes(into[: stream.receive_nowait(into)])
            else:
                got = stream._take(size)
                stream.credit(len(got))
            # All that is there, in one piece.
            assert got == PAYLOAD[read : min(came, read + size)]
            read += len(got)
        else:
            with pytest.raises(trio.WouldBlock):
                stream.receive_nowait(into)
        assert stream.unread == session.unread == came - read
        assert session.credited == read
    stream.reset()
    assert stream.unread == session.unread == 0


async def test_small_messages_that_wait_are_received_together(autojump_clock: MockClock) -> None:
    async with two_ends() as (one, other):
        ours, theirs = await stream_pair(one, other)
        for at in range(100):
            await ours.send_all(PAYLOAD[at * 100 : at * 100 + 100])
        await settle()
        assert await theirs.receive_some() == PAYLOAD[:10_000]
        assert_accounted(other.session.plane, other.session)


async def test_a_buffer_may_be_changed_once_it_was_sent(autojump_clock: MockClock) -> None:
    """Also one that was resized, and with all sizes of carriers and windows in between."""
    for capacity in (1000, 100_000, 1 << 30):
        async with two_ends(capacity=capacity) as (one, other):
            ours, theirs = await stream_pair(one, other)

            async def send(stream: MuxStream = ours) -> None:
                buffer = bytearray()
                for at in range(0, len(PAYLOAD), 300_000):
                    buffer[:] = PAYLOAD[at : at + 300_000]
                    await stream.send_all(buffer)
                    buffer[:] = b"\xaa" * 10
                await stream.send_eof()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(send)
                assert await read_to_end(theirs) == PAYLOAD


async def test_what_send_nowait_was_given_was_only_on_loan(autojump_clock: MockClock) -> None:
    for capacity in (10, 1 << 30):
        async with two_ends(capacity=capacity) as (one, other):
            ours, theirs = await stream_pair(one, other)
            batch = bytearray(BATCH)

            async def send(stream: MuxStream = ours, batch: bytearray = batch) -> None:
                for at in range(0, len(PAYLOAD), BATCH):
                    batch[:] = PAYLOAD[at : at + BATCH]
                    stream.send_nowait(memoryview(batch))
                    batch[:] = b"\xaa" * BATCH
                    await stream.drain()
                    assert not stream.sending
                await stream.send_eof()

            if capacity == 10:
                one.carrier._out.capacity = 50_000
            async with trio.open_nursery() as nursery:
                nursery.start_soon(send)
                assert await read_to_end(theirs) == PAYLOAD


async def test_a_send_that_was_cut_off_by_the_carrier_does_not_return(
    autojump_clock: MockClock,
) -> None:
    """The carrier is gone when the first of several batches is sent: within the first call."""
    async with two_ends() as (one, other):
        ours, _ = await stream_pair(one, other)
        one.carrier._out.reset = True
        with pytest.raises(StreamReset):
            await ours.send_all(PAYLOAD)


# --- cancellation


WAITS: dict[str, Callable[[MuxStream], Awaitable[object]]] = {
    "receive_some": lambda stream: stream.receive_some(),
    "wait_receivable": lambda stream: stream.wait_receivable(),
    "send_all": lambda stream: stream.send_all(PAYLOAD),
    "drain": lambda stream: stream.drain(),
    "send_eof": lambda stream: stream.send_eof(),
}


@pytest.mark.parametrize("rounds", range(4))
@pytest.mark.parametrize("wait", WAITS)
async def test_whoever_was_cancelled_leaves_its_place_to_the_next(
    autojump_clock: MockClock, wait: str, rounds: int
) -> None:
    """Nothing that waited before is woken in its stead, or stands in the way."""
    async with two_ends() as (one, other):
        ours, theirs = await stream_pair(one, other)
        if wait in ("drain", "send_eof"):
            ours.send_nowait(memoryview(PAYLOAD))
        for _ in range(3):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(WAITS[wait], ours)
                    await settle(rounds)
                    scope.cancel()
        # The same again, and this time what it waits for happens.
        async with outcome_of(lambda: WAITS[wait](ours)) as outcome:
            await theirs.send_all(b"x")

            async def read() -> None:
                while True:  # also behind the end of file, where everybody else must go on
                    await theirs.receive_some()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(read)
                await settle(300)
                nursery.cancel_scope.cancel()
        expected = {"receive_some": b"x"}
        assert outcome == [expected.get(wait)]
        assert not ours.sending
        assert_accounted(other.session.plane, other.session)
        assert_accounted(one.session.plane, one.session)


@pytest.mark.parametrize("after", range(12))
async def test_a_cancelled_driver_loses_nothing(autojump_clock: MockClock, after: int) -> None:
    """`wait_receivable` and `drain` are cancelled at every moment, and gone on with."""
    payload = PAYLOAD[: 600 * KIB]
    async with two_ends(capacity=30_000) as (one, other):
        ours, theirs = await stream_pair(one, other)
        got = bytearray()

        async def cut(operation: Callable[[], Awaitable[None]]) -> None:
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:

                    async def cancel() -> None:
                        await settle(after)
                        scope.cancel()

                    nursery.start_soon(cancel)
                    await operation()
                    nursery.cancel_scope.cancel()

        async def send() -> None:
            for at in range(0, len(payload), 100_000):
                ours.send_nowait(memoryview(payload)[at : at + 100_000])
                while ours.sending:
                    await cut(ours.drain)
                    await trio.lowlevel.checkpoint()
            await ours.send_eof()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            into = memoryview(bytearray(BATCH))
            while True:
                try:
                    size = theirs.receive_nowait(into)
                except trio.WouldBlock:
                    await cut(theirs.wait_receivable)
                    await trio.lowlevel.checkpoint()
                    continue
                other.session.flush()
                if not size:
                    break
                got += into[:size]
        assert got == payload
