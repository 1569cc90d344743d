"""What a run measures: settings, cells with their repeated runs, and failures in plain words."""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

import trio

from tests.interop.peers import PeerError

KINDS: Final = ("ours", "go", "rust", "js", "py")
"""Every implementation; py is the stock py-libp2p."""

Key = dict[str, Any]
Run = dict[str, float]


@dataclass(frozen=True, slots=True)
class Settings:
    """What to measure, and for how long."""

    kinds: tuple[str, ...] = KINDS
    relays: tuple[str, ...] = KINDS
    pairs: tuple[str, ...] = ("ours", "js", "go", "rust")
    """Endpoints of the relayed cells, both of one kind."""
    streams: tuple[int, ...] = (1, 8, 64)
    rounds: int = 3
    warm_up: float = 0.7
    seconds: float = 2.0
    """The window of a bulk cell, after `warm_up` seconds of the same load."""
    quiet: float = math.inf
    """Cores that something else may keep busy in a window that counts."""
    messages: int = 1000
    message_seconds: float = 3.0
    """A series of round trips ends after so many or so long."""
    counts: tuple[int, ...] = (10, 100, 1000, 10_000)
    """Connections, streams, reservations, circuits held at our relay."""
    counts_of_others: tuple[int, ...] = (10, 100, 1000)


@dataclass(slots=True)
class Cell:
    """One combination: a run each round, or what the peer said when it could not."""

    key: Key
    runs: list[Run] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def median(self, name: str) -> float | None:
        values = self.values(name)
        return statistics.median(values) if values else None

    def values(self, name: str) -> list[float]:
        return [run[name] for run in self.runs if name in run]


class Cells:
    """The cells of one section, in the order in which they were first tried."""

    def __init__(self, section: str, cells: list[Cell] | None = None) -> None:
        self.section = section
        self.cells: list[Cell] = cells or []

    def cell(self, **key: Any) -> Cell:
        for cell in self.cells:
            if cell.key == key:
                return cell
        self.cells.append(Cell(key))
        return self.cells[-1]

    def find(self, **key: Any) -> Cell | None:
        return next((cell for cell in self.cells if cell.key == key), None)

    async def attempt(
        self, deadline: float, body: Callable[[], Awaitable[Run]], **key: Any
    ) -> Run | None:
        """Run `body` within `deadline` seconds for the cell of that key; None if it failed."""
        cell = self.cell(**key)
        label = " ".join(f"{name}={value}" for name, value in key.items())
        try:
            with trio.fail_after(deadline):
                run = await body()
        except trio.TooSlowError:
            fault = f"not done within {deadline:g} s"
        except PeerError as error:
            fault = str(error)
        else:
            cell.runs.append(run)
            told = " ".join(f"{name}={value:.4g}" for name, value in run.items())
            print(f"{self.section:9} {label:36} {told}", file=sys.stderr, flush=True)
            return run
        cell.faults.append(fault)
        print(f"{self.section:9} {label:36} FAILED: {fault}", file=sys.stderr, flush=True)
        return None
