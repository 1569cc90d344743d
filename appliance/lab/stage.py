"""What the stories of the laboratory share: processes on hosts, their files, start and end."""

from __future__ import annotations

import signal
import sys
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import trio

from appliance import __version__
from appliance.lab.actors import Actor, environment
from appliance.lab.journal import Journal, ScenarioFailed
from appliance.lab.topology import Topology

# Seconds, upper bounds for a loaded machine with two cores, several times what is normal.
START: Final = 20.0
STOP: Final = 5.0


@dataclass(slots=True)
class Stage:
    """The running scenario: processes by name, what they said, and where their files are."""

    topology: Topology
    journal: Journal
    nursery: trio.Nursery
    scratch: Path
    logs: Path
    log_level: str
    actors: dict[str, Actor] = field(default_factory=dict)
    peer_ids: dict[str, str] = field(default_factory=dict)

    def add(self, who: str, host: str, *arguments: str) -> None:
        """Prepare the program `who` on `host`; `start` runs it."""
        home = self.scratch / who
        home.mkdir(exist_ok=True)
        namespace = self.topology.namespaces[host]
        self.actors[who] = Actor(who, namespace, arguments, home, self.logs / f"{who}.log")

    def start(self, who: str) -> int:
        """Run it; returns the journal's mark from before, to wait for what it says."""
        mark = self.journal.mark
        self.actors[who].launch(self.journal)
        self.nursery.start_soon(self.actors[who].watch, self.journal)
        return mark

    def state(self, who: str) -> Path:
        """The state directory of an appliance."""
        return self.scratch / who / "state"

    def declare(self, who: str, text: str) -> None:
        """Write the appliance's file, and prepare it on the host of its name."""
        home = self.scratch / who
        home.mkdir(exist_ok=True)
        path = home / f"{who}.yaml"
        path.write_text(text, encoding="utf-8")
        (self.logs / path.name).write_text(text, encoding="utf-8")
        self.add(who, who, "run", str(path))

    async def identities(self, *who: str) -> None:
        """Make the keys of these appliances, so that files can name their peer ids."""
        states = [self.state(name) for name in who]
        for state in states:
            state.mkdir(parents=True)
        done = await trio.run_process(
            [sys.executable, "-m", "appliance", "identity", *map(str, states)],
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            env=environment(self.scratch),
        )
        if done.returncode != 0:
            said = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
            raise ScenarioFailed(f"no identities: {said[-1]}")
        self.peer_ids.update(zip(who, done.stdout.decode().split(), strict=True))

    async def stop_all(self) -> bool:
        """SIGTERM to all; whether every one that still ran ended with code 0 within its time."""
        running = [who for who in self.actors if who not in self.journal.ended]
        clean = True

        async def stop(who: str) -> None:
            nonlocal clean
            actor = self.actors[who]
            if not await actor.end(signal.SIGTERM, STOP) or actor.exit_codes[-1:] not in ([], [0]):
                clean = False

        async with trio.open_nursery() as nursery:
            for who in running:
                nursery.start_soon(stop, who)
        return clean

    def described(self) -> list[dict[str, Any]]:
        """What each process has used so far; to be asked while they run."""
        return [
            {
                "name": who,
                "host": actor.namespace.name,
                "version": __version__,
                "peer_id": self.peer_ids.get(who),
                **actor.usage(),
            }
            for who, actor in self.actors.items()
        ]


class Story(Protocol):
    """How a scenario goes: `build` its map, then `perform`; then what came of it."""

    def build(self, delay_ms: float) -> AbstractContextManager[Topology]:
        """Raises ApplianceError where the laboratory cannot be."""

    async def perform(self, stage: Stage) -> None:
        """Raises ScenarioFailed."""

    def about(self, who: str, journal: Journal) -> dict[str, Any]:
        """`role` and `user_agent` of a process."""

    def summarise(
        self, journal: Journal, end: int, failure: ScenarioFailed | None
    ) -> dict[str, Any]:
        """What the first `end` events amount to; those after them are of the end of the run."""
