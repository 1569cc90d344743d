"""One profile's daemon under the limits of its plan: loaded to its caps, measured, judged."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio

from appliance.bridge.identity import Identity
from appliance.network import Endpoint
from appliance.units import KIB
from tests.bench.capacity import beyond
from tests.bench.capacity.cgroup import Group
from tests.bench.capacity.crowd import Crowd, serve_node
from tests.bench.capacity.daemon import (
    NOTHING,
    Daemon,
    Sections,
    asked,
    declaration,
    running,
    write,
)
from tests.bench.capacity.filling import Filling
from tests.bench.capacity.outcome import Outcome
from tests.bench.ours import plain

PROFILES: Final = ("router-512m", "raspberry-pi-4-4g", "x86-small")
LEAST_FDS: Final = 80
"""Per cent of LimitNOFILE that the caps together use: a limit that is never reached is no cap."""
MOST_RSS: Final = {"router-512m": 160_000_000}
"""Bytes of resident memory that a profile is promised to stay below."""
FLOOD: Final = 256 * KIB
"""Bytes each way at once through each stream: what a peer may send before anybody reads."""
_ROUNDS: Final = 8


@dataclass(frozen=True, slots=True)
class Task:
    """`hardware` is what `hardware.profile` says; `sections` are merged into the declaration."""

    name: str
    hardware: str | Mapping[str, Any]
    sections: Sections
    flood: int = FLOOD

    @classmethod
    def of_profile(cls, name: str) -> Task:
        return cls(name, name, NOTHING)


QUICK: Final = Task("router-512m", "router-512m", NOTHING, flood=16 * KIB)
"""The smallest, and bytes that pass in a second."""


async def check(task: Task) -> Outcome:
    """Raises RuntimeError, in a group, if the daemon does not start."""
    began = time.monotonic()
    async with trio.open_nursery() as nursery:
        node = await nursery.start(serve_node)
        with tempfile.TemporaryDirectory(prefix="appliance-capacity-") as scratch:
            outcome = await _check(task, Path(scratch), node)
        nursery.cancel_scope.cancel()
    outcome.seconds = round(time.monotonic() - began, 1)
    return outcome


async def _check(task: Task, directory: Path, node: Endpoint) -> Outcome:
    file, plan, peers = await _planned(task, directory, node)
    outcome = Outcome(task.name, plan)
    memory, nofile = plan["unit"]["MemoryMax"], plan["unit"]["LimitNOFILE"]
    async with running(file, node.port, memory=memory, nofile=nofile) as daemon:
        outcome.notes += daemon.notes
        outcome.nofile = daemon.nofile
        outcome.idle = daemon.read()
        async with trio.open_nursery() as hosts:
            full = Filling(daemon, Crowd(hosts, daemon), outcome, peers)
            load = partial(_loaded, task, full, outcome)
            if await _went_well(outcome, "everybody is let in up to the caps", full.fill):
                await _went_well(outcome, "those inside are served at the caps", load)
                _judge(daemon, outcome)
            hosts.cancel_scope.cancel()
        code = await daemon.stop()
        outcome.claim("it stops cleanly when asked", code == 0, f"exit code {code}")
    return outcome


async def _planned(
    task: Task, directory: Path, node: Endpoint
) -> tuple[Path, dict[str, Any], list[Identity]]:
    """A declaration with as many private peers as its own plan lets it reach, and that plan."""
    peers: list[Identity] = []
    # Peers need a relay to be declared. Nobody is there: ours come by themselves.
    relay = f"/ip4/127.0.0.1/tcp/1/p2p/{Identity.generate().peer_id}"
    for _ in range(_ROUNDS):
        document = declaration(directory, task.name, node, task.sections)
        document["hardware"] = {"profile": task.hardware}
        document["bridge"] |= {"relays": [relay], "peers": [peer.peer_id for peer in peers]}
        file = write(directory, document)
        plan = await asked("plan", str(file))
        wanted = plan["caps"]["outbound_private"]
        if wanted == len(peers):
            return file, plan, peers
        peers = [*peers, *(Identity.generate() for _ in range(wanted - len(peers)))][:wanted]
    raise RuntimeError(f"{task.name}: the plan changes with each peer that it allows to declare")


async def _went_well(outcome: Outcome, text: str, part: Callable[[], Awaitable[None]]) -> bool:
    try:
        await part()
    except Exception as error:  # noqa: BLE001 - whatever it was, it must not have happened
        outcome.claim(text, False, "; ".join(plain(error)))
        return False
    outcome.claim(text, True, "yes")
    return True


async def _loaded(task: Task, full: Filling, outcome: Outcome) -> None:
    async with full.watched():
        outcome.full = full.daemon.read()
        await beyond.one_more_watcher(full, outcome)
    await beyond.one_more(full, outcome)
    await beyond.shown(full, outcome)
    if task.flood:
        await full.flood(task.flood)
    await beyond.nobody_hurt(full, outcome)


def _judge(daemon: Daemon, outcome: Outcome) -> None:
    after = outcome.after = daemon.read()
    full = outcome.full or after
    limit = outcome.plan["unit"]["LimitNOFILE"]
    share = 100 * full.fds / limit
    outcome.claim(
        f"open files: at most LimitNOFILE {limit}, at least {LEAST_FDS} % of it",
        LEAST_FDS <= share <= 100,
        f"{full.fds}, {share:.0f} %",
    )
    resident = max(full.rss, after.rss)
    memory = outcome.plan["unit"]["MemoryMax"]
    held, kills = resident, ""
    if isinstance(daemon.group, Group):
        usage = outcome.usage = daemon.group.usage()
        # Libraries that others have loaded before us are not in our group, but may be next time.
        held = max(usage.peak, resident + usage.kernel)
        kills = f", {usage.kills} killed, at the limit {usage.hits} times"
    outcome.claim(
        f"memory: at most MemoryMax {memory / 1e6:.0f} MB, nobody killed",
        held <= memory and (outcome.usage is None or not outcome.usage.kills),
        f"{held / 1e6:.1f} MB{kills}",
    )
    promised = MOST_RSS.get(outcome.profile)
    if promised is not None:
        outcome.claim(
            f"resident memory below {promised / 1e6:.0f} MB",
            resident < promised,
            f"{resident / 1e6:.1f} MB",
        )
