"""Splices: everything that the pipe promises, without a task and within the windows."""

from __future__ import annotations

import random
import tracemalloc

import pytest
import trio
from trio.testing import MockClock

from appliance.dataplane.pipe import PipeEnd
from appliance.dataplane.windows import INITIAL_WINDOW, READ_WINDOW
from appliance.errors import StreamReset
from appliance.reasons import Reason
from appliance.units import MIB
from tests.dataplane.carriers import carrier_pair
from tests.dataplane.chains import SIDES, chain, ends_of, reset_by, until
from tests.dataplane.frames import data
from tests.dataplane.sessions import exchange, read_to_end, say, settle

PAYLOAD = random.Random(11).randbytes(3 * MIB)
CLEAN = PipeEnd(clean=True)


# --- bytes and ends


@pytest.mark.parametrize(
    ("capacity", "segments", "size"),
    [
        (1 << 30, None, 3 * MIB),
        (1 << 30, [1], 500),
        (7, None, 500),
        (13, [1, 12, 2], 500),
        (5_000, [1, 11, 70_000, 4_096], 200_000),
        (100_000, [65_548, 3, 4_000], 3 * MIB),
        ([300_000, 50], [5_000], 20_000),
        ([50, 300_000], [5_000], 20_000),
    ],
    ids=str,
)
async def test_bytes_and_ends_of_file_both_ways(
    autojump_clock: MockClock, capacity: int | list[int], segments: list[int] | None, size: int
) -> None:
    async with chain(capacity=capacity, segments=segments) as world:
        circuit = await world.circuit()
        await exchange(circuit.source, circuit.target, PAYLOAD[:size], PAYLOAD[-size:])
        await until(lambda: circuit.joint.ends)
        assert circuit.joint.ends == [CLEAN]
        assert (circuit.joint.counts.forward, circuit.joint.counts.backward) == (size, size)
        await settle()
        world.assert_empty()


@pytest.mark.parametrize("first", SIDES)
async def test_a_half_closed_circuit_carries_on(autojump_clock: MockClock, first: str) -> None:
    async with chain() as world:
        circuit = await world.circuit()
        early, late = ends_of(circuit, first)
        await say(early, b"question")
        assert await read_to_end(late) == b"question"
        await trio.sleep(10_000)
        assert circuit.joint.ends == []
        for number in range(20):
            await late.send_all(bytes([number]) * 50_000)
            got = b""
            while len(got) < 50_000:
                got += await early.receive_some()
            assert got == bytes([number]) * 50_000
        await late.send_eof()
        assert await read_to_end(early) == b""
        assert circuit.joint.ends == [CLEAN]
        await settle()
        world.assert_empty()


async def test_both_may_end_at_the_same_moment(autojump_clock: MockClock) -> None:
    async with chain() as world:
        circuit = await world.circuit()
        circuit.source.half_close()
        circuit.target.half_close()
        circuit.source.session.flush()
        circuit.target.session.flush()
        assert await read_to_end(circuit.source) == await read_to_end(circuit.target) == b""
        assert circuit.joint.ends == [CLEAN]


@pytest.mark.parametrize("segments", [None, [20_000], [13, 70_000]], ids=str)
@pytest.mark.parametrize("side", SIDES)
async def test_an_end_of_file_waits_its_turn_behind_what_is_held(
    autojump_clock: MockClock, side: str, segments: list[int] | None
) -> None:
    """The target's window is full, bytes wait at its head and in line, and then comes the end."""
    async with chain(segments=segments) as world:
        circuit = await world.circuit()
        here, there = ends_of(circuit, side)
        payload = PAYLOAD[: INITIAL_WINDOW + 200_000]
        await say(here, payload)
        await settle()
        assert world.plane.unread > 0 and circuit.joint.ends == []
        assert await read_to_end(there) == payload
        await say(there, b"thanks")
        assert await read_to_end(here) == b"thanks"
        assert circuit.joint.ends == [CLEAN]
        await settle()
        world.assert_empty()


@pytest.mark.parametrize(
    "when", ["at once", "after bytes", "after its end", "after the other end", "while it stalls"]
)
@pytest.mark.parametrize("side", SIDES)
async def test_a_reset_goes_through_at_any_moment(
    autojump_clock: MockClock, side: str, when: str
) -> None:
    async with chain() as world:
        circuit = await world.circuit()
        here, there = ends_of(circuit, side)
        match when:
            case "after bytes":
                await here.send_all(b"x")
                await there.send_all(b"y")
            case "after its end":
                await here.send_eof()
            case "after the other end":
                await there.send_eof()
            case "while it stalls":
                await here.send_all(PAYLOAD[: INITIAL_WINDOW + 100_000])
                await there.send_all(PAYLOAD[: INITIAL_WINDOW + 100_000])
        await settle()
        assert circuit.joint.ends == []
        here.reset()
        await settle()
        with pytest.raises(StreamReset):
            await read_to_end(there)
        assert circuit.joint.ends == [reset_by(side)]
        world.assert_empty()


@pytest.mark.parametrize("busy", [False, True])
@pytest.mark.parametrize("how", ["the peer aborts", "the relay aborts", "the carrier dies"])
@pytest.mark.parametrize("side", SIDES)
async def test_a_connection_that_ends_resets_its_circuits_and_no_other_connection(
    autojump_clock: MockClock, side: str, how: str, busy: bool
) -> None:
    async with chain() as world:
        circuits = [await world.circuit() for _ in range(3)]
        outer, inner = world.links[0] if side == "source" else world.links[1][::-1]
        if busy:
            for circuit in circuits:
                await circuit.source.send_all(PAYLOAD[: INITIAL_WINDOW + 100_000])
                await circuit.target.send_all(PAYLOAD[: INITIAL_WINDOW + 100_000])
            await settle()
            assert world.plane.unread > 0
        if how == "the peer aborts":
            outer.session.abort(Reason.SHUTTING_DOWN)
        elif how == "the relay aborts":
            inner.session.abort(Reason.SHUTTING_DOWN)
        else:
            outer.carrier.reset()
        for circuit in circuits:
            with pytest.raises(StreamReset):
                await read_to_end(ends_of(circuit, side)[1])
            assert circuit.joint.ends == [reset_by(side)]
        await settle()
        survivors = world.links[1] if side == "source" else world.links[0]
        assert not any(port.session.closed.is_set() for port in survivors)
        assert not any(port.session._streams for port in survivors)
        assert world.plane.unread == 0
        near = survivors[0].session.open_stream()
        await say(near, b"alive")
        far = await survivors[1].accepted.receive()
        assert await read_to_end(far) == b"alive"


async def test_what_a_peer_had_sent_to_its_end_survives_its_connection(
    autojump_clock: MockClock,
) -> None:
    """Both directions of its stream had ended; only the other side was not fast enough yet."""
    async with chain() as world:
        circuit = await world.circuit()
        payload = PAYLOAD[: INITIAL_WINDOW + 150_000]
        await say(circuit.source, payload)
        await circuit.target.send_eof()
        assert await read_to_end(circuit.source) == b""
        world.links[0][0].session.abort(Reason.SHUTTING_DOWN)
        await settle()
        assert circuit.joint.ends == []
        assert await read_to_end(circuit.target) == payload
        assert circuit.joint.ends == [CLEAN]
        assert world.plane.unread == 0


# --- one circuit and another


@pytest.mark.parametrize("how", ["close", "half-close", "reset"])
@pytest.mark.parametrize("side", SIDES)
async def test_one_circuit_never_touches_another(
    autojump_clock: MockClock, side: str, how: str
) -> None:
    async with chain(capacity=5_000, segments=[1, 4_000]) as world:
        before, ended, after = [await world.circuit() for _ in range(3)]
        head, tail = PAYLOAD[:200_000], PAYLOAD[-200_000:]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(exchange, before.source, before.target, head, tail)
            nursery.start_soon(exchange, after.source, after.target, tail, head)
            here, there = ends_of(ended, side)
            await here.send_all(b"some bytes")
            assert await there.receive_some() == b"some bytes"
            match how:
                case "close":
                    await here.aclose()
                    await there.aclose()
                case "half-close":
                    await here.send_eof()
                    assert await there.receive_some() == b""
                case "reset":
                    here.reset()
            await settle()
            new = await world.circuit()
            await exchange(new.source, new.target, b"there", b"back")
        assert before.joint.ends == after.joint.ends == new.joint.ends == [CLEAN]
        assert len(ended.joint.ends) == (how != "half-close")


@pytest.mark.parametrize("side", SIDES)
async def test_a_stalled_circuit_holds_its_sender_back_and_nobody_else(
    autojump_clock: MockClock, side: str
) -> None:
    async with chain() as world:
        stalled, other = await world.circuit(), await world.circuit()
        here, there = ends_of(stalled, side)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(say, here, PAYLOAD)
            await trio.sleep(100)
            # What left is in the window of the last reader, the rest in the relay's.
            assert stalled.joint.counts.total == INITIAL_WINDOW
            held = world.plane.unread
            assert 0 < held <= READ_WINDOW
            assert held == stalled.joint.left.unread + stalled.joint.right.unread
            await exchange(other.source, other.target, PAYLOAD, PAYLOAD[::-1])
            assert world.plane.unread == held, "the stalled one got nothing more"
            assert await read_to_end(there) == PAYLOAD
        assert other.joint.ends == [CLEAN]


@pytest.mark.parametrize("step", [13, 26, 13 * 300, 1 << 20], ids=lambda step: f"{step} a read")
async def test_single_bytes_for_a_stalled_target_cost_about_what_they_weigh(
    autojump_clock: MockClock, step: int
) -> None:
    near, far = carrier_pair(segments=[step])
    async with chain(pairs=[(near, far), carrier_pair()]) as world:
        circuit = await world.circuit()
        far._segment = lambda: 1 << 20
        await circuit.source.send_all(bytes(INITIAL_WINDOW))
        await settle()
        assert world.plane.unread == 0 and circuit.joint.counts.forward == INITIAL_WINDOW
        far._segment = lambda: step
        count = 3_000
        wire = data(circuit.source.stream_id, b"!") * count
        tracemalloc.start()
        try:
            far._in.buffer += wire
            del wire
            far._in.touch()
            before = tracemalloc.get_traced_memory()[0] - count * 13
            await until(lambda: world.plane.unread == count)
            await settle()
            cost = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
        assert cost < 50_000, "an entry for each would be 600,000"
        got = b""
        while len(got) < INITIAL_WINDOW + count:
            got += await circuit.target.receive_some()
        assert got == bytes(INITIAL_WINDOW) + b"!" * count
        await until(lambda: world.plane.unread == 0)


# --- what was there before


@pytest.mark.parametrize("segments", [None, [1]], ids=str)
@pytest.mark.parametrize("side", SIDES)
async def test_what_came_before_the_splice_keeps_its_order(
    autojump_clock: MockClock, side: str, segments: list[int] | None
) -> None:
    async with chain(segments=segments) as world:
        circuit = await world.streams()
        joint = circuit.joint
        here, there = ends_of(circuit, side)
        inner = joint.left if side == "source" else joint.right
        await here.send_all(b"read already, waiting, ")
        early = b""
        while len(early) < 14:
            early += await inner.receive_some(14 - len(early))
        assert early == b"read already, "
        await settle()
        joint.join(world.plane, leftover=(early, b"") if side == "source" else (b"", early))
        await say(here, b"yet to come")
        assert await read_to_end(there) == b"read already, waiting, yet to come"
        await say(there, b"ok")
        assert await read_to_end(here) == b"ok"
        assert joint.ends == [CLEAN]
        assert joint.counts.total == len(b"read already, waiting, yet to come") + 2
        await settle()
        world.assert_empty()


@pytest.mark.parametrize("size", [0, 10, INITIAL_WINDOW])
async def test_ends_of_file_before_the_splice(autojump_clock: MockClock, size: int) -> None:
    async with chain() as world:
        circuit = await world.streams()
        await say(circuit.source, PAYLOAD[:size])
        await say(circuit.target, PAYLOAD[-size:] if size else b"")
        await settle()
        circuit.joint.join(world.plane)
        assert await read_to_end(circuit.target) == PAYLOAD[:size]
        assert await read_to_end(circuit.source) == (PAYLOAD[-size:] if size else b"")
        assert circuit.joint.ends == [CLEAN]
        await settle()
        world.assert_empty()


@pytest.mark.parametrize("how", ["reset", "connection"])
@pytest.mark.parametrize("side", SIDES)
async def test_a_reset_before_the_splice(autojump_clock: MockClock, side: str, how: str) -> None:
    async with chain() as world:
        circuit = await world.streams()
        here, there = ends_of(circuit, side)
        await here.send_all(b"lost")
        await there.send_all(b"too")
        await settle()
        if how == "reset":
            here.reset()
        else:
            port = world.links[0][0] if side == "source" else world.links[1][1]
            port.session.abort(Reason.SHUTTING_DOWN)
        await settle()
        circuit.joint.join(world.plane)
        assert circuit.joint.ends == [reset_by(side)]
        assert circuit.joint.splice is not None and circuit.joint.splice.over
        await settle()
        with pytest.raises(StreamReset):
            await read_to_end(there)
        assert world.plane.unread == 0
