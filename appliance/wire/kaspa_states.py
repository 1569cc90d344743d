"""The states of a Kaspa connection, and which message is legal in which.

    IDLE ─start─► SHAKING ──────────► VETTING ─accept─► READYING ──────► OPEN ─► CLOSED
                  version and verack   the shell         ready comes in   questions
                  come in              judges

From rusty-kaspa, which routes a message to whoever has subscribed to its type and ends the
connection if nobody has (protocol/p2p/src/core/router.rs): before the peer is accepted only the
handshake has subscribed, afterwards only the flows.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

from appliance.wire.kaspa_messages import (
    Addresses,
    LabChunk,
    Opaque,
    Payload,
    Ping,
    Pong,
    Ready,
    Reject,
    RequestAddresses,
    Verack,
    Version,
)


class State(Enum):
    """Where a connection stands."""

    IDLE = auto()
    SHAKING = auto()
    VETTING = auto()
    READYING = auto()
    OPEN = auto()
    CLOSED = auto()


class Act(Enum):
    """What becomes of a message that may come."""

    TAKE = auto()
    HOLD = auto()  # until OPEN, then TAKE
    IGNORE = auto()


_ACCEPTED: Final[dict[type[Payload], Act]] = {
    Version: Act.IGNORE,
    Verack: Act.IGNORE,
    Ready: Act.TAKE,
    Reject: Act.TAKE,
    Ping: Act.HOLD,
    Pong: Act.HOLD,
    RequestAddresses: Act.HOLD,
    Addresses: Act.HOLD,
    LabChunk: Act.HOLD,
    Opaque: Act.IGNORE,
}

# What is not here ends the connection.
TABLE: Final[dict[State, dict[type[Payload], Act]]] = {
    State.IDLE: {},
    State.SHAKING: dict.fromkeys((Version, Verack, Ready, Reject), Act.TAKE),
    State.VETTING: _ACCEPTED,
    State.READYING: _ACCEPTED,
    State.OPEN: dict.fromkeys(
        (Ping, Pong, RequestAddresses, Addresses, LabChunk, Opaque, Reject), Act.TAKE
    ),
    State.CLOSED: {},
}
