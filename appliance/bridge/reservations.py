"""Our reservations at relays: made from the listen port, renewed in time, remade after a loss."""

from __future__ import annotations

import contextlib
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import trio

from appliance.bridge.connection import Connection, Direct, peer_deadline
from appliance.bridge.envelope import open_voucher
from appliance.bridge.host import Host
from appliance.bridge.messages import decode_hop, encode_reserve
from appliance.errors import (
    Fault,
    Refused,
    RemoteProtocolError,
    StreamReset,
)
from appliance.events import emit
from appliance.network import Endpoint
from appliance.policy.backoff import RELAY_CEILING, RELAY_FIRST, Backoff
from appliance.reasons import Reason
from appliance.units import HOUR
from appliance.wire.circuit import HOP, NO_LIMIT, Granted, Limit, check_granted, expect_status

RESERVE_DEADLINE: Final = 15.0
MAX_LIFETIME: Final = HOUR
"""Longer promises are taken as this: what relays grant, and all that our clock may be wrong by."""
RENEW_AT: Final = 0.75
"""Share of its lifetime after which a reservation is renewed: with an hour, 15 min of slack for
retries (go-libp2p renews 2 min before the end)."""
PORT_IS_FREE_AFTER: Final = 65.0
"""Seconds until a relay that was dialled from another port is dialled again from the listen port:
Linux keeps the ports of an ended connection for 60 s (TIME_WAIT)."""
_log = logging.getLogger("appliance.bridge.reservations")


@dataclass(slots=True)
class RelayState:
    """What status shows of one relay."""

    endpoint: Endpoint
    peer_id: str
    state: Literal["asking", "active", "renewing", "failed"] = "asking"
    since: float | None = None
    expires: float | None = None
    limit: Limit = NO_LIMIT
    failure: Fault | None = None


class ReservationKeeper:
    """Keeps one reservation at each relay given. `run` owns a task a relay."""

    def __init__(self, host: Host, rng: random.Random) -> None:
        self._host = host
        self._rng = rng
        self.relays: dict[str, RelayState] = {}
        self.on_outcome: list[Callable[[RelayState, bool], None]] = []
        """Told of each success and failure, for the address book."""

    def is_ours(self, peer_id: str) -> bool:
        """Whether this relay may bring us circuits."""
        return peer_id in self.relays

    async def keep(self, endpoint: Endpoint, peer_id: str) -> None:
        """Never returns; cancel it to give the reservation up."""
        state = self.relays[peer_id] = RelayState(endpoint, peer_id)
        backoff = Backoff(RELAY_FIRST, RELAY_CEILING)
        try:
            while True:
                try:
                    await self._hold(state, backoff)
                except Fault as fault:
                    await self._failed(state, backoff, fault)
        finally:
            if self.relays.get(peer_id) is state:
                del self.relays[peer_id]

    async def _hold(self, state: RelayState, backoff: Backoff) -> None:
        """Connect, reserve, renew; raises Fault when the reservation is lost."""
        state.state = "asking"
        conn = await self._host.connect(state.endpoint, state.peer_id)
        with conn.held():
            while True:
                granted = await self._reserve(state, conn)
                backoff.succeeded()
                patience = max(1.0, (granted.expires - time.time()) * RENEW_AT)
                if borrowed := isinstance(conn.path, Direct) and not conn.path.from_listen_port:
                    patience = min(patience, PORT_IS_FREE_AFTER)
                with trio.move_on_after(patience):
                    await conn.session.closed.wait()
                if borrowed and not conn.closed:
                    # Only what comes from the listen port shows an address that can be punched.
                    await conn.session.close(Reason.PORT_IN_USE)
                if conn.closed:
                    reason = conn.session.closed_reason or Reason.CONNECTION_LOST
                    raise Fault(reason, "the connection to the relay ended")
                state.state = "renewing"

    async def _reserve(self, state: RelayState, conn: Connection) -> Granted:
        try:
            with peer_deadline(RESERVE_DEADLINE, Reason.RESERVATION_REFUSED):
                async with conn.exchange(HOP) as stream:
                    await stream.send_message(encode_reserve())
                    reply = expect_status(decode_hop(await stream.receive_message()))
        except StreamReset as error:
            await self._expect_support(conn)
            raise Fault(Reason.CONNECTION_LOST, str(error)) from error
        if not reply.ok:
            raise Refused(Reason.RESERVATION_REFUSED, f"the relay answered {reply.name}")
        granted = check_granted(reply, now=time.time(), max_lifetime=MAX_LIFETIME)
        if granted.voucher:
            voucher = open_voucher(granted.voucher)
            if (voucher.relay, voucher.peer) != (conn.peer_id, self._host.peer_id):
                raise RemoteProtocolError(Reason.MALFORMED_MESSAGE, "a voucher for somebody else")
        state.since = state.since or time.time()
        state.state, state.expires, state.failure = "active", float(granted.expires), None
        state.limit = reply.limit
        emit(
            _log,
            logging.INFO,
            "reservation_made",
            relay=state.peer_id,
            address=str(state.endpoint),
            expires=granted.expires,
        )
        self._tell(state, succeeded=True)
        return granted

    async def _expect_support(self, conn: Connection) -> None:
        """Raises Fault (unsupported-protocol) if the peer is no relay at all.

        Its refusal may show as a mere reset where RESERVE came right behind the proposal.
        """
        with (
            contextlib.suppress(StreamReset),
            peer_deadline(RESERVE_DEADLINE, Reason.RESERVATION_REFUSED),
        ):
            stream = conn.open(HOP)
            try:
                await stream.confirmed()
            finally:
                stream.reset()

    async def _failed(self, state: RelayState, backoff: Backoff, fault: Fault) -> None:
        delay = backoff.failed(self._rng)
        state.state, state.failure = "failed", fault
        state.since = state.expires = None
        emit(
            _log,
            logging.WARNING,
            "reservation_failed",
            relay=state.peer_id,
            reason=fault.reason.value,
            detail=fault.detail,
            retry_in_s=round(delay, 1),
        )
        self._tell(state, succeeded=False)
        await trio.sleep(delay)

    def _tell(self, state: RelayState, *, succeeded: bool) -> None:
        for listener in self.on_outcome:
            listener(state, succeeded)
