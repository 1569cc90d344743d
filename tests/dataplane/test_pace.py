"""The pace of circuits: a rate for each, fair shares of what is common, nothing lost by waiting."""

from __future__ import annotations

import hashlib
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import pytest
import trio
from trio.testing import MockClock

from appliance.dataplane.alarms import Alarms
from appliance.dataplane.fair import QUANTUM
from appliance.dataplane.muxstream import MuxStream
from appliance.dataplane.pace import Pacer
from appliance.dataplane.pipe import PipeEnd
from appliance.errors import StreamReset
from appliance.units import KIB, MIB
from tests.dataplane.carriers import carrier_pair
from tests.dataplane.chains import Chain, Circuit, chain, until
from tests.dataplane.sessions import read_to_end, settle

PAYLOAD = random.Random(12).randbytes(2 * MIB)
CLEAN = PipeEnd(clean=True)


@dataclass
class Paced:
    """A relay between two peers, and its pacer."""

    chain: Chain
    alarms: Alarms
    pacer: Pacer
    nursery: trio.Nursery

    async def circuit(self, *, limit: int = 0) -> Circuit:
        return await self.chain.circuit(pacer=self.pacer, limit=limit)

    def assert_idle(self) -> None:
        self.chain.assert_empty()
        assert not self.pacer._queue


@asynccontextmanager
async def paced(
    *, each: float = 0.0, together: float = 0.0, segments: list[int] | None = None
) -> AsyncIterator[Paced]:
    alarms = Alarms()
    pairs = [carrier_pair(segments=segments), carrier_pair()]
    async with chain(pairs=pairs) as world, trio.open_nursery() as nursery:
        nursery.start_soon(alarms.run)
        yield Paced(world, alarms, Pacer(alarms, each=each, together=together), nursery)
        nursery.cancel_scope.cancel()


async def feed(stream: MuxStream, piece: int, pause: float = 0.0) -> None:
    """Send for ever, `piece` bytes at a time."""
    try:
        while True:
            await stream.send_all(PAYLOAD[:piece])
            if pause:
                await trio.sleep(pause)
    except StreamReset:
        pass


async def swallow(stream: MuxStream) -> None:
    try:
        while await stream.receive_some(1 << 20):
            pass
    except StreamReset:
        pass


def start_feeding(
    world: Paced, circuit: Circuit, piece: int = 64 * KIB, pause: float = 0.0
) -> None:
    world.nursery.start_soon(feed, circuit.source, piece, pause)
    world.nursery.start_soon(swallow, circuit.target)


async def shares_of(circuits: list[Circuit], seconds: float) -> list[int]:
    """Bytes that each source got through in that time from now on."""
    before = [circuit.joint.counts.forward for circuit in circuits]
    await trio.sleep(seconds)
    return [
        circuit.joint.counts.forward - had for circuit, had in zip(circuits, before, strict=True)
    ]


@pytest.mark.parametrize("piece", [3_000, 64 * KIB, MIB])
@pytest.mark.parametrize("rate", [20_000, 300_000, 3_000_000])
async def test_the_rate_of_a_circuit_is_kept(
    autojump_clock: MockClock, rate: int, piece: int
) -> None:
    async with paced(each=rate) as world:
        circuit = await world.circuit()
        start = trio.current_time()
        start_feeding(world, circuit, piece)
        burst = max(rate * 0.1, QUANTUM)
        for _ in range(15):
            await trio.sleep(0.317)
            elapsed = trio.current_time() - start
            # The last piece may go into debt.
            assert circuit.joint.counts.forward <= burst + rate * elapsed + QUANTUM
            assert circuit.joint.counts.forward >= rate * elapsed - QUANTUM
            assert len(world.alarms) <= 1
        assert circuit.joint.counts.backward == 0


async def test_each_direction_and_each_circuit_has_the_rate_for_itself(
    autojump_clock: MockClock,
) -> None:
    async with paced(each=1_000_000) as world:
        circuits = [await world.circuit() for _ in range(3)]
        for circuit in circuits:
            start_feeding(world, circuit)
            world.nursery.start_soon(feed, circuit.target, 100_000)
            world.nursery.start_soon(swallow, circuit.source)
        await trio.sleep(4)
        for circuit in circuits:
            for carried in (circuit.joint.counts.forward, circuit.joint.counts.backward):
                assert 4_000_000 - QUANTUM <= carried <= 4_100_000 + QUANTUM
        assert len(world.alarms) <= 6


async def test_after_a_pause_no_more_than_the_burst_comes_at_once(
    autojump_clock: MockClock,
) -> None:
    async with paced(each=1_000_000, together=2_000_000) as world:
        circuit = await world.circuit()
        await trio.sleep(1000)
        start_feeding(world, circuit)
        await settle()
        assert circuit.joint.counts.forward <= 100_000 + QUANTUM


@pytest.mark.parametrize("count", [3, 12])
@pytest.mark.parametrize("segments", [None, [5_000], [40_000]], ids=lambda s: f"segments {s}")
async def test_the_common_rate_is_shared_fairly_whatever_anybody_asks_for(
    autojump_clock: MockClock, count: int, segments: list[int] | None
) -> None:
    rate, seconds = 1_000_000, 8.0
    async with paced(together=rate, segments=segments) as world:
        circuits = [await world.circuit() for _ in range(count)]
        pieces = [300, 5_000, 64 * KIB, MIB]
        for number, circuit in enumerate(circuits):
            start_feeding(world, circuit, pieces[number % len(pieces)])
        await trio.sleep(2)  # until all windows are as wide as they get
        shares = await shares_of(circuits, seconds)
        # No share can be counted closer than the turn that is under way.
        assert max(shares) - min(shares) <= 0.1 * rate * seconds / count + QUANTUM
        assert sum(shares) == pytest.approx(rate * seconds, abs=2 * QUANTUM)
        assert len(world.alarms) <= 1


async def test_circuits_whose_bytes_come_a_little_at_a_time_get_the_same_share(
    autojump_clock: MockClock,
) -> None:
    """Three connections of the source, whose reads have different sizes: as many steps, but what
    is put in line with each is a thirteenth."""
    rate, seconds = 2_000_000, 4.0
    alarms = Alarms()
    async with AsyncExitStack() as stack:
        worlds = [
            await stack.enter_async_context(
                chain(pairs=[carrier_pair(segments=[size]), carrier_pair()])
            )
            for size in (5_000, 64 * KIB, 1 << 20)
        ]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(alarms.run)
            pacer = Pacer(alarms, together=rate)
            circuits = [await world.circuit(pacer=pacer) for world in worlds]
            for circuit in circuits:
                nursery.start_soon(feed, circuit.source, 200_000)
                nursery.start_soon(swallow, circuit.target)
            await trio.sleep(1)
            shares = await shares_of(circuits, seconds)
            nursery.cancel_scope.cancel()
    assert max(shares) - min(shares) <= 0.1 * rate * seconds / 3


async def test_what_others_do_not_use_is_for_whoever_can(autojump_clock: MockClock) -> None:
    async with paced(together=1_000_000) as world:
        idle, modest, greedy = [await world.circuit() for _ in range(3)]
        world.nursery.start_soon(swallow, idle.target)
        start_feeding(world, modest, 10_000, pause=0.1)
        start_feeding(world, greedy, MIB)
        await trio.sleep(1)
        had = greedy.joint.counts.forward, modest.joint.counts.forward
        await trio.sleep(5)
        assert modest.joint.counts.forward - had[1] == pytest.approx(500_000, rel=0.1)
        assert greedy.joint.counts.forward - had[0] == pytest.approx(4_500_000, rel=0.05)
        modest.source.reset()
        await settle()
        had = greedy.joint.counts.forward, 0
        await trio.sleep(5)
        assert greedy.joint.counts.forward - had[0] == pytest.approx(5_000_000, abs=2 * QUANTUM)


@pytest.mark.parametrize("segments", [None, [13, 70_000, 1]], ids=str)
@pytest.mark.parametrize(("each", "together"), [(500_000, 0), (0, 900_000), (400_000, 900_000)])
async def test_nothing_is_lost_or_put_out_of_order(
    autojump_clock: MockClock, each: int, together: int, segments: list[int] | None
) -> None:
    async with paced(each=each, together=together, segments=segments) as world:
        rng = random.Random(each + together)

        async def say(stream: MuxStream, payload: bytes) -> None:
            position = 0
            while position < len(payload):
                piece = rng.choice([1, 100, 5_000, 100_000])
                await stream.send_all(payload[position : position + piece])
                position += piece
            await stream.send_eof()

        async def hear(stream: MuxStream, payload: bytes) -> None:
            heard = await read_to_end(stream)
            assert hashlib.sha256(heard).digest() == hashlib.sha256(payload).digest()

        circuits = [await world.circuit() for _ in range(3)]
        async with trio.open_nursery() as nursery:
            for circuit in circuits:
                nursery.start_soon(say, circuit.source, PAYLOAD[:400_000])
                nursery.start_soon(hear, circuit.target, PAYLOAD[:400_000])
                nursery.start_soon(say, circuit.target, PAYLOAD[-300_000:])
                nursery.start_soon(hear, circuit.source, PAYLOAD[-300_000:])
        assert all(circuit.joint.ends == [CLEAN] for circuit in circuits)
        await settle()
        world.assert_idle()
        await trio.sleep(10)
        assert len(world.alarms) == 0


async def test_the_byte_limit_holds_for_what_waits(autojump_clock: MockClock) -> None:
    async with paced(each=10_000) as world:
        circuit = await world.circuit(limit=100_000)
        await circuit.source.send_all(PAYLOAD[:100_000])
        await settle()
        assert circuit.joint.ends == [] and circuit.joint.counts.forward < 100_000
        await circuit.source.send_all(b"!")
        await settle()
        assert circuit.joint.ends == [PipeEnd(clean=False, over_limit=True)]
        world.assert_idle()
        assert len(world.alarms) == 0


@pytest.mark.parametrize(("each", "together"), [(1_000, 0), (0, 1_000)])
async def test_circuits_that_end_while_they_wait_leave_nothing_behind(
    autojump_clock: MockClock, each: int, together: int
) -> None:
    """A minute's wait each: their alarms and places are gone with them."""
    async with paced(each=each, together=together) as world:
        for _ in range(200):
            circuit = await world.circuit()
            await circuit.source.send_all(PAYLOAD[: 2 * QUANTUM])
            await until(lambda: circuit.joint.left.unread > 0)  # noqa: B023 - called at once
            circuit.source.reset()
            await until(lambda: circuit.joint.ends)  # noqa: B023 - called at once
            assert len(world.alarms) <= 1
            assert len(world.pacer._queue) == 0
        await settle()
        world.assert_idle()


async def test_one_that_leaves_the_queue_does_not_hold_up_the_others(
    autojump_clock: MockClock,
) -> None:
    async with paced(together=1_000_000) as world:
        circuits = [await world.circuit() for _ in range(10)]
        for circuit in circuits:
            start_feeding(world, circuit)
        await trio.sleep(1)
        for circuit in circuits[::2]:
            circuit.source.reset()
        await settle()
        staying = circuits[1::2]
        shares = await shares_of(staying, 5)
        assert sum(shares) == pytest.approx(5_000_000, abs=2 * QUANTUM)
        assert max(shares) - min(shares) <= 100_000


async def test_without_rates_there_is_no_pace(autojump_clock: MockClock) -> None:
    async with paced() as world:
        circuit = await world.circuit()
        start = trio.current_time()
        world.nursery.start_soon(swallow, circuit.target)
        await circuit.source.send_all(PAYLOAD)
        await circuit.source.send_eof()
        await until(lambda: circuit.joint.counts.forward == len(PAYLOAD))
        assert trio.current_time() == start and len(world.alarms) == 0
