"""A connection inside a stream of another one, as through a relay: the same machines twice."""

from __future__ import annotations

import random
from contextlib import suppress
from hashlib import sha256

import pytest
import trio
from trio.testing import MockClock

from appliance.dataplane.channel import CipherState, SecureChannel
from appliance.dataplane.plane import Plane, PlaneLimits
from appliance.dataplane.secure import SecureStream
from appliance.dataplane.session import MuxStream, Session
from appliance.dataplane.streams import BATCH, Carrier
from appliance.dataplane.windows import INITIAL_WINDOW
from appliance.errors import StreamReset
from appliance.reasons import Reason
from appliance.units import KIB, MIB
from tests.dataplane.carriers import carrier_pair
from tests.dataplane.sessions import (
    End,
    assert_over,
    assert_settled,
    outcome_of,
    read_to_end,
    settle,
    stream_pair,
)

PAYLOAD = random.Random(12).randbytes(6 * MIB)
NO_GROWTH = PlaneLimits(connection_growth=0, total_growth=0)
TIGHT = PlaneLimits(
    connection_unread=64 * KIB, total_unread=64 * KIB, assured=16 * KIB, connection_growth=0
)


def secured(one: Carrier, other: Carrier, number: int) -> tuple[SecureStream, SecureStream]:
    keys = [random.Random(f"{number} {way}").randbytes(32) for way in range(2)]
    return (
        SecureStream(one, SecureChannel(CipherState(keys[0]), CipherState(keys[1]))),
        SecureStream(other, SecureChannel(CipherState(keys[1]), CipherState(keys[0]))),
    )


async def nested(
    nursery: trio.Nursery,
    depth: int,
    planes: tuple[Plane, Plane],
    *,
    capacity: int = 1 << 30,
    segments: list[int] | None = None,
) -> list[tuple[End, End]]:
    """Connections, each but the first inside a stream of the one before, all secured."""
    memory = carrier_pair(capacity=capacity, segments=segments)
    carriers: tuple[Carrier, Carrier] = memory
    levels: list[tuple[End, End]] = []
    for number in range(depth):
        secure = secured(*carriers, number)
        one, other = (
            End(memory[side], Session(secure[side], client=not side, plane=planes[side]))
            for side in range(2)
        )
        nursery.start_soon(one.run)
        nursery.start_soon(other.run)
        levels.append((one, other))
        if number < depth - 1:
            carriers = await stream_pair(one, other)
    return levels


async def digest(stream: MuxStream) -> str:
    seen = sha256()
    while data := await stream.receive_some(BATCH):
        seen.update(data)
    return seen.hexdigest()


@pytest.mark.parametrize(
    "limits", [PlaneLimits(), NO_GROWTH, TIGHT], ids=["wide", "narrow", "tight"]
)
@pytest.mark.parametrize("same_plane", [False, True], ids=["two hosts", "one host"])
@pytest.mark.parametrize(
    ("capacity", "segments"), [(1 << 30, None), (40_000, [1, 70_000, 1_000])], ids=["", "cut"]
)
@pytest.mark.parametrize("depth", [2, 3])
async def test_bulk_both_ways_through_a_stream_of_another_connection(
    autojump_clock: MockClock,
    depth: int,
    capacity: int,
    segments: list[int] | None,
    same_plane: bool,
    limits: PlaneLimits,
) -> None:
    plane = Plane(limits)
    planes = (plane, plane if same_plane else Plane(limits))
    digests: list[str] = []
    size = 400_000
    async with trio.open_nursery() as nursery:
        levels = await nested(nursery, depth, planes, capacity=capacity, segments=segments)
        one, other = levels[-1]

        async def send(stream: MuxStream, start: int) -> None:
            await stream.send_all(PAYLOAD[start : start + size])
            await stream.send_eof()

        async def receive(stream: MuxStream, start: int) -> None:
            assert await digest(stream) == sha256(PAYLOAD[start : start + size]).hexdigest()
            digests.append("as sent")

        async with trio.open_nursery() as both:
            for number in range(3):
                ours, theirs = await stream_pair(one, other)
                for sender, receiver, start in (
                    (ours, theirs, 1000 * number),
                    (theirs, ours, 2 * MIB + 1000 * number),
                ):
                    both.start_soon(send, sender, start)
                    both.start_soon(receive, receiver, start)
        assert digests == ["as sent"] * 6
        await settle()
        for end in (one, other):
            assert end.session.unread == 0 and end.session.open_streams == 0
            assert_settled(end.session.plane)
        for one, other in reversed(levels):
            await one.session.close(Reason.SHUTTING_DOWN)
            await other.ended.wait()
    assert_over(*(end.session for pair in levels for end in pair))


async def test_the_end_of_the_connection_below_is_the_end_of_those_above(
    autojump_clock: MockClock,
) -> None:
    plane = Plane()
    async with trio.open_nursery() as nursery:
        levels = await nested(nursery, 3, (plane, plane))
        ours, theirs = await stream_pair(*levels[-1])
        async with outcome_of(ours.receive_some) as here, outcome_of(theirs.receive_some) as there:
            levels[0][0].session.abort(Reason.IDLE)
        assert isinstance(here[0], StreamReset) and isinstance(there[0], StreamReset)
        for one, other in levels:
            await one.ended.wait()
            await other.ended.wait()
    assert_over(*(end.session for pair in levels for end in pair))


async def test_a_relay_that_changes_a_byte_ends_the_connection_above_alone(
    autojump_clock: MockClock,
) -> None:
    plane = Plane()
    async with trio.open_nursery() as nursery:
        (below,) = await nested(nursery, 1, (plane, plane))
        ours, theirs = await stream_pair(*below)
        secure = secured(ours, theirs, 1)
        above = End(below[0].carrier, Session(secure[0], client=True, plane=plane))
        nursery.start_soon(above.run)
        async with outcome_of(above.session.open_stream().receive_some) as outcome:
            batch = bytearray(1000)
            _, wire = secured(ours, theirs, 1)
            size = wire._channel.seal(memoryview(b"a frame"), memoryview(batch))
            batch[5] ^= 1
            await theirs.send_all(memoryview(batch)[:size])
        assert isinstance(outcome[0], StreamReset)
        assert above.reason is Reason.NOISE_VIOLATION
        await settle()
        with pytest.raises(StreamReset):
            await read_to_end(theirs)
        for end in below:
            assert not end.session.closed.is_set() and end.session.open_streams == 0
            end.session.abort(Reason.IDLE)
    assert_over(above.session, *(end.session for end in below))


async def test_a_stalled_reader_above_stops_nobody_else_below(autojump_clock: MockClock) -> None:
    """The connection above is a stream like any other: its window closes, that is all."""
    planes = Plane(NO_GROWTH), Plane(NO_GROWTH)
    async with trio.open_nursery() as nursery:
        levels = await nested(nursery, 2, planes)
        below, above = levels
        ours, stalled = await stream_pair(*above)
        nursery.start_soon(_send, ours)
        await settle(200)
        held = stalled.unread
        assert held == INITIAL_WINDOW
        beside, there = await stream_pair(*below)
        nursery.start_soon(_send, beside)
        got = 0
        while got < 4 * MIB:
            got += len(await there.receive_some())
        assert trio.current_time() < 1 and stalled.unread == held
        for one, other in levels:
            one.session.abort(Reason.IDLE)
            other.session.abort(Reason.IDLE)
    assert_over(*(end.session for pair in levels for end in pair))


async def _send(stream: MuxStream) -> None:
    with suppress(StreamReset):
        while True:
            await stream.send_all(PAYLOAD)
