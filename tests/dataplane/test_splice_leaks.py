"""Thousands of circuits: what is left of them."""

from __future__ import annotations

import random

import pytest
import trio
from trio.testing import MockClock

from appliance.dataplane import splice as splice_module
from appliance.dataplane.muxstream import MuxStream
from appliance.dataplane.pipe import PipeCounts, PipeEnd
from appliance.dataplane.splice import Splice
from tests.dataplane.chains import Circuit, alive, chain, until
from tests.dataplane.sessions import settle


@pytest.mark.parametrize("count", [1_000, pytest.param(10_000, marks=pytest.mark.slow)])
async def test_thousands_of_circuits_leave_nothing_behind(
    autojump_clock: MockClock, count: int
) -> None:
    kinds = (Splice, splice_module._Lane, splice_module._Side, MuxStream, PipeCounts, PipeEnd)
    rng = random.Random(3)
    async with chain() as world:

        async def one(circuit: Circuit) -> None:
            ways = rng.choice(["clean", "clean", "source", "target", "aclose"])
            await circuit.source.send_all(b"there")
            await circuit.target.send_all(b"back")
            assert await circuit.target.receive_some() == b"there"
            assert await circuit.source.receive_some() == b"back"
            match ways:
                case "clean":
                    await circuit.source.send_eof()
                    await circuit.target.send_eof()
                    assert await circuit.source.receive_some() == b""
                case "aclose":
                    await circuit.source.aclose()
                    await circuit.target.aclose()
                case "source":
                    circuit.source.reset()
                case "target":
                    circuit.target.reset()

        async def round_of(count: int) -> None:
            circuits = [await world.circuit() for _ in range(count)]
            async with trio.open_nursery() as nursery:
                for circuit in circuits:
                    nursery.start_soon(one, circuit)
            await until(lambda: all(circuit.joint.ends for circuit in circuits))
            assert all(len(circuit.joint.ends) == 1 for circuit in circuits)

        before = alive(*kinds)
        for _ in range(count // 200):
            await round_of(200)
        await settle()
        world.assert_empty()
        assert alive(*kinds) == before
