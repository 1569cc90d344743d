"""Circuit Relay v2, without I/O and without an encoding: what is said, and what is legal when.

Source: libp2p specs, relay/circuit-v2.md. `bridge.messages` turns these into protobuf and back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from appliance.errors import RemoteProtocolError
from appliance.network import Endpoint
from appliance.reasons import Reason

HOP: Final = "/libp2p/circuit/relay/0.2.0/hop"
STOP: Final = "/libp2p/circuit/relay/0.2.0/stop"
OK: Final = 100

STATUS_NAMES: Final[dict[int, str]] = {
    100: "OK",
    200: "RESERVATION_REFUSED",
    201: "RESOURCE_LIMIT_EXCEEDED",
    202: "PERMISSION_DENIED",
    203: "CONNECTION_FAILED",
    204: "NO_RESERVATION",
    400: "MALFORMED_MESSAGE",
    401: "UNEXPECTED_MESSAGE",
}


@dataclass(frozen=True, slots=True)
class Limit:
    """What a relay allows one circuit: seconds, and bytes in each direction; 0 is no limit."""

    seconds: int = 0
    data_bytes: int = 0


NO_LIMIT: Final = Limit()


@dataclass(frozen=True, slots=True)
class ReserveRequest:
    """Hop: keep a slot for me. The peer id in such a message, if any, is ignored."""


@dataclass(frozen=True, slots=True)
class ConnectRequest:
    """Hop: connect me to this peer."""

    peer_id: str


@dataclass(frozen=True, slots=True)
class IncomingCircuit:
    """Stop: this peer wants you."""

    peer_id: str
    limit: Limit


@dataclass(frozen=True, slots=True)
class Granted:
    """A reservation as the relay describes it: `expires` in Unix seconds."""

    expires: int
    addresses: tuple[Endpoint, ...]
    voucher: bytes


@dataclass(frozen=True, slots=True)
class StatusReply:
    """Hop or stop: the answer. `granted` only to a successful RESERVE."""

    status: int
    limit: Limit = NO_LIMIT
    granted: Granted | None = None

    @property
    def ok(self) -> bool:
        return self.status == OK

    @property
    def name(self) -> str:
        return STATUS_NAMES.get(self.status, str(self.status))


HopRequest = ReserveRequest | ConnectRequest
HopMessage = ReserveRequest | ConnectRequest | StatusReply
StopMessage = IncomingCircuit | StatusReply


def expect_request(message: HopMessage) -> HopRequest:
    """What a relay may hear first. Raises RemoteProtocolError(unexpected-message)."""
    if isinstance(message, StatusReply):
        raise RemoteProtocolError(Reason.UNEXPECTED_MESSAGE, "a status opened a hop stream")
    return message


def expect_status(message: HopMessage | StopMessage) -> StatusReply:
    """What may answer a request. Raises RemoteProtocolError(unexpected-message)."""
    if not isinstance(message, StatusReply):
        raise RemoteProtocolError(Reason.UNEXPECTED_MESSAGE, "a request came for an answer")
    return message


def expect_circuit(message: StopMessage) -> IncomingCircuit:
    """What a target may hear first. Raises RemoteProtocolError(unexpected-message)."""
    if not isinstance(message, IncomingCircuit):
        raise RemoteProtocolError(Reason.UNEXPECTED_MESSAGE, "a status opened a stop stream")
    return message


def check_granted(reply: StatusReply, *, now: float, max_lifetime: float) -> Granted:
    """The reservation in a successful answer, its expiry cut to something sane.

    `now` is Unix seconds. Raises RemoteProtocolError(malformed-message) if there is none or it is
    over already (spec: such a reservation is to be treated as none).
    """
    granted = reply.granted
    if granted is None:
        raise RemoteProtocolError(Reason.MALFORMED_MESSAGE, "OK without a reservation")
    if granted.expires <= now:
        raise RemoteProtocolError(Reason.MALFORMED_MESSAGE, "the reservation is over already")
    if granted.expires > now + max_lifetime:
        return Granted(int(now + max_lifetime), granted.addresses, granted.voucher)
    return granted
