"""Plays a scenario inside a world; `perform` is the target of `world.run`.

It starts everything, waits for what must happen, and tells how it went.
"""

from __future__ import annotations

import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import trio

from appliance import __version__
from appliance.lab import declarations
from appliance.lab.actors import Actor, environment
from appliance.lab.journal import Event, Journal, ScenarioFailed
from appliance.lab.result import summarise
from appliance.lab.scenarios import SCENARIOS, Nodes, Outcome, Scenario
from appliance.lab.topology import Topology, two_homes
from appliance.lab.world import Send

# Seconds that each step may take beyond the delays of the WAN; upper bounds for a loaded machine
# with two cores, several times what is normal.
START: Final = 20.0
HANDSHAKE: Final = 40.0
PAYLOAD: Final = 30.0
STOP: Final = 5.0

# kaspad looks at a lost peer every 30 s, too long for a scenario with a restart.
NODE_RETRY: Final = "1"

RELAY: Final = "relay"
HOME_A: Final = "home-a"
HOME_B: Final = "home-b"
NODE_A: Final = "node-a"
NODE_B: Final = "node-b"

KNOWN: Final = {NODE_A: "203.0.113.101", NODE_B: "203.0.113.102"}
"""What each node knows of others (nobody is there), so that there is something to exchange."""


@dataclass(slots=True)
class Stage:
    """The running scenario: processes by name, what they said, and where their files are."""

    scenario: Scenario
    topology: Topology
    journal: Journal
    nursery: trio.Nursery
    scratch: Path
    logs: Path
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


def perform(order: dict[str, Any], send: Send) -> dict[str, Any]:
    """The order: `scenario`, `delay_ms`, `timeout` (s), `log_level`, `logs` (a directory
    or None) and `scratch` (a directory of the world)."""
    scratch = Path(order["scratch"])
    logs = Path(order["logs"] or scratch / "logs")
    logs.mkdir(parents=True, exist_ok=True)
    return trio.run(_perform, order, scratch, logs, send)


async def _perform(order: dict[str, Any], scratch: Path, logs: Path, send: Send) -> dict[str, Any]:
    scenario = SCENARIOS[order["scenario"]]
    delay_ms = float(order["delay_ms"])

    story_over = False

    def on_event(event: Event) -> None:
        if event.level != "debug" and not story_over:
            send({"kind": "event", **event.as_json()})

    journal = Journal(time.time(), on_event)
    failure: ScenarioFailed | None = None
    with two_homes(scenario.router_a, scenario.router_b, delay_ms) as topology:
        async with trio.open_nursery() as nursery:
            stage = Stage(scenario, topology, journal, nursery, scratch, logs)
            with trio.move_on_after(order["timeout"]) as limit:
                journal.note("map_built")
                try:
                    await _prepare(stage, order["log_level"])
                    await _story(stage)
                except ScenarioFailed as error:
                    failure = error
            if limit.cancelled_caught:
                failure = _too_slow(journal, order["timeout"])
            story_over = True
            mark = journal.mark
            nodes = _nodes(stage)
            clean = await _stop_all(stage)
            nursery.cancel_scope.cancel()
        wan = topology.stop_forwarder()
    return {
        "scenario": scenario.name,
        "delay_ms": delay_ms,
        **summarise(scenario, journal, mark, failure),
        "nodes": nodes,
        "stopped_cleanly": clean,
        "wan": wan,
        "log_tails": {who: list(one.tail) for who, one in stage.actors.items() if failure},
        "events_lost": journal.lost,
        "events": [
            event.as_json()
            for event in sorted(journal.events, key=lambda event: event.at_ms)
            if event.level != "debug"
        ],
    }


def _too_slow(journal: Journal, timeout: float) -> ScenarioFailed:
    sentence = f"not finished within {timeout:g} s"
    if journal.waiting_for is None:
        return ScenarioFailed(sentence)
    who, name = journal.waiting_for
    return ScenarioFailed(f"{sentence}, while waiting for {name} from {who}", who)


# --- setting up


async def _identities(stage: Stage, *who: str) -> None:
    states = [stage.scratch / name / "state" for name in who]
    for state in states:
        state.mkdir(parents=True)
    done = await trio.run_process(
        [sys.executable, "-m", "appliance", "identity", *map(str, states)],
        capture_stdout=True,
        capture_stderr=True,
        check=False,
        env=environment(stage.scratch),
    )
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        raise ScenarioFailed(f"no identities: {said[-1]}")
    stage.peer_ids.update(zip(who, done.stdout.decode().split(), strict=True))


def _declare(stage: Stage, who: str, text: str) -> None:
    path = stage.scratch / who / f"{who}.yaml"
    path.write_text(text, encoding="utf-8")
    (stage.logs / path.name).write_text(text, encoding="utf-8")
    stage.add(who, who, "run", str(path))


async def _prepare(stage: Stage, level: str) -> None:
    await _identities(stage, RELAY, HOME_A, HOME_B)
    stage.journal.note("declared")
    ids = stage.peer_ids
    state = {who: stage.scratch / who / "state" for who in ids}
    _declare(stage, RELAY, declarations.relay(stage.scenario, state[RELAY], level))
    _declare(
        stage,
        HOME_A,
        declarations.home(stage.scenario, HOME_A, state[HOME_A], level, ids[RELAY], ids[HOME_B]),
    )
    _declare(
        stage, HOME_B, declarations.home(stage.scenario, HOME_B, state[HOME_B], level, ids[RELAY])
    )
    listen = f"127.0.0.1:{declarations.NODE_PORT}"
    network = declarations.NETWORK.value
    node = ("node", "--network", network, "--listen", listen, "--log-format", "json")
    slot = f"127.0.0.1:{declarations.SLOT_PORT}"
    payload = ("--lab-payload", str(stage.scenario.payload))
    known = {who: (f"--known={ip}:{declarations.NODE_PORT}",) for who, ip in KNOWN.items()}
    stage.add(
        NODE_A, HOME_A, *node, "--addpeer", slot, "--retry", NODE_RETRY, *payload, *known[NODE_A]
    )
    stage.add(NODE_B, HOME_B, *node, *payload, *known[NODE_B])


# --- the story


async def _story(stage: Stage) -> None:
    """A is there first and its node asks for B at once: so `time_to_direct_ms` is all ours."""
    journal = stage.journal
    mark = stage.start(RELAY)
    await journal.wait_for(RELAY, "ready", within=START, after=mark)
    stage.start(HOME_A)
    await journal.wait_for(HOME_A, "slot_listening", within=START)
    stage.start(NODE_A)
    stage.start(HOME_B)
    if stage.scenario.nodes is not Nodes.LATE:
        await _start_node_b(stage)
    await journal.wait_for(HOME_B, "reservation_made", within=START)
    if stage.scenario.outcome is Outcome.REFUSED:
        await _refusal(stage)
        return
    if stage.scenario.nodes is Nodes.LATE:
        # Before its appliance looked for it in vain, the node would not be late.
        await journal.wait_for(HOME_B, "refused", within=HANDSHAKE, reason="node-unreachable")
        await _start_node_b(stage)
    await _conversation(stage, 0)
    if stage.scenario.nodes is Nodes.RESTARTED:
        mark = journal.mark
        await stage.actors[NODE_B].end(signal.SIGKILL, STOP)
        await journal.wait_for(NODE_A, "kaspa_disconnected", within=HANDSHAKE, after=mark)
        mark = journal.mark
        await _start_node_b(stage)
        await _conversation(stage, mark)


async def _start_node_b(stage: Stage) -> None:
    mark = stage.start(NODE_B)
    await stage.journal.wait_for(NODE_B, "kaspa_listening", within=START, after=mark)


async def _conversation(stage: Stage, after: int) -> None:
    """Handshake, addresses and payload, seen from both nodes."""
    journal = stage.journal
    for who in (NODE_A, NODE_B):
        await journal.wait_for(who, "kaspa_handshake", within=HANDSHAKE, after=after)
    for who in (NODE_A, NODE_B):
        await journal.wait_for(who, "kaspa_addresses", within=PAYLOAD, after=after)
    for who in (NODE_A, NODE_B):
        got = await journal.wait_for(who, "lab_payload", within=PAYLOAD, after=after)
        if not got.fields.get("intact"):
            raise ScenarioFailed(f"{who} received a payload that is not intact", who)
    await journal.wait_for(HOME_A, "kaspa_first_byte", within=STOP, after=after)


async def _refusal(stage: Stage) -> None:
    """The node's dial must be refused, for the right reason, and no stream be tried at all."""
    await stage.journal.wait_for(
        HOME_A, "refused", within=HANDSHAKE, reason="relay-limit-too-small"
    )
    if stage.journal.find(HOME_A, "kaspa_stream") is not None:
        raise ScenarioFailed("a stream was opened on a relay whose limit is too small", HOME_A)


# --- the end


async def _stop_all(stage: Stage) -> bool:
    """SIGTERM to all; whether every one that still ran ended with code 0 within its time."""
    running = [who for who in stage.actors if who not in stage.journal.ended]
    clean = True

    async def stop(who: str) -> None:
        nonlocal clean
        actor = stage.actors[who]
        if not await actor.end(signal.SIGTERM, STOP) or actor.exit_codes[-1:] not in ([], [0]):
            clean = False

    async with trio.open_nursery() as nursery:
        for who in running:
            nursery.start_soon(stop, who)
    return clean


_ROLES: Final = {
    RELAY: "appliance, relay",
    HOME_A: "appliance",
    HOME_B: "appliance",
    NODE_A: "embedded node",
    NODE_B: "embedded node",
}


def _nodes(stage: Stage) -> list[dict[str, Any]]:
    """What each process is and what it has used so far; to be asked while they run."""
    described = []
    for who, actor in stage.actors.items():
        described.append(
            {
                "name": who,
                "role": _ROLES[who],
                "host": actor.namespace.name,
                "version": __version__,
                "peer_id": stage.peer_ids.get(who),
                "user_agent": _user_agent(stage, who),
                **actor.usage(),
            }
        )
    return described


def _user_agent(stage: Stage, who: str) -> str | None:
    """What a node called itself, as its peer heard it."""
    peer = {NODE_A: NODE_B, NODE_B: NODE_A}.get(who)
    handshake = None if peer is None else stage.journal.find(peer, "kaspa_handshake")
    return None if handshake is None else handshake.fields.get("user_agent")
