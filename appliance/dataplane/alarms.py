"""Many deadlines, one task: what a circuit has instead of a task of its own."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Final

import trio

_TIDY_AT: Final = 64
"""Entries below which called-off alarms are not worth tidying away."""


class Alarm:
    """A call to come; made by `Alarms.at`."""

    __slots__ = ("_alarms", "_number", "call", "when")

    def __init__(self, alarms: Alarms, when: float, number: int, call: Callable[[], None]) -> None:
        self._alarms = alarms
        self._number = number
        self.when = when
        self.call: Callable[[], None] | None = call

    def call_off(self) -> None:
        """It will not ring. Nothing if it did."""
        if self.call is not None:
            self.call = None
            self._alarms.tidy()

    def __lt__(self, other: Alarm) -> bool:
        return (self.when, self._number) < (other.when, other._number)


class Alarms:
    """`run` owns the task and makes the calls, each at its time of trio's clock or soon after."""

    def __init__(self) -> None:
        self._heap: list[Alarm] = []
        self._dead = 0
        self._numbers = count()
        self._sooner = trio.Event()

    def __len__(self) -> int:
        return len(self._heap) - self._dead

    def at(self, when: float, call: Callable[[], None]) -> Alarm:
        """Call at `when` (seconds of trio's clock). `call` must neither block nor raise."""
        alarm = Alarm(self, when, next(self._numbers), call)
        heappush(self._heap, alarm)
        if self._heap[0] is alarm:
            self._sooner.set()
        return alarm

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._sooner = trio.Event()
            now = trio.current_time()
            while self._heap and (self._heap[0].call is None or self._heap[0].when <= now):
                alarm = heappop(self._heap)
                call, alarm.call = alarm.call, None
                if call is None:
                    self._dead -= 1
                else:
                    call()
            with trio.CancelScope() as scope:
                if self._heap:
                    scope.deadline = self._heap[0].when
                await self._sooner.wait()

    def tidy(self) -> None:
        """One more was called off; once they are the larger part, they are let go."""
        self._dead += 1
        if self._dead > _TIDY_AT and self._dead > len(self._heap) // 2:
            self._heap = [alarm for alarm in self._heap if alarm.call is not None]
            heapify(self._heap)
            self._dead = 0
