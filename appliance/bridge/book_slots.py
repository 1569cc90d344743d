"""Slots that the declaration gives to nobody: the node dials, and a peer of the address book is
found to stand behind.

    vacant ─the node dials─► assigned ─the peer fails, or nobody dials for long─► vacant

A vacant slot hangs up if nobody is known; the node dials again, as every Kaspa node does.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import trio

from appliance.bridge.connection import Direct
from appliance.bridge.host import Host
from appliance.bridge.kaspa import KaspaStreams
from appliance.bridge.peer_path import PeerPath
from appliance.bridge.slots import ListeningSlot
from appliance.errors import Fault
from appliance.events import emit
from appliance.network import Endpoint
from appliance.policy.backoff import SLOT_CEILING, SLOT_FIRST, Backoff
from appliance.policy.peer_choice import Choice, PeerCandidate, PeerChoice
from appliance.reasons import Reason
from appliance.units import MINUTE

GIVE_UP_AFTER: Final = 2
"""Failures in a row: one may be a relay that was just renewing, or a punch that met a full NAT."""
HOPELESS: Final = frozenset({Reason.RELAY_LIMIT_TOO_SMALL, Reason.SELF_DIAL})
"""Not tried a second time: of the punches that succeed, 97.6 % do so at once (arXiv 2510.27500)."""
USEFUL_AFTER: Final = 10.0
"""Seconds: a stream that ends sooner was no help to the node; stock kaspad's handshake may take 8.
A peer whose inbound budget is full, or whose node is away, shows like this."""
UNUSED_AFTER: Final = 10 * MINUTE
"""Without a dial: kaspad comes back after at most 8 min, so it does not want this slot any more."""
_log = logging.getLogger("appliance.bridge.slots")

PeerSource = Callable[[], Sequence[PeerCandidate]]


class Matchmaker:
    """Gives peers to the slots that have none; knows who is connected, and through which relays.

    `candidates` are asked for anew with each choice; `declared` are the slots that have their own.
    """

    def __init__(
        self,
        choice: PeerChoice,
        host: Host,
        streams: KaspaStreams,
        rng: random.Random,
        candidates: PeerSource,
        *,
        declared: Iterable[ListeningSlot] = (),
    ) -> None:
        self.on_tried: list[Callable[[PeerCandidate, bool], None]] = []
        """Told whether a peer was reached, for the address book."""
        self._choice = choice
        self._host = host
        self._streams = streams
        self._rng = rng
        self._candidates = candidates
        self._declared = tuple(declared)
        self._left: set[str] = set()
        """Peers that we dialled and let go, while their connections last."""

    def choose(self, slot: int) -> Choice | Reason:
        """Somebody for a vacant slot, or why there is nobody."""
        used = (slot.way.relay for slot in self._declared if slot.way is not None)
        return self._choice.choose(
            slot,
            trio.current_time(),
            self._candidates(),
            self._rng,
            connected=self._connected(),
            relays_in_use=[relay for relay in used if relay is not None],
        )

    def has_stream(self, peer_id: str) -> bool:
        """Whether a Kaspa stream with the peer is open or about to be, in either direction."""
        return self._streams.talks_to(peer_id)

    def reached(self, slot: int) -> None:
        """The peer's node talks to ours."""
        self._tell(slot, reached=True)
        self._choice.reached(slot)

    def release(self, slot: int) -> None:
        """The slot is vacant again, and its peer was not to blame."""
        self._leave(slot)
        self._choice.release(slot)

    def give_up(self, slot: int, *, at_relay: bool) -> None:
        """The slot is vacant again: its peer failed, or already the relay did."""
        if not at_relay:
            self._tell(slot, reached=False)
        self._leave(slot)
        self._choice.give_up(slot, trio.current_time(), self._rng, at_relay=at_relay)

    def _leave(self, slot: int) -> None:
        if (choice := self._choice.chosen.get(slot)) is not None:
            self._left.add(choice.peer.peer_id)

    def _tell(self, slot: int, *, reached: bool) -> None:
        if (choice := self._choice.chosen.get(slot)) is not None:
            for listener in self.on_tried:
                listener(choice.peer, reached)

    def _connected(self) -> set[str]:
        """Peers with a stream, and those that are about to have one: they came through a relay."""
        coming = set()
        for conn in self._host.connections():
            punched = isinstance(conn.path, Direct) and conn.path.punched
            if punched or (conn.relayed and conn.direction == "inbound"):
                coming.add(conn.peer_id)
        self._left &= coming
        return {stream.peer_id for stream in self._streams.open} | (coming - self._left)


class BookSlot(ListeningSlot):
    """A slot whose peer comes from the address book; `number` is its own among all slots."""

    origin = "book"
    yields = True

    def __init__(
        self,
        number: int,
        listen: Endpoint,
        host: Host,
        streams: KaspaStreams,
        rng: random.Random,
        matchmaker: Matchmaker,
        *,
        direct_deadline: float,
    ) -> None:
        super().__init__(listen, host, streams, rng, direct_deadline=direct_deadline)
        self.state = "vacant"
        self._number = number
        self._matchmaker = matchmaker
        self._assigned = trio.Event()
        self._held = trio.CancelScope()
        self._short_streams = 0
        self._used_at = 0.0

    # --- who stands behind it

    def _somebody_is_there(self) -> bool:
        self._used_at = trio.current_time()
        return self._may_open() or self._assign()

    def _may_open(self) -> bool:
        if self.way is not None and self._matchmaker.has_stream(self.way.peer_id):
            # It dialled us meanwhile: a second stream with it would help nobody.
            self._release(Reason.PEER_HAS_STREAM)
        return self.way is not None

    def _assign(self) -> bool:
        found = self._matchmaker.choose(self._number)
        if isinstance(found, Reason):
            self._count_vacancy(found)
            return False
        self.way = PeerPath(
            self._host,
            found.peer.peer_id,
            (found.relay,),
            direct_deadline=self._direct_deadline,
        )
        self.state, self.failure, self._short_streams = "connecting", None, 0
        self._assigned.set()
        emit(
            _log,
            logging.INFO,
            "slot_assigned",
            slot=str(self.listening),
            peer=found.peer.peer_id,
            relay=str(found.relay.endpoint),
            signed=found.peer.signed,
        )
        return True

    def _count_vacancy(self, reason: Reason) -> None:
        """Each attempt is counted; only a change is logged."""
        self._host.telemetry.refusals["slot", reason] += 1
        if self.failure is None or self.failure.reason is not reason:
            emit(_log, logging.INFO, "slot_vacant", slot=str(self.listening), reason=reason.value)
        self.state, self.failure = "vacant", Fault(reason)

    def _release(self, reason: Reason) -> None:
        """Leave the peer in peace."""
        self._matchmaker.release(self._number)
        self._vacate(reason)

    def _give_up(self, reason: Reason, *, at_relay: bool = False) -> None:
        """Look for another one; this one waits until it may be tried again."""
        self._matchmaker.give_up(self._number, at_relay=at_relay)
        self._vacate(reason)

    def _vacate(self, reason: Reason) -> None:
        if self.way is None:
            return
        emit(
            _log,
            logging.INFO,
            "slot_released",
            slot=str(self.listening),
            peer=self.way.peer_id,
            reason=reason.value,
        )
        self.way, self.state, self.failure = None, "vacant", Fault(reason)
        self._assigned = trio.Event()
        self._held.cancel()

    # --- the path

    async def _keep_path(self) -> None:
        while True:
            await self._assigned.wait()
            if (way := self.way) is not None:
                with trio.CancelScope() as self._held:
                    await self._hold(way)
            if self.way is None and self._waiting is not None and not self._assign():
                # The node waits, and there is nobody else to wait for.
                self._waiting.cancel()
                self._waiting = None

    async def _hold(self, way: PeerPath) -> None:
        """Keep the path to an assigned peer, until it is given up: that cancels this."""
        backoff = Backoff(SLOT_FIRST, SLOT_CEILING)
        failures = 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch_use)
            while True:
                try:
                    await self._hold_path(way, backoff)
                    failures = 0
                except Fault as fault:
                    failures += 1
                    if failures >= GIVE_UP_AFTER or fault.reason in HOPELESS:
                        self._give_up(fault.reason, at_relay=way.failed_at_relay)
                    else:
                        await self._pause(way, backoff, fault)
                await trio.lowlevel.checkpoint()  # where a release is noticed at the latest

    async def _watch_use(self) -> None:
        while True:
            idle = trio.current_time() - self._used_at
            if self._in_use:
                idle = 0.0
            if idle >= UNUSED_AFTER:
                self._release(Reason.PEER_UNUSED)
            await trio.sleep(max(1.0, UNUSED_AFTER - idle))

    def _stream_ended(self, lasted: float) -> None:
        self._used_at = trio.current_time()
        if self.way is None:
            return
        if lasted >= USEFUL_AFTER:
            self._short_streams = 0
            self._matchmaker.reached(self._number)
            return
        if self._matchmaker.has_stream(self.way.peer_id):
            self._release(Reason.PEER_HAS_STREAM)  # it dialled us at the same moment
            return
        self._short_streams += 1
        if self._short_streams >= GIVE_UP_AFTER:
            self._give_up(Reason.PEER_HUNG_UP)
