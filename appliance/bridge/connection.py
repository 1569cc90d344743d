"""An authenticated, multiplexed connection to a peer, direct or through a relay."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Final, Literal

import trio

from appliance.bridge.gate import one_customer
from appliance.bridge.negotiate import NegotiatedStream
from appliance.bridge.stack import MuxedConn
from appliance.errors import RemoteProtocolError
from appliance.network import Endpoint
from appliance.reasons import Reason
from appliance.wire.circuit import Limit

Direction = Literal["inbound", "outbound"]

_numbers = count(1)

IDLE_AFTER: Final = 120.0
"""Seconds without a stream after which a connection that nobody holds is closed."""
IDLE_AFTER_PUNCH: Final = 1800.0
"""The same for a punched one: its other end may keep it warm for a node that is away."""


@dataclass(frozen=True, slots=True)
class Direct:
    """A TCP connection. `from_listen_port`: dialled with our listen port as its source."""

    remote: Endpoint
    local: Endpoint
    from_listen_port: bool = False
    punched: bool = False


@dataclass(frozen=True, slots=True)
class Relayed:
    """A circuit through `relay`, within the limit that the relay announced."""

    relay: str
    limit: Limit


@dataclass(slots=True, eq=False)
class Connection:
    """`peer_id` comes from the secure channel and from nowhere else."""

    peer_id: str
    direction: Direction
    path: Direct | Relayed
    session: MuxedConn
    opened_at: float
    number: int = field(default_factory=lambda: next(_numbers))
    introduced_by: str | None = None
    """The relay over which the peers met, also for a punched connection."""
    relayed_at: float | None = None
    """When the relayed connection stood that this one replaced (monotonic seconds)."""
    observed: Endpoint | None = None
    """Where the peer sees us, as its identify said."""
    agent: str = ""
    identified: trio.Event = field(default_factory=trio.Event)
    """Set once identify was answered, or failed."""
    punch_attempts: int = 0
    holds: int = 0
    serving: int = 0
    """Streams of the peer that our tasks work for."""
    last_used: float = 0.0

    @property
    def relayed(self) -> bool:
        return isinstance(self.path, Relayed)

    @property
    def closed(self) -> bool:
        return self.session.closed.is_set()

    @property
    def customer(self) -> str:
        """What a cap per address counts the peer by; the relay's peer id for a circuit."""
        if isinstance(self.path, Relayed):
            return self.path.relay
        return one_customer(self.path.remote.host)

    def open(self, protocol: str) -> NegotiatedStream:
        """A stream that proposes `protocol` in front of its first bytes. Raises StreamReset."""
        self.last_used = trio.current_time()
        return NegotiatedStream.propose(self.session.open_stream(), protocol)

    @asynccontextmanager
    async def exchange(self, protocol: str) -> AsyncIterator[NegotiatedStream]:
        """A stream for one question and its answer: closed afterwards, reset if that fails."""
        stream = self.open(protocol)
        try:
            yield stream
            await stream.aclose()
        except BaseException:  # Cancelled too: an exchange that failed half-way is not closed
            stream.reset()
            raise

    @contextmanager
    def held(self) -> Iterator[Connection]:
        """Keep the connection from being closed as idle meanwhile."""
        self.holds += 1
        try:
            yield self
        finally:
            self.holds -= 1
            self.last_used = trio.current_time()

    def is_idle(self, now: float) -> bool:
        """Whether nothing happened on it for long enough, and nobody holds it."""
        if self.holds or self.session.open_streams:
            self.last_used = now
            return False
        punched = isinstance(self.path, Direct) and self.path.punched
        patience = IDLE_AFTER_PUNCH if punched else IDLE_AFTER
        return now - max(self.last_used, self.opened_at) >= patience


@contextmanager
def peer_deadline(seconds: float, reason: Reason) -> Iterator[None]:
    """The peer gets `seconds` for the body; then RemoteProtocolError(reason)."""
    with trio.move_on_after(seconds) as scope:
        yield
    if scope.cancelled_caught:
        raise RemoteProtocolError(reason, f"nothing within {seconds:g} s")
