"""Answering other appliances: who may ask how often, what is believed, what is told."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

from appliance.addresses.model import Origin, Source
from appliance.bridge.connection import Connection, Direct
from appliance.clock import Clock
from appliance.discovery.counts import DiscoveryCounts
from appliance.discovery.intake import Intake
from appliance.discovery.shelf import Shelf
from appliance.network import Network
from appliance.policy.gossip import AnswerBudget
from appliance.wire.gossip import (
    ANSWER_BURST,
    ANSWER_INTERVAL,
    MAX_WAIT,
    Answer,
    Ask,
    Status,
)


def origin_of(conn: Connection) -> Origin:
    """Who said it: the address of a peer, of one inside a circuit its relay's id."""
    path = conn.path
    return Origin(Source.GOSSIP, path.remote.host if isinstance(path, Direct) else path.relay)


class Answers:
    """Answers questions as `bridge.gossip.GossipService` hands them in."""

    def __init__(
        self,
        network: Network,
        intake: Intake,
        shelf: Shelf,
        own: Callable[[], bytes | None],
        counts: DiscoveryCounts,
        rng: random.Random,
        clock: Clock,
    ) -> None:
        self._network = network.wire_name
        self._intake = intake
        self._shelf = shelf
        self._own = own
        self._counts = counts
        self._rng = rng
        self._clock = clock
        self._budget = AnswerBudget(ANSWER_INTERVAL, ANSWER_BURST)

    def respond(self, conn: Connection, ask: Ask) -> Answer:
        """Never raises a Fault: what the peer told wrongly is counted, and the rest answered."""
        if ask.network != self._network:
            self._counts.refused["other-network"] += 1
            return Answer(status=Status.OTHER_NETWORK)
        wait = self._budget.take(conn.peer_id, self._clock.monotonic())
        # Also of a peer that asks too often one record is looked at: it may have moved, or go.
        for sealed in ask.records[: 1 if wait else None]:
            self._intake.record(sealed, origin_of(conn), self._clock.wall())
        if wait:
            self._counts.refused["too-soon"] += 1
            return Answer(status=Status.TOO_SOON, ask_again=min(MAX_WAIT, math.ceil(wait)))
        self._counts.served += 1
        return Answer(records=self._records(conn.peer_id, ask))

    def _records(self, asker: str, ask: Ask) -> tuple[bytes, ...]:
        chosen = self._shelf.choose(ask, asker, self._clock.wall(), self._rng)
        own = self._own()
        if own is not None:
            chosen.insert(0, own)
        return tuple(chosen[: ask.limit])
