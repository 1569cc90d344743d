"""DCUtR as machines without I/O: who says what, and when each side dials.

Source: libp2p specs, relay/DCUtR.md. The peer that received the relayed connection starts. Both
machines end in a `DialPlan`: dial these addresses at that moment, in that security role.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from appliance.errors import LocalProtocolError, RemoteProtocolError
from appliance.network import Endpoint
from appliance.reasons import Reason

PROTOCOL: Final = "/libp2p/dcutr"
ATTEMPTS: Final = 3
"""Rounds of CONNECT, CONNECT, SYNC before the upgrade has failed (spec)."""
MAX_ROUND_TRIP: Final = 10.0
"""Seconds between our CONNECT and the answer that still make sense as a round trip."""


@dataclass(frozen=True, slots=True)
class Connect:
    """The addresses at which the speaker believes to be seen."""

    addresses: tuple[Endpoint, ...]


@dataclass(frozen=True, slots=True)
class Sync:
    """Dial now."""


Message = Connect | Sync


@dataclass(frozen=True, slots=True)
class DialPlan:
    """Dial `addresses` `after` seconds from now; `client` is the security initiator's role."""

    addresses: tuple[Endpoint, ...]
    after: float
    client: bool


class State(Enum):
    """Where an exchange stands."""

    START = "start"
    SENT_CONNECT = "sent-connect"
    GOT_CONNECT = "got-connect"
    DONE = "done"


class Starter:
    """The side that received the relayed connection: CONNECT →, ← CONNECT, SYNC →."""

    def __init__(self, own: tuple[Endpoint, ...]) -> None:
        self._own = own
        self._sent_at = 0.0
        self.round_trip = 0.0
        self.state = State.START

    def begin(self, now: float) -> Connect:
        """The message to send. Raises LocalProtocolError if called twice."""
        if self.state is not State.START:
            raise LocalProtocolError(Reason.PUNCH_PROTOCOL, f"begin in {self.state.value}")
        self._sent_at = now
        self.state = State.SENT_CONNECT
        return Connect(self._own)

    def receive(self, message: Message, now: float) -> tuple[Sync, DialPlan]:
        """Send the SYNC, then dial after half a round trip. Raises RemoteProtocolError."""
        if self.state is not State.SENT_CONNECT or not isinstance(message, Connect):
            raise RemoteProtocolError(
                Reason.PUNCH_PROTOCOL, f"{type(message).__name__} in {self.state.value}"
            )
        self.round_trip = now - self._sent_at
        if self.round_trip > MAX_ROUND_TRIP:
            raise RemoteProtocolError(Reason.PUNCH_PROTOCOL, "CONNECT was answered too late")
        self.state = State.DONE
        return Sync(), DialPlan(message.addresses, self.round_trip / 2, client=False)


class Answerer:
    """The side that dialled through the relay: ← CONNECT, CONNECT →, ← SYNC."""

    def __init__(self, own: tuple[Endpoint, ...]) -> None:
        self._own = own
        self._peer: tuple[Endpoint, ...] = ()
        self.state = State.START

    def receive(self, message: Message) -> Connect | DialPlan:
        """The message to send, then the plan. Raises RemoteProtocolError."""
        if self.state is State.START and isinstance(message, Connect):
            self._peer = message.addresses
            self.state = State.GOT_CONNECT
            return Connect(self._own)
        if self.state is State.GOT_CONNECT and isinstance(message, Sync):
            self.state = State.DONE
            return DialPlan(self._peer, 0.0, client=True)
        raise RemoteProtocolError(
            Reason.PUNCH_PROTOCOL, f"{type(message).__name__} in {self.state.value}"
        )
