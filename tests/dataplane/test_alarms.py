"""Alarms: each call at its time and in order, by one task, whatever is called off meanwhile."""

from __future__ import annotations

import gc
import random
import time
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
from trio.testing import MockClock

from appliance.dataplane.alarms import Alarm, Alarms


@asynccontextmanager
async def running() -> AsyncIterator[Alarms]:
    alarms = Alarms()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(alarms.run)
        yield alarms
        nursery.cancel_scope.cancel()


class Rung:
    """What rang, and when."""

    def __init__(self) -> None:
        self.calls: list[tuple[float, object]] = []
        self._start = trio.current_time()

    def note(self, name: object) -> Callable[[], None]:
        return lambda: self.calls.append((round(trio.current_time() - self._start, 6), name))


async def test_they_ring_in_order_each_at_its_time(autojump_clock: MockClock) -> None:
    async with running() as alarms:
        rung, now = Rung(), trio.current_time()
        for when in (5, 1, 3, 1, 0, -7):
            alarms.at(now + when, rung.note(when))
        assert len(alarms) == 6
        await trio.sleep(10)
        assert rung.calls == [(0, -7), (0, 0), (1, 1), (1, 1), (3, 3), (5, 5)]
        assert len(alarms) == 0


async def test_alarms_of_the_same_moment_ring_in_the_order_in_which_they_were_set(
    autojump_clock: MockClock,
) -> None:
    async with running() as alarms:
        rung, when = Rung(), trio.current_time() + 2
        for name in range(200):
            alarms.at(when, rung.note(name))
        await trio.sleep(3)
        assert rung.calls == [(2, name) for name in range(200)]


async def test_a_sooner_one_wakes_the_task(autojump_clock: MockClock) -> None:
    async with running() as alarms:
        rung, now = Rung(), trio.current_time()
        await trio.sleep(1)  # it waits, for nothing yet
        alarms.at(now + 1000, rung.note("late"))
        await trio.sleep(1)
        alarms.at(now + 10, rung.note("soon"))
        await trio.sleep(18)
        assert rung.calls == [(10, "soon")] and len(alarms) == 1


async def test_what_was_set_before_it_runs_rings_too(autojump_clock: MockClock) -> None:
    alarms, rung = Alarms(), Rung()
    alarms.at(trio.current_time() + 1, rung.note("on time"))
    alarms.at(trio.current_time() + 3, rung.note("late"))
    await trio.sleep(2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(alarms.run)
        await trio.sleep(2)
        nursery.cancel_scope.cancel()
    assert rung.calls == [(2, "on time"), (3, "late")]


async def test_one_that_was_called_off_does_not_ring(autojump_clock: MockClock) -> None:
    async with running() as alarms:
        rung, now = Rung(), trio.current_time()
        first, second, third = (alarms.at(now + n, rung.note(n)) for n in (1, 2, 3))
        first.call_off()
        first.call_off()
        assert len(alarms) == 2
        await trio.sleep(2.5)
        second.call_off()  # it rang: nothing happens
        assert rung.calls == [(2, 2)] and len(alarms) == 1
        third.call_off()
        await trio.sleep(5)
        assert rung.calls == [(2, 2)] and len(alarms) == 0


async def test_an_alarm_may_set_and_call_off_others_and_itself(
    autojump_clock: MockClock,
) -> None:
    async with running() as alarms:
        rung, now = Rung(), trio.current_time()
        made: list[Alarm] = []

        def act() -> None:
            rung.note("acted")()
            for alarm in made:
                alarm.call_off()
            alarms.at(now, rung.note("at once"))
            alarms.at(now + 2, rung.note("later"))

        made.append(alarms.at(now + 1, act))
        # Many of them, so that they are tidied away while the task goes through its list.
        made += [alarms.at(now + 1, rung.note("never")) for _ in range(300)]
        await trio.sleep(3)
        assert rung.calls == [(1, "acted"), (1, "at once"), (2, "later")]
        assert len(alarms) == 0


async def test_what_was_called_off_is_let_go_and_tidied_away(autojump_clock: MockClock) -> None:
    class Thing:
        def call(self) -> None:
            raise AssertionError("called off")

    async with running() as alarms:
        far = trio.current_time() + 1e6
        keeper = alarms.at(far, lambda: None)
        most = 0
        for _ in range(10_000):
            thing = Thing()
            gone = weakref.ref(thing)
            alarms.at(far - 1, thing.call).call_off()
            del thing
            assert gone() is None
            most = max(most, len(alarms._heap))
        assert len(alarms) == 1
        assert most < 200, "a circuit that ended leaves no entry until its deadline"
        keeper.call_off()
        assert len(alarms) == 0
    gc.collect()


@pytest.mark.parametrize("seed", range(20))
async def test_any_order_of_setting_and_calling_off(autojump_clock: MockClock, seed: int) -> None:
    rng = random.Random(seed)
    async with running() as alarms:
        rung, expected = Rung(), []
        start = trio.current_time()
        standing: dict[int, tuple[float, Alarm]] = {}
        for number in range(600):
            passed = round(trio.current_time() - start, 6)
            due = [name for name, (when, _) in standing.items() if when <= passed]
            expected += [(standing.pop(name)[0], name) for name in due]
            if standing and rng.random() < 0.45:
                _, alarm = standing.pop(rng.choice(list(standing)))
                alarm.call_off()
            else:
                when = passed + rng.randrange(400) + 0.5  # never just when we look
                standing[number] = when, alarms.at(start + when, rung.note(number))
            assert len(alarms) == len(standing)
            if rng.random() < 0.2:
                await trio.sleep(rng.randrange(1, 60))
        await trio.sleep(1000)
        expected += [(when, name) for name, (when, _) in standing.items()]
        assert sorted(rung.calls) == sorted(expected)
        assert [when for when, _ in rung.calls] == sorted(when for when, _ in rung.calls)


async def test_thousands_cost_little(autojump_clock: MockClock) -> None:
    """Ten microseconds each; what grew with the square would take minutes."""
    async with running() as alarms:
        rang: list[int] = []
        now = trio.current_time()
        started = time.process_time()
        made = [
            alarms.at(now + 1 + number % 977, partial(rang.append, number))
            for number in range(20_000)
        ]
        for alarm in made[::2]:
            alarm.call_off()
        await trio.sleep(1000)
        assert len(rang) == 10_000 and len(alarms) == 0
        assert time.process_time() - started < 5
