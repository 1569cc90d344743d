"""How fast circuits may go: a rate for each, and a fair share of what all may use together.

Token buckets, spent when bytes are put in line. Whoever finds the common bucket empty queues, and
gets one quantum a turn: equal shares, whatever anybody asks for.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from typing import Final, Protocol

import trio

from appliance.dataplane.alarms import Alarm, Alarms
from appliance.dataplane.fair import QUANTUM

_BURST_SECONDS: Final = 0.1
"""What may come at once after a pause, as time at the full rate."""


class Bucket:
    """Tokens that fill up with time; `rate` bytes per second, 0 for no limit."""

    __slots__ = ("_at", "_burst", "_level", "rate")

    def __init__(self, rate: float, now: float) -> None:
        self.rate = rate
        self._burst = max(rate * _BURST_SECONDS, QUANTUM)
        self._level = self._burst
        self._at = now

    def ready_at(self, now: float) -> float:
        """When there will be tokens: `now` or later."""
        if not self.rate:
            return now
        self._level = min(self._burst, self._level + (now - self._at) * self.rate)
        self._at = now
        if self._level > 0:
            return now
        # A whole quantum at a time, else each token would ring the alarm.
        return now + (min(QUANTUM, self._burst) - self._level) / self.rate

    def spend(self, size: int) -> None:
        """`size` bytes go; the level may fall below zero by one piece."""
        self._level -= size


class Paced(Protocol):
    """A direction of a circuit, as far as its pace is concerned."""

    def go_on(self) -> None:
        """Ask again, and put the next piece in line if that is granted."""
        ...


class Pace:
    """One direction's place in the `Pacer`."""

    __slots__ = ("_pacer", "alarm", "bucket", "has_turn", "lane", "waits")

    def __init__(self, pacer: Pacer, bucket: Bucket, lane: Paced) -> None:
        self._pacer = pacer
        self.bucket = bucket
        self.lane = lane
        self.waits = self.has_turn = False
        # Rings when its own bucket has tokens.
        self.alarm: Alarm | None = None

    def granted(self) -> bool:
        """Whether a quantum may go now; else `lane.go_on` is called once it may."""
        return self._pacer.granted(self)

    def spend(self, size: int) -> None:
        """A piece of `size` bytes, at most a quantum, was put in line."""
        self.bucket.spend(size)
        self._pacer.common.spend(size)

    def leave(self) -> None:
        """The circuit is over: `go_on` is not called any more."""
        self._pacer.leave(self)


class Pacer:
    """The rates, in bytes per second, of each direction of a circuit and of all together; 0 for
    no limit. The alarms are rung by the task that runs `alarms`."""

    def __init__(self, alarms: Alarms, *, each: float = 0.0, together: float = 0.0) -> None:
        self._alarms = alarms
        self._each = each
        self.common = Bucket(together, trio.current_time() if together else 0.0)
        # A set in order: whoever leaves may stand anywhere.
        self._queue: OrderedDict[Pace, None] = OrderedDict()
        self._alarm: Alarm | None = None

    def join(self, lane: Paced) -> Pace | None:
        """The pace of a new direction; None if nothing bounds it."""
        if not self._each and not self.common.rate:
            return None
        return Pace(self, Bucket(self._each, trio.current_time()), lane)

    def granted(self, pace: Pace) -> bool:
        if pace.waits:
            return False
        if pace.has_turn:
            pace.has_turn = False
            return True
        now = trio.current_time()
        if (ready := pace.bucket.ready_at(now)) > now:
            pace.waits = True
            pace.alarm = self._alarms.at(ready, partial(self._call, pace))
            return False
        if self.common.rate and (self._queue or self.common.ready_at(now) > now):
            pace.waits = True
            self._queue[pace] = None
            self._arm(now)
            return False
        return True

    def leave(self, pace: Pace) -> None:
        if pace.alarm is not None:
            pace.alarm.call_off()
            pace.alarm = None
        self._queue.pop(pace, None)
        if not self._queue and self._alarm is not None:
            self._alarm.call_off()
            self._alarm = None

    def _arm(self, now: float) -> None:
        if self._alarm is None:
            self._alarm = self._alarms.at(self.common.ready_at(now), self._serve)

    def _serve(self) -> None:
        """The common bucket has tokens: whoever waited longest gets a turn, and so on."""
        self._alarm = None
        now = trio.current_time()
        while self._queue and self.common.ready_at(now) <= now:
            pace, _ = self._queue.popitem(last=False)
            pace.has_turn = True
            self._call(pace)
            pace.has_turn = False
        if self._queue:
            self._arm(now)

    @staticmethod
    def _call(pace: Pace) -> None:
        pace.waits = False
        pace.alarm = None
        pace.lane.go_on()
