"""What happened, in order of time, from all processes of a run; and waiting for it to happen."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import trio

# A run logs some hundreds; a process that floods must not fill the memory.
MAX_EVENTS: Final = 20_000
_OURS: Final = frozenset({"t", "event", "level", "logger"})


@dataclass(frozen=True, slots=True)
class Event:
    """One event of one process; `at_ms` counts from the start of the run."""

    at_ms: float
    who: str
    name: str
    level: str
    fields: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """The shape in `lab run --json`."""
        return {"at_ms": self.at_ms, "who": self.who, "event": self.name, **self.fields}


class ScenarioFailed(Exception):
    """The scenario did not pass: why, in one sentence, and at whose door it lies."""

    def __init__(self, reason: str, who: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.who = who


@dataclass(slots=True)
class Journal:
    """Collects events; `wait_for` blocks until one is there."""

    started: float  # Unix time
    on_event: Callable[[Event], None]
    events: list[Event] = field(default_factory=list)
    lost: int = 0
    # who → the sentence about its end; set by whoever watches processes.
    ended: dict[str, str] = field(default_factory=dict)
    # For the sentence about a run that took too long: what its story stood at.
    waiting_for: tuple[str, str] | None = None
    _changed: trio.lowlevel.ParkingLot = field(default_factory=trio.lowlevel.ParkingLot)

    def add_line(self, who: str, line: bytes) -> bool:
        """Take a log line; False when it is not one of our JSON events."""
        try:
            record = json.loads(line)
            at = (float(record["t"]) - self.started) * 1000
            name = str(record["event"])
        except (ValueError, TypeError, KeyError):
            return False
        fields = {key: value for key, value in record.items() if key not in _OURS}
        self.add(Event(round(at, 1), who, name, str(record.get("level", "info")), fields))
        return True

    def now_ms(self) -> float:
        """Since the start of the run."""
        return round((time.time() - self.started) * 1000, 1)

    def note(self, name: str, **fields: object) -> None:
        """An event of the laboratory itself."""
        self.add(Event(self.now_ms(), "lab", name, "info", fields))

    def add(self, event: Event) -> None:
        """Record an event and wake those who wait."""
        if len(self.events) >= MAX_EVENTS:
            self.lost += 1
            return
        self.events.append(event)
        self.on_event(event)
        self._changed.unpark_all()

    def process_ended(self, who: str, how: str) -> None:
        """A process is gone: nobody waits for its events any longer."""
        self.ended[who] = how
        self._changed.unpark_all()

    def process_started(self, who: str) -> None:
        """It is there (again)."""
        self.ended.pop(who, None)

    def find(self, who: str, name: str, after: int = 0, **fields: object) -> Event | None:
        """The first such event at or after index `after` of the list."""
        for event in self.events[after:]:
            if event.who == who and event.name == name and matches(event, fields):
                return event
        return None

    @property
    def mark(self) -> int:
        """For `after=`: only what happens from now on."""
        return len(self.events)

    async def wait_for(
        self, who: str, name: str, *, within: float, after: int = 0, **fields: object
    ) -> Event:
        """The first such event; `ScenarioFailed` when `within` seconds or the process are over."""
        self.waiting_for = (who, name)
        with trio.move_on_after(within):
            while True:
                if (event := self.find(who, name, after, **fields)) is not None:
                    return event
                if who in self.ended:
                    raise ScenarioFailed(f"{who} {self.ended[who]}", who)
                await self._changed.park()
        raise ScenarioFailed(f"{who} did not report {name} within {within:g} s", who)

    async def wait_until(self, condition: Callable[[], bool], *, within: float) -> bool:
        """Ask again with each event; False when `within` seconds are over.

        Raises ScenarioFailed if any process ends meanwhile.
        """
        self.waiting_for = None
        with trio.move_on_after(within):
            while not condition():
                for who, how in self.ended.items():
                    raise ScenarioFailed(f"{who} {how}", who)
                await self._changed.park()
            return True
        return False


def matches(event: Event, fields: Mapping[str, object]) -> bool:
    """Whether the event has all of `fields` with these values."""
    return all(event.fields.get(key) == value for key, value in fields.items())
