"""What a byte stream is upgraded with: a secure channel and a muxer, ours unless told otherwise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import trio

from appliance.bridge.identity import Identity
from appliance.bridge.negotiate import NegotiatedStream
from appliance.bridge.secure import Noise
from appliance.dataplane.plane import Plane
from appliance.dataplane.session import Session
from appliance.dataplane.streams import Carrier
from appliance.reasons import Reason


class MuxedConn(Protocol):
    """A multiplexed connection, whoever's muxer it is. `dataplane.session.Session` says what
    its methods promise."""

    streams_refused: int
    peer_going_away: bool

    @property
    def closed(self) -> trio.Event: ...

    @property
    def released(self) -> trio.Event: ...

    @property
    def closed_reason(self) -> Reason | None: ...

    @property
    def closed_detail(self) -> str: ...

    @property
    def open_streams(self) -> int: ...

    async def first_byte(self) -> float: ...

    async def run(self, on_stream: Callable[[Carrier], None]) -> Reason: ...

    def open_stream(self) -> Carrier: ...

    async def ping(self) -> float: ...

    async def close(self, reason: Reason, *, patience: float = 1.0) -> None: ...

    def abort(self, reason: Reason) -> None: ...


class SecureTransport(Protocol):
    """Makes authenticated channels for one identity, as `bridge.secure.Noise` does."""

    async def handshake(
        self, stream: NegotiatedStream, *, client: bool, expect: str | None
    ) -> tuple[Carrier, str]: ...


class Muxer(Protocol):
    """Makes a connection of a secure channel on which yamux was agreed."""

    def __call__(
        self, carrier: NegotiatedStream, *, client: bool, max_inbound: int, plane: Plane
    ) -> MuxedConn: ...


@dataclass(frozen=True, slots=True)
class Stack:
    """A secure channel and a muxer that work together."""

    security: Callable[[Identity], SecureTransport]
    muxer: Muxer


OURS: Final = Stack(Noise, Session)
