"""Two homes and a relay that they name: how it goes, step by step."""

from __future__ import annotations

import signal
from contextlib import AbstractContextManager
from typing import Any, Final

from appliance.lab import declarations
from appliance.lab.journal import Journal, ScenarioFailed
from appliance.lab.result import summarise
from appliance.lab.scenarios import Nodes, Outcome, TwoHomes
from appliance.lab.stage import START, STOP, Stage
from appliance.lab.topology import Topology, two_homes

# Seconds that each step may take beyond the delays of the WAN; upper bounds as in stage.py.
HANDSHAKE: Final = 40.0
PAYLOAD: Final = 60.0

# kaspad looks at a lost peer every 30 s, too long for a scenario with a restart.
NODE_RETRY: Final = "1"

RELAY: Final = "relay"
HOME_A: Final = "home-a"
HOME_B: Final = "home-b"
NODE_A: Final = "node-a"
NODE_B: Final = "node-b"

KNOWN: Final = {NODE_A: "203.0.113.101", NODE_B: "203.0.113.102"}
"""What each node knows of others (nobody is there), so that there is something to exchange."""

_ROLES: Final = {
    RELAY: "appliance, relay",
    HOME_A: "appliance",
    HOME_B: "appliance",
    NODE_A: "embedded node",
    NODE_B: "embedded node",
}


class TwoHomesStory:
    """A is there first and its node asks for B at once: so `time_to_direct_ms` is all ours."""

    def __init__(self, scenario: TwoHomes) -> None:
        self._scenario = scenario

    def build(self, delay_ms: float) -> AbstractContextManager[Topology]:
        """The map of topology.py."""
        return two_homes(self._scenario.router_a, self._scenario.router_b, delay_ms)

    def about(self, who: str, journal: Journal) -> dict[str, Any]:
        """What it is, and what a node called itself, as its peer heard it."""
        peer = {NODE_A: NODE_B, NODE_B: NODE_A}.get(who)
        handshake = None if peer is None else journal.find(peer, "kaspa_handshake")
        agent = None if handshake is None else handshake.fields.get("user_agent")
        return {"role": _ROLES[who], "user_agent": agent}

    def summarise(
        self, journal: Journal, end: int, failure: ScenarioFailed | None
    ) -> dict[str, Any]:
        """The fields of the result."""
        return summarise(self._scenario, journal, end, failure)

    async def perform(self, stage: Stage) -> None:
        """Raises ScenarioFailed."""
        await self._prepare(stage)
        journal, scenario = stage.journal, self._scenario
        mark = stage.start(RELAY)
        await journal.wait_for(RELAY, "ready", within=START, after=mark)
        stage.start(HOME_A)
        await journal.wait_for(HOME_A, "slot_listening", within=START)
        stage.start(NODE_A)
        stage.start(HOME_B)
        if scenario.nodes is not Nodes.LATE:
            await _start_node_b(stage)
        await journal.wait_for(HOME_B, "reservation_made", within=START)
        if scenario.outcome is Outcome.REFUSED:
            await _refusal(stage)
            return
        if scenario.nodes is Nodes.LATE:
            # Before its appliance looked for it in vain, the node would not be late.
            await journal.wait_for(HOME_B, "refused", within=HANDSHAKE, reason="node-unreachable")
            await _start_node_b(stage)
        await _conversation(stage, 0)
        if scenario.nodes is Nodes.RESTARTED:
            mark = journal.mark
            await stage.actors[NODE_B].end(signal.SIGKILL, STOP)
            await journal.wait_for(NODE_A, "kaspa_disconnected", within=HANDSHAKE, after=mark)
            mark = journal.mark
            await _start_node_b(stage)
            await _conversation(stage, mark)

    async def _prepare(self, stage: Stage) -> None:
        await stage.identities(RELAY, HOME_A, HOME_B)
        stage.journal.note("declared")
        scenario, ids, level = self._scenario, stage.peer_ids, stage.log_level
        stage.declare(RELAY, declarations.relay(scenario, stage.state(RELAY), level))
        for who, peer_id in ((HOME_A, ids[HOME_B]), (HOME_B, None)):
            text = declarations.home(scenario, who, stage.state(who), level, ids[RELAY], peer_id)
            stage.declare(who, text)
        listen = f"127.0.0.1:{declarations.NODE_PORT}"
        network = declarations.NETWORK.value
        node = ("node", "--network", network, "--listen", listen, "--log-format", "json")
        slot = f"127.0.0.1:{declarations.SLOT_PORT}"
        payload = ("--lab-payload", str(scenario.payload))
        known = {who: (f"--known={ip}:{declarations.NODE_PORT}",) for who, ip in KNOWN.items()}
        dials = ("--addpeer", slot, "--retry", NODE_RETRY)
        stage.add(NODE_A, HOME_A, *node, *dials, *payload, *known[NODE_A])
        stage.add(NODE_B, HOME_B, *node, *payload, *known[NODE_B])


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
