"""The way to a private peer: the standing connection, or through a relay and then punched."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import trio

from appliance.bridge.circuits import dial_through
from appliance.bridge.connection import Connection, Direct
from appliance.bridge.host import Host
from appliance.bridge.introductions import IDENTIFY_DEADLINE
from appliance.bridge.kaspa import may_carry
from appliance.errors import Fault, Refused, StreamReset
from appliance.events import emit
from appliance.policy.relays import Relay
from appliance.reasons import Reason

_log = logging.getLogger("appliance.bridge.slots")


async def meet(host: Host, relay: Relay) -> Connection:
    """A direct connection to a relay; to whoever is there if we do not know its peer id.

    Raises Fault.
    """
    if relay.peer_id is not None:
        return await host.connect(relay.endpoint, relay.peer_id)
    for conn in host.connections():
        if isinstance(conn.path, Direct) and conn.path.remote == relay.endpoint and not conn.closed:
            return conn
    try:
        return await host.dial(relay.endpoint, None, client=True)
    except Fault as fault:
        if fault.reason is not Reason.PORT_IN_USE:
            raise
        return await host.dial(relay.endpoint, None, client=True, any_port=True)


class PeerPath:
    """Finds connections to one peer, through `relays` in their order."""

    def __init__(
        self, host: Host, peer_id: str, relays: Sequence[Relay], *, direct_deadline: float
    ) -> None:
        self.peer_id = peer_id
        self.relay: Relay | None = None
        """The relay that led there last."""
        self.failed_at_relay = False
        """Whether the last failure was that no relay could be reached."""
        self._host = host
        self._relays = tuple(relays)
        self._direct_deadline = direct_deadline

    async def find(self) -> Connection:
        """A connection that may carry a Kaspa stream. Raises Fault."""
        if self.peer_id == self._host.peer_id:
            raise Refused(Reason.SELF_DIAL, "this peer id is our own")
        if (standing := self._host.direct_to(self.peer_id)) is not None:
            return standing
        fault = Fault(Reason.NO_PATH, "no relay is known for this peer")
        self.failed_at_relay = True
        for relay in self._relays:
            try:
                via = await meet(self._host, relay)
            except Fault as error:
                fault = error
                continue
            self.failed_at_relay = False
            try:
                return await self._behind(via, relay)
            except Fault as error:
                fault = error
            except StreamReset as error:
                fault = Fault(Reason.CONNECTION_LOST, str(error))
        raise fault

    async def until_better(self, conn: Connection) -> None:
        """Until the path is gone, or a direct one stands beside a relayed one."""

        async def direct() -> None:
            await self._host.wait_direct(self.peer_id)
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            if conn.relayed:
                nursery.start_soon(direct)
            await conn.session.closed.wait()
            nursery.cancel_scope.cancel()

    async def _behind(self, via: Connection, relay: Relay) -> Connection:
        """The same behind one relay. Raises Fault or StreamReset."""
        with via.held():
            # Our observed address comes from the relay; the punch needs it.
            with trio.move_on_after(IDENTIFY_DEADLINE):
                await via.identified.wait()
            relayed = await dial_through(self._host, via, self.peer_id)
        self.relay = relay
        conn = await self._upgraded(relayed)
        if conn is not None:
            return conn
        if relayed.closed:
            reason = relayed.session.closed_reason or Reason.CONNECTION_LOST
            raise Fault(reason, "the relayed connection ended before a direct one stood")
        if may_carry(relayed):
            return relayed
        await relayed.session.close(Reason.RELAY_LIMIT_TOO_SMALL)
        raise Refused(
            Reason.RELAY_LIMIT_TOO_SMALL, "no direct connection, and the relay's limit is small"
        )

    async def _upgraded(self, relayed: Connection) -> Connection | None:
        """The direct connection, if it comes within the deadline and before the relayed one ends.

        The side that received the circuit starts the punch; all there is to do here is to wait.
        """
        with trio.move_on_after(self._direct_deadline), relayed.held():
            await self.until_better(relayed)
        direct = self._host.direct_to(self.peer_id)
        if direct is not None:
            direct.relayed_at = relayed.opened_at
        return direct


async def tell_first_byte(conn: Connection) -> None:
    """How long it took from the relayed connection to the first byte on the direct one."""
    if conn.relayed or conn.relayed_at is None:
        return
    heard_at = await conn.session.first_byte()
    emit(
        _log,
        logging.INFO,
        "direct_first_byte",
        peer=conn.peer_id,
        time_to_direct_ms=round((heard_at - conn.relayed_at) * 1000, 1),
    )
