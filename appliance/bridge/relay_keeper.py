"""Performs what the relay pool decides: one task for each relay that is kept, cancelled to drop it.

The pool is asked again after each outcome, and when somebody has news of relays.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Final

import trio

from appliance.bridge.guard import supervised
from appliance.bridge.host import Host
from appliance.bridge.peer_path import meet
from appliance.bridge.reservations import RelayState, ReservationKeeper
from appliance.errors import Fault, Refused
from appliance.events import emit
from appliance.network import Endpoint
from appliance.policy.backoff import RELAY_CEILING, RELAY_FIRST, Backoff
from appliance.policy.relay_pool import RelayPool
from appliance.policy.relays import Drop, Keep, Relay, RelayCandidate, Wait
from appliance.reasons import Reason

SETTLE: Final = 0.5
"""Seconds between two decisions: outcomes and news come in crowds."""
_log = logging.getLogger("appliance.bridge.relays")

RelaySource = Callable[[Collection[Endpoint]], Sequence[RelayCandidate]]
"""Candidates, of which those at the given endpoints are kept already."""


def _nobody(_kept: Collection[Endpoint]) -> Sequence[RelayCandidate]:
    return ()


class RelayKeeper:
    """Holds reservations at the relays that `pool` chooses. `run` owns the tasks."""

    def __init__(
        self,
        host: Host,
        keeper: ReservationKeeper,
        pool: RelayPool,
        rng: random.Random,
        candidates: RelaySource = _nobody,
    ) -> None:
        self.pool = pool
        self.on_changed: list[Callable[[], None]] = []
        """Told when `ways` gives something else than before."""
        self.on_tried: list[Callable[[RelayCandidate, Fault | None], None]] = []
        """Told of each reservation made or renewed, and of each failure, for the address book; the
        peer id is known then, unless nobody was met."""
        self._host = host
        self._keeper = keeper
        self._rng = rng
        self._candidates = candidates
        self._tasks: dict[Endpoint, trio.CancelScope] = {}
        self._news = trio.Event()
        self._told: tuple[Relay, ...] = ()
        keeper.on_outcome.append(self._outcome)

    def ways(self) -> tuple[Relay, ...]:
        """The relays through which others reach us now, the longest-held first."""
        standing = [
            (state.since or 0.0, Relay(state.endpoint, state.peer_id))
            for state in self._keeper.relays.values()
            if state.state in ("active", "renewing") and state.endpoint in self._tasks
        ]
        return tuple(relay for _, relay in sorted(standing))

    def look_again(self) -> None:
        """The address book has news of relays."""
        self._news.set()

    async def run(self) -> None:
        """Until cancelled; may be run again after a fault."""
        self._tasks.clear()
        async with trio.open_nursery() as nursery:
            for member in self.pool.members.values():
                self._start(member.candidate, nursery)
            while True:
                self._news = trio.Event()
                pause = self._decide(nursery)
                self._tell_changed()
                with trio.move_on_after(pause):
                    await self._news.wait()
                await trio.sleep(SETTLE)

    def _decide(self, nursery: trio.Nursery) -> float:
        """Perform what is to be done now; seconds until the next look."""
        pause = 0.0
        known = self._candidates(self.pool.members)
        for decision in self.pool.decide(trio.current_time(), known, self._rng):
            match decision:
                case Keep(candidate, because):
                    _say("relay_kept", candidate.relay.endpoint, because)
                    self._start(candidate, nursery)
                case Drop(endpoint, because):
                    _say("relay_dropped", endpoint, because)
                    self._tasks.pop(endpoint).cancel()
                case Wait(seconds):
                    pause = seconds
        return pause

    def _start(self, candidate: RelayCandidate, nursery: trio.Nursery) -> None:
        scope = self._tasks[candidate.relay.endpoint] = trio.CancelScope()

        async def keep() -> None:
            with scope:
                hold = partial(self._hold, candidate.relay)
                await supervised(self._host.telemetry, "reservations", hold)

        nursery.start_soon(keep)

    async def _hold(self, relay: Relay) -> None:
        peer_id = relay.peer_id or await self._find_out(relay)
        await self._keeper.keep(relay.endpoint, peer_id)

    async def _find_out(self, relay: Relay) -> str:
        """Who the relay is."""
        backoff = Backoff(RELAY_FIRST, RELAY_CEILING)
        while True:
            try:
                conn = await meet(self._host, relay)
                if self.pool.met(relay.endpoint, conn.peer_id):
                    return conn.peer_id
                raise Refused(Reason.SAME_RELAY, f"{conn.peer_id} is kept already")
            except Fault as fault:
                self._failed(relay.endpoint, fault)
            await trio.sleep(backoff.failed(self._rng))

    # --- what came of it

    def _outcome(self, state: RelayState, succeeded: bool) -> None:
        if state.endpoint not in self._tasks:
            return  # dropped, and about to end
        if succeeded:
            # Somebody else may have turned out to be the same relay meanwhile.
            self.pool.reserved(state.endpoint, trio.current_time())
            self._tell_tried(state.endpoint, None)
            self._news.set()
        elif state.failure is not None:
            self._failed(state.endpoint, state.failure)
        self._tell_changed()

    def _failed(self, endpoint: Endpoint, fault: Fault) -> None:
        self.pool.failed(endpoint, fault.reason, trio.current_time(), self._rng)
        self._tell_tried(endpoint, fault)
        self._news.set()

    def _tell_tried(self, endpoint: Endpoint, fault: Fault | None) -> None:
        if (member := self.pool.members.get(endpoint)) is not None:
            for listener in self.on_tried:
                listener(member.candidate, fault)

    def _tell_changed(self) -> None:
        if (ways := self.ways()) != self._told:
            self._told = ways
            for listener in self.on_changed:
                listener()


def _say(event: str, endpoint: Endpoint, because: Reason) -> None:
    # Declared ones say it themselves with their first reservation.
    level = logging.DEBUG if because is Reason.DECLARED else logging.INFO
    emit(_log, level, event, relay=str(endpoint), reason=because.value)
