"""What ends a splice before its streams do: so many bytes, so much time."""

from __future__ import annotations

import random

import pytest
import trio
from trio.testing import MockClock

from appliance.dataplane.alarms import Alarms
from appliance.dataplane.pipe import PipeEnd
from appliance.dataplane.windows import INITIAL_WINDOW
from appliance.errors import StreamReset
from appliance.units import KIB
from tests.dataplane.chains import SIDES, chain, ends_of
from tests.dataplane.sessions import exchange, read_to_end, settle

PAYLOAD = random.Random(11).randbytes(INITIAL_WINDOW + 1000)
CLEAN = PipeEnd(clean=True)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("limit", [1, 1000, 64 * KIB, INITIAL_WINDOW + 1])
async def test_the_limit_is_exact_to_the_byte(
    autojump_clock: MockClock, limit: int, side: str
) -> None:
    async with chain() as world:
        circuit = await world.circuit(limit=limit)
        await exchange(circuit.source, circuit.target, PAYLOAD[:limit], PAYLOAD[-limit:])
        assert circuit.joint.ends == [CLEAN], "each direction has the limit for itself"

        circuit = await world.circuit(limit=limit)
        here, there = ends_of(circuit, side)
        await here.send_all(PAYLOAD[:limit])
        got = b""
        while len(got) < limit:
            got += await there.receive_some()
        assert got == PAYLOAD[:limit]
        assert circuit.joint.ends == []
        await here.send_all(b"!")
        for end in (here, there):
            with pytest.raises(StreamReset):
                await read_to_end(end)
        assert circuit.joint.ends == [PipeEnd(clean=False, over_limit=True)]
        assert circuit.joint.counts.total == limit
        await settle()
        world.assert_empty()


@pytest.mark.parametrize("early", [b"", b"12345"])
async def test_what_came_before_the_splice_counts_for_the_limit(
    autojump_clock: MockClock, early: bytes
) -> None:
    async with chain() as world:
        circuit = await world.streams()
        await circuit.source.send_all(b"1234567890!")
        await settle()
        if early:
            assert await circuit.joint.left.receive_some(len(early)) == early
        circuit.joint.join(world.plane, leftover=(early, b""), limit=10)
        assert circuit.joint.ends == [PipeEnd(clean=False, over_limit=True)]
        await settle()
        with pytest.raises(StreamReset):
            await read_to_end(circuit.target)
        world.assert_empty()


@pytest.mark.parametrize("state", ["idle", "stalled", "half-closed", "over"])
async def test_a_time_limit_ends_it_whatever_it_does(autojump_clock: MockClock, state: str) -> None:
    alarms = Alarms()
    async with chain() as world, trio.open_nursery() as nursery:
        nursery.start_soon(alarms.run)
        circuit = await world.circuit()
        splice = circuit.joint.splice
        assert splice is not None
        alarms.at(trio.current_time() + 120, splice.reset)
        match state:
            case "stalled":
                await circuit.source.send_all(PAYLOAD[: INITIAL_WINDOW + 1000])
            case "half-closed":
                await circuit.source.send_eof()
            case "over":
                await exchange(circuit.source, circuit.target, b"there", b"back")
        await trio.sleep(119)
        assert splice.over is (state == "over")
        await trio.sleep(2)
        assert splice.over
        if state == "over":
            assert circuit.joint.ends == [CLEAN]
        else:
            assert circuit.joint.ends == [], "whoever ends it knows"
            for end in (circuit.source, circuit.target):
                with pytest.raises(StreamReset):
                    await read_to_end(end)
        world.assert_empty()
        nursery.cancel_scope.cancel()
