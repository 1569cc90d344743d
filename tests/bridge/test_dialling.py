"""The host dials no faster than the router upstream likes, and no more sockets than planned."""

from __future__ import annotations

import trio
import trio.testing

from appliance.bridge.dialling import Dialling


async def test_dials_beyond_the_burst_take_turns(autojump_clock: trio.testing.MockClock) -> None:
    dialling = Dialling(at_once=100, per_second=10)
    begun: list[float] = []

    async def dial() -> None:
        await dialling.turn()
        begun.append(trio.current_time())

    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(60):
            nursery.start_soon(dial)
    offsets = [round(at - start, 3) for at in begun]
    assert offsets[:40] == [0.0] * 40
    assert offsets[40:] == [round(0.1 * turn, 3) for turn in range(1, 21)]


async def test_a_punch_waits_only_before_it_begins(autojump_clock: trio.testing.MockClock) -> None:
    dialling = Dialling(at_once=100, per_second=10)
    dialling.spend(50)
    start = trio.current_time()
    await dialling.ready()
    assert round(trio.current_time() - start, 3) == 1.1
    dialling.spend(4)
    assert round(trio.current_time() - start, 3) == 1.1


async def test_only_so_many_sockets_connect_at_once(autojump_clock: trio.testing.MockClock) -> None:
    dialling = Dialling(at_once=3, per_second=1000)
    connecting, most = 0, 0

    async def dial() -> None:
        nonlocal connecting, most
        async with dialling.socket():
            connecting += 1
            most = max(most, connecting)
            await trio.sleep(1)
            connecting -= 1

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(dial)
    assert most == 3
