"""The one list of reason codes.

Every refusal, reset and failed punch names one of these: on the wire (as the libp2p status that
`wire_status` maps it to), as the `reason` label of a metric, as the `reason` field of a log event,
and as the argument of `appliance explain`. Codes are stable: add freely, rename nothing.
"""

from __future__ import annotations

from enum import Enum
from typing import Final


class Reason(str, Enum):
    """Why something was refused, ended or failed. The value is the stable code."""

    # --- admission and budgets
    INBOUND_PRIVATE_FULL = "inbound-private-full"
    PER_RELAY_FULL = "per-relay-full"
    UNKNOWN_RELAY_FULL = "unknown-relay-full"
    PEER_HAS_STREAM = "peer-has-stream"
    CONNECTIONS_FULL = "connections-full"
    CONNECTIONS_PER_IP_FULL = "connections-per-ip-full"
    HANDSHAKES_FULL = "handshakes-full"
    STREAMS_FULL = "streams-full"
    NODE_UNREACHABLE = "node-unreachable"
    SHUTTING_DOWN = "shutting-down"
    # --- relay service (circuit v2)
    RESERVATIONS_FULL = "reservations-full"
    RESERVATIONS_PER_IP_FULL = "reservations-per-ip-full"
    CIRCUITS_FULL = "circuits-full"
    CIRCUITS_PER_PEER_FULL = "circuits-per-peer-full"
    NO_RESERVATION = "no-reservation"
    RELAYED_RESERVE = "relayed-reserve"
    RELAYED_CONNECT = "relayed-connect"
    CONNECT_TO_SELF = "connect-to-self"
    TARGET_UNREACHABLE = "target-unreachable"
    TARGET_REFUSED = "target-refused"
    CIRCUIT_TIME_LIMIT = "circuit-time-limit"
    CIRCUIT_BYTE_LIMIT = "circuit-byte-limit"
    STOP_FROM_STRANGER = "stop-from-stranger"
    RESERVATION_REFUSED = "reservation-refused"
    # --- streams and connections
    HANDLER_FAULT = "handler-fault"
    PEER_RESET = "peer-reset"
    NODE_RESET = "node-reset"
    CONNECTION_LOST = "connection-lost"
    IDLE = "idle"
    PING_TIMEOUT = "ping-timeout"
    HANDSHAKE_TIMEOUT = "handshake-timeout"
    HANDSHAKE_FAILED = "handshake-failed"
    WRONG_PEER = "wrong-peer"
    SELF_DIAL = "self-dial"
    DIAL_FAILED = "dial-failed"
    PORT_IN_USE = "port-in-use"
    DIAL_TIMEOUT = "dial-timeout"
    UNSUPPORTED_PROTOCOL = "unsupported-protocol"
    DRAIN_DEADLINE = "drain-deadline"
    # --- punching and the choice of path
    PUNCH_NO_ADDRESSES = "punch-no-addresses"
    PUNCH_TIMEOUT = "punch-timeout"
    PUNCH_REFUSED = "punch-refused"
    PUNCH_PROTOCOL = "punch-protocol"
    RELAY_LIMIT_TOO_SMALL = "relay-limit-too-small"
    NO_PATH = "no-path"
    # --- malformed input
    MALFORMED_MESSAGE = "malformed-message"
    MESSAGE_TOO_LARGE = "message-too-large"
    UNEXPECTED_MESSAGE = "unexpected-message"
    YAMUX_VIOLATION = "yamux-violation"
    NOISE_VIOLATION = "noise-violation"
    # --- signed capability records and their gossip
    BAD_SIGNATURE = "bad-signature"
    RECORD_EXPIRED = "record-expired"
    RECORD_FROM_FUTURE = "record-from-future"
    RECORD_LIVES_TOO_LONG = "record-lives-too-long"
    RECORD_SUPERSEDED = "record-superseded"
    TOO_MANY_RECORDS = "too-many-records"
    # --- relays and peers that we choose ourselves
    DECLARED = "declared"
    RELAY_WANTED = "relay-wanted"
    RELAY_ROTATION = "relay-rotation"
    RELAY_UNSTABLE = "relay-unstable"
    RELAYS_ENOUGH = "relays-enough"
    RELAYS_IN_USE = "relays-in-use"
    SAME_NETWORK = "same-network"
    SAME_RELAY = "same-relay"
    NO_CANDIDATE = "no-candidate"
    BACKING_OFF = "backing-off"
    PEER_HUNG_UP = "peer-hung-up"
    PEER_UNUSED = "peer-unused"
    # --- the Kaspa side
    WRONG_NETWORK = "wrong-network"
    WRONG_PROTOCOL_VERSION = "wrong-protocol-version"
    SELF_CONNECTION = "self-connection"
    KASPA_TIMEOUT = "kaspa-timeout"
    TOO_MANY_ADDRESSES = "too-many-addresses"
    REJECTED_BY_PEER = "rejected-by-peer"

    @property
    def wire_status(self) -> int:
        """The circuit v2 `Status` that tells a libp2p peer about it; 400 where none fits better.

        Numbers: libp2p specs, relay/circuit-v2.md, enum Status.
        """
        return _WIRE_STATUS.get(self, 400)


_WIRE_STATUS: Final[dict[Reason, int]] = {
    Reason.RESERVATIONS_FULL: 200,
    Reason.RESERVATIONS_PER_IP_FULL: 200,
    Reason.SHUTTING_DOWN: 200,
    Reason.CIRCUITS_FULL: 201,
    Reason.CONNECTIONS_FULL: 201,
    Reason.CIRCUITS_PER_PEER_FULL: 201,
    Reason.RELAYED_RESERVE: 202,
    Reason.RELAYED_CONNECT: 202,
    Reason.STOP_FROM_STRANGER: 202,
    Reason.TARGET_UNREACHABLE: 203,
    Reason.TARGET_REFUSED: 203,
    Reason.NO_RESERVATION: 204,
    Reason.MALFORMED_MESSAGE: 400,
    Reason.MESSAGE_TOO_LARGE: 400,
    Reason.UNEXPECTED_MESSAGE: 401,
}
