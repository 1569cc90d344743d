"""One Kaspa connection as a machine without I/O: handshake, addresses, ping.

Behaviour after rusty-kaspa: protocol/p2p/src/handshake.rs and core/router.rs, protocol/flows/src
(flow_context.rs, v7/address.rs, v7/ping.rs). Both sides send `version` at once; a version is
answered by `verack` before it is judged; `ready` goes out when both have come in. What arrives for
the flows before `ready` waits; what has no place in `kaspa_states.TABLE` ends the connection.

The shell calls `receive` and `tick`, sends all of `messages_to_send()` after each call that may
have filled it, also after an error, and calls `tick` again at `next_deadline`.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from appliance.errors import LocalProtocolError, RemoteProtocolError
from appliance.reasons import Reason
from appliance.wire import kaspa_codec
from appliance.wire.kaspa_events import (
    AddressesReceived,
    AddressesRequested,
    Event,
    HandshakeDone,
    LabChunkReceived,
    OpaqueReceived,
    PeerIdentified,
    PongReceived,
    RejectReceived,
)
from appliance.wire.kaspa_messages import (
    MAX_ADDRESSES_SENT,
    Addresses,
    LabChunk,
    Message,
    NetAddress,
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
from appliance.wire.kaspa_states import TABLE, Act, State

# rusty-kaspa, protocol/flows/src/flow_context.rs.
PROTOCOL_VERSION: Final = 10
# The first version that rusty-kaspa spoke. All that this machine says is the same from there on;
# today's rusty-kaspa itself wants 10.
OLDEST_PROTOCOL_VERSION: Final = 5
# What two stock nodes say of a connection that is nobody's fault; they do not warn about it.
LOOPBACK_REJECT: Final = "LOOPBACK_CONNECTION"
DUPLICATE_REJECT: Final = "DUPLICATE_CONNECTION"
# Messages that may wait for `ready`, as the incoming routes of core/router.rs; bytes are our bound.
MAX_HELD_MESSAGES: Final = 256
MAX_HELD_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Seconds. The defaults are stock's: handshake.rs, v7/ping.rs, common.rs DEFAULT_TIMEOUT."""

    version: float = 4.0
    verack: float = 4.0
    ready: float = 8.0
    answer: float = 120.0
    ping_interval: float = 120.0


# Relay-capable nodes allow more over libp2p, where a path may lead over a relay.
LIBP2P_TIMEOUTS: Final = Timeouts(version=8.0, verack=8.0, ready=12.0)


class KaspaSession:
    """Our end of one connection. `receive` and `tick` raise RemoteProtocolError once, then it is
    CLOSED; calls that are not legal in a state raise LocalProtocolError."""

    def __init__(
        self,
        local: Version,
        *,
        rng: random.Random,
        timeouts: Timeouts | None = None,
        oldest: int = OLDEST_PROTOCOL_VERSION,
    ) -> None:
        self.state = State.IDLE
        self.peer: Version | None = None
        self.rejected_with: str | None = None  # what we told the peer, if we did
        self._local = local
        self._rng = rng
        self._timeouts = timeouts or Timeouts()
        self._oldest = oldest
        self._outbox: deque[bytes] = deque()
        self._held: deque[Payload] = deque()
        self._held_bytes = 0
        self._veracked = False
        self._peer_ready = False
        self._deadlines: dict[str, float] = {}
        self._ping: tuple[int, float] | None = None  # nonce, sent at

    # --- what the shell does

    def start(self, now: float) -> None:
        """Say `version`."""
        self._want(State.IDLE)
        self.state = State.SHAKING
        self._deadlines = {
            "version": now + self._timeouts.version,
            "verack": now + self._timeouts.verack,
        }
        self._say(self._local)

    def accept(self, now: float) -> list[Event]:
        """After PeerIdentified: say `ready`."""
        self._want(State.VETTING)
        self.state = State.READYING
        self._deadlines = {"ready": now + self._timeouts.ready}
        self._say(Ready())
        return self._open(now) if self._peer_ready else []

    def refuse(self, reason: Reason, text: str = "") -> None:
        """Say why, and close. Legal until CLOSED."""
        if self.state in (State.IDLE, State.CLOSED):
            raise LocalProtocolError(reason, f"refuse in {self.state.name}")
        self._reject(reason, text or reason.value)

    def close(self) -> None:
        """Nothing more is said or heard. Idempotent."""
        self.state = State.CLOSED
        self._deadlines = {}
        self._held.clear()

    def request_addresses(self, now: float) -> None:
        """Ask the peer. A stock peer is asked once, when `ready` went both ways: we do it then."""
        self._want(State.OPEN)
        self._deadlines["addresses"] = now + self._timeouts.answer
        self._say(RequestAddresses())

    def send_addresses(self, addresses: Iterable[NetAddress]) -> None:
        """Answer AddressesRequested, with at most 1,000."""
        self._want(State.OPEN)
        chosen = tuple(addresses)
        if len(chosen) > MAX_ADDRESSES_SENT:
            raise LocalProtocolError(Reason.TOO_MANY_ADDRESSES, f"{len(chosen)} to be sent")
        self._say(Addresses(chosen))

    def encode_lab_chunk(self, chunk: LabChunk) -> bytes:
        """A message that the shell sends itself, when there is room: bulk never queues here."""
        self._want(State.OPEN)
        return kaspa_codec.encode(Message(chunk))

    def messages_to_send(self) -> list[bytes]:
        """All `KaspadMessage`s that wait to be sent; they count as sent now."""
        waiting = list(self._outbox)
        self._outbox.clear()
        return waiting

    @property
    def next_deadline(self) -> float:
        """When `tick` is due; `math.inf` if never."""
        return min(self._deadlines.values(), default=math.inf)

    def tick(self, now: float) -> None:
        """Ping if it is time. Raises RemoteProtocolError (KASPA_TIMEOUT) for what did not come."""
        for what, deadline in list(self._deadlines.items()):
            if now < deadline:
                continue
            if what != "ping":
                raise self._fault(Reason.KASPA_TIMEOUT, f"no {what} in time")
            nonce = self._rng.getrandbits(64)
            self._ping = (nonce, now)
            del self._deadlines["ping"]
            self._deadlines["pong"] = now + self._timeouts.answer
            self._say(Ping(nonce))

    def receive(self, data: bytes, now: float) -> list[Event]:
        """One `KaspadMessage`. Raises RemoteProtocolError for what the peer must not send."""
        if self.state in (State.IDLE, State.CLOSED):
            raise LocalProtocolError(Reason.UNEXPECTED_MESSAGE, f"receive in {self.state.name}")
        try:
            message = kaspa_codec.decode(data)
        except RemoteProtocolError as error:
            raise self._fault(error.reason, error.detail) from None
        if message.response_id:
            # We never ask with an id, so nothing waits for an answer with one.
            raise self._fault(Reason.UNEXPECTED_MESSAGE, "an answer that nobody asked for")
        if self.state in (State.VETTING, State.READYING):
            self._held_bytes += len(data)
        return self._handle(message.payload, now)

    # --- what the peer's messages do

    def _handle(self, payload: Payload, now: float) -> list[Event]:
        act = TABLE[self.state].get(type(payload))
        if act is None:
            name = type(payload).__name__
            raise self._fault(Reason.UNEXPECTED_MESSAGE, f"{name} in {self.state.name}")
        if act is Act.IGNORE:
            return []
        if act is Act.HOLD:
            return self._hold(payload)
        match payload:
            case Version():
                return self._on_version(payload)
            case Verack():
                return self._on_verack()
            case Ready():
                self._peer_ready = True
                return self._open(now) if self.state is State.READYING else []
            case Ping(nonce):
                self._say(Pong(nonce))
                return []
            case Pong(nonce):
                return self._on_pong(nonce, now)
            case RequestAddresses():
                return [AddressesRequested()]
            case Addresses(addresses):
                if self._deadlines.pop("addresses", None) is None:
                    raise self._fault(Reason.UNEXPECTED_MESSAGE, "addresses that nobody asked for")
                return [AddressesReceived(addresses)]
            case LabChunk():
                return [LabChunkReceived(payload)]
            case Opaque(number, size):
                return [OpaqueReceived(number, size)]
            case Reject(text):
                self.close()
                return [RejectReceived(text, text in (LOOPBACK_REJECT, DUPLICATE_REJECT))]

    def _on_version(self, version: Version) -> list[Event]:
        if self.peer is not None:
            return []  # stock queues a second one and never looks at it
        self.peer = version
        del self._deadlines["version"]
        self._say(Verack())
        return self._vet()

    def _on_verack(self) -> list[Event]:
        if self._veracked:
            return []
        self._veracked = True
        del self._deadlines["verack"]
        return self._vet()

    def _vet(self) -> list[Event]:
        if self.peer is None or not self._veracked:
            return []
        peer, local = self.peer, self._local
        if peer.peer_id == local.peer_id:
            raise self._fault(Reason.SELF_CONNECTION, "this node dialled itself")
        if peer.network != local.network:
            raise self._fault(
                Reason.WRONG_NETWORK, f"network {peer.network[:64]!r}, here it is {local.network}"
            )
        if peer.protocol_version < self._oldest:
            raise self._fault(
                Reason.WRONG_PROTOCOL_VERSION,
                f"protocol version {peer.protocol_version}, at least {self._oldest} is needed",
            )
        self.state = State.VETTING
        return [PeerIdentified(peer)]

    def _open(self, now: float) -> list[Event]:
        assert self.peer is not None
        self.state = State.OPEN
        self._deadlines = {"ping": now + self._timeouts.ping_interval}
        events: list[Event] = [HandshakeDone(self.peer)]
        self.request_addresses(now)
        while self._held and self.state is State.OPEN:
            events += self._handle(self._held.popleft(), now)
        return events

    def _hold(self, payload: Payload) -> list[Event]:
        if len(self._held) >= MAX_HELD_MESSAGES or self._held_bytes > MAX_HELD_BYTES:
            raise self._fault(Reason.UNEXPECTED_MESSAGE, "too much before ready")
        self._held.append(payload)
        return []

    def _on_pong(self, nonce: int, now: float) -> list[Event]:
        if self._ping is None or self._ping[0] != nonce:
            raise self._fault(Reason.UNEXPECTED_MESSAGE, "a pong that fits no ping")
        round_trip = now - self._ping[1]
        self._ping = None
        del self._deadlines["pong"]
        self._deadlines["ping"] = now + self._timeouts.ping_interval
        return [PongReceived(round_trip)]

    # --- below

    def _say(self, payload: Payload) -> None:
        self._outbox.append(kaspa_codec.encode(Message(payload)))

    def _reject(self, reason: Reason, text: str) -> None:
        self.rejected_with = _REJECT_TEXTS.get(reason, text)
        self._say(Reject(self.rejected_with))
        self.close()

    def _fault(self, reason: Reason, detail: str) -> RemoteProtocolError:
        self._reject(reason, detail)
        return RemoteProtocolError(reason, detail)

    def _want(self, state: State) -> None:
        if self.state is not state:
            raise LocalProtocolError(
                Reason.UNEXPECTED_MESSAGE, f"wants {state.name}, is {self.state.name}"
            )


_REJECT_TEXTS: Final[dict[Reason, str]] = {
    Reason.SELF_CONNECTION: LOOPBACK_REJECT,
    Reason.PEER_HAS_STREAM: DUPLICATE_REJECT,
}
