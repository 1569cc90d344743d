"""Introductions: identify and ping served and asked, and what peers tell us of our own address."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from appliance.bridge import identify
from appliance.bridge.connection import Connection, Direct, peer_deadline
from appliance.bridge.guard import guarded
from appliance.bridge.identity import Identity
from appliance.bridge.negotiate import NegotiatedStream
from appliance.bridge.telemetry import Telemetry
from appliance.network import Endpoint
from appliance.policy.reach import is_dialable
from appliance.reasons import Reason

PING: Final = "/ipfs/ping/1.0.0"
_PING_SIZE: Final = 32

IDENTIFY_DEADLINE: Final = 10.0
"""Seconds for a peer to identify itself (go-libp2p: 5 s after the stream is open)."""
MAX_OBSERVED: Final = 8
"""Relays whose observation of our address is remembered."""


class Introductions:
    """Who we say we are, and where others see us."""

    def __init__(
        self,
        identity: Identity,
        telemetry: Telemetry,
        *,
        allow_private: bool,
        announced: Callable[[], Iterable[Endpoint]],
        protocols: Callable[[], Iterable[str]],
    ) -> None:
        self._identity = identity
        self._telemetry = telemetry
        self._allow_private = allow_private
        self._announced = announced
        self._protocols = protocols
        self._observed: dict[str, Endpoint] = {}

    @property
    def observed(self) -> tuple[Endpoint, ...]:
        """Our address as peers see it that we dialled from the listen port, the latest last."""
        return tuple(self._observed.values())

    async def ask(self, conn: Connection) -> None:
        """Learn a new connection's agent and observation; sets `identified` in any case."""

        async def ask() -> None:
            with peer_deadline(IDENTIFY_DEADLINE, Reason.HANDSHAKE_TIMEOUT):
                async with conn.exchange(identify.PROTOCOL) as stream:
                    await stream.send_eof()
                    info = identify.decode(await stream.receive_message(identify.MAX_MESSAGE))
            conn.agent, conn.observed = info.agent, info.observed
            self._believe(conn)

        try:
            await guarded(self._telemetry, "identify", conn.peer_id, ask)
        finally:
            conn.identified.set()

    async def serve(self, stream: NegotiatedStream, conn: Connection) -> None:
        """identify: say who we are, and where we see the peer."""
        await stream.send_message(
            identify.encode(
                self._identity,
                listen=self._announced(),
                observed=conn.path.remote if isinstance(conn.path, Direct) else None,
                protocols=self._protocols(),
            )
        )
        await stream.aclose()

    async def serve_push(self, stream: NegotiatedStream, conn: Connection) -> None:
        """identify/push: the peer has news of itself."""
        with peer_deadline(IDENTIFY_DEADLINE, Reason.HANDSHAKE_TIMEOUT):
            info = identify.decode(await stream.receive_message(identify.MAX_MESSAGE))
        conn.agent, conn.observed = info.agent or conn.agent, info.observed or conn.observed
        self._believe(conn)
        await stream.aclose()

    async def serve_ping(self, stream: NegotiatedStream, _: Connection) -> None:
        """ping: the same bytes back, for as long as the peer likes."""
        # Echoing whatever comes, as it comes, gives the same bytes as echoing 32 at a time.
        while data := await stream.receive_some(_PING_SIZE):
            await stream.send_all(data)
        await stream.aclose()

    def _believe(self, conn: Connection) -> None:
        """Only a peer that we dialled from the listen port sees the mapping that others can use."""
        path, observed = conn.path, conn.observed
        if not isinstance(path, Direct) or not path.from_listen_port or path.punched:
            return
        if observed is not None and is_dialable(observed, allow_private=self._allow_private):
            self._observed.pop(conn.peer_id, None)
            self._observed[conn.peer_id] = observed
            while len(self._observed) > MAX_OBSERVED:
                self._observed.pop(next(iter(self._observed)))
