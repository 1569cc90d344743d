"""The embedded node: a Kaspa peer without a block chain.

It serves and dials Kaspa's P2P protocol, completes the handshake, exchanges addresses and answers
pings, as a stock kaspad does (rusty-kaspa: protocol/p2p/src/core, components/connectionmanager).
It runs where there is no kaspad, and in the laboratory. Unlike kaspad it dials only the peers that
it was given: in an appliance those are the bridge's slots, and strangers are the bridge's business.
"""

from __future__ import annotations

import logging
import random
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

import trio

from appliance import __version__
from appliance.clock import Clock, TrioClock
from appliance.dataplane.streams import ByteStream
from appliance.errors import Fault, StreamReset
from appliance.events import FIELDS, emit
from appliance.network import Endpoint, Network
from appliance.node import grpc, lab_payload
from appliance.node.acquaintances import Acquaintances
from appliance.node.bans import BanList
from appliance.node.grace import with_grace
from appliance.node.http2 import Http2Connection
from appliance.node.session import PeerSession, Surroundings
from appliance.node.sockets import bind, owned
from appliance.reasons import Reason
from appliance.wire.capability import Claim
from appliance.wire.kaspa import PROTOCOL_VERSION, Timeouts
from appliance.wire.kaspa_messages import PEER_ID_BYTES, NetAddress, Version

_log = logging.getLogger(__name__)

# rusty-kaspa, components/connectionmanager/src/lib.rs.
STOCK_RETRY: Final = 30.0
"""Seconds between looks at lost peers, and the first wait after a failed dial."""
MAX_DOUBLINGS: Final = 4
"""A failed dial doubles the wait, up to sixteen times."""
CONNECT_TIMEOUT: Final = 1.0
"""rusty-kaspa, protocol/p2p/src/core/connection_handler.rs, connect_timeout."""
INBOUND_LIMIT: Final = 128
"""rusty-kaspa, kaspad/src/args.rs, inbound_limit."""
TRIM_INTERVAL: Final = 30.0
GRACE: Final = 1.5
"""Seconds that a stop may take: last words, and the peers' answers to them."""


@dataclass(frozen=True, slots=True)
class PeerInfo:
    """A connected peer, for the status page."""

    remote: Endpoint
    outbound: bool
    user_agent: str
    protocol_version: int
    since_s: float
    ping_s: float | None


class EmbeddedNode:
    """`retry` is kaspad's 30 s unless told otherwise: a laboratory cannot wait half a minute for a
    node that was started later, and slots are on loopback, where a dial costs nobody anything. For
    their sake `most_doublings` may be fewer, too: whoever hangs up may have found somebody since.

    `claim` is asked whenever something is said of us: what the appliance can claim at that moment,
    if anything. It takes the place of `external`, the plain address.
    """

    def __init__(
        self,
        network: Network,
        listen: Endpoint,
        addpeers: Sequence[Endpoint] = (),
        *,
        lab_payload: int = 0,
        retry: float = STOCK_RETRY,
        most_doublings: int = MAX_DOUBLINGS,
        inbound_limit: int = INBOUND_LIMIT,
        external: Endpoint | None = None,
        claim: Callable[[], Claim | None] = lambda: None,
        known: Sequence[NetAddress] = (),
        timeouts: Timeouts | None = None,
        rng: random.Random | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.network = network
        self.listen = listen
        self.addpeers = tuple(dict.fromkeys(addpeers))
        self._retry = retry
        self._most_doublings = most_doublings
        self._inbound_limit = inbound_limit
        self._clock = clock or TrioClock()
        self._rng = rng or random.SystemRandom()
        self._peer_id = secrets.token_bytes(PEER_ID_BYTES)
        self._lab_payload = lab_payload
        self._acquaintances = Acquaintances(self._rng, self._clock, claim, external, known)
        self._sessions: dict[PeerSession, None] = {}
        self._servers: dict[Http2Connection, None] = {}
        self._bans = BanList()
        self._working = trio.CancelScope()
        self._stopping = False
        self._surroundings = Surroundings(
            local_version=self._version,
            admit=self._admit,
            opened=self._opened,
            known_addresses=self._acquaintances.tell,
            learn=self._acquaintances.learn,
            rng=self._rng,
            timeouts=timeouts or Timeouts(),
            lab_payload=lab_payload,
        )

    def peers(self) -> tuple[PeerInfo, ...]:
        """Those with whom `ready` went both ways, the oldest first."""
        now = trio.current_time()
        return tuple(
            PeerInfo(
                session.remote,
                session.outbound,
                version.user_agent,
                version.protocol_version,
                now - session.opened_at,
                session.ping,
            )
            for session in self._sessions
            if session.opened_at is not None and (version := session.version) is not None
        )

    @property
    def address_count(self) -> int:
        """Addresses known by gossip and by dialling."""
        return len(self._acquaintances)

    async def run(self, task_status: trio.TaskStatus[Endpoint] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve and dial until cancelled; `started` with the bound endpoint. To be called once.

        Raises ApplianceError if the endpoint cannot be bound. When cancelled, peers are told in
        peace, for at most `GRACE` seconds; after Cancelled nothing is open any more.
        """
        listener = await bind(self.listen)
        bound = Endpoint(self.listen.host, listener.socket.getsockname()[1])
        emit(_log, logging.INFO, "kaspa_listening", address=str(bound))
        task_status.started(bound)
        await with_grace(lambda: self._work(listener), self._stop, GRACE)

    async def serve_stream(self, stream: ByteStream, remote: Endpoint) -> None:
        """Serve one connection, which this owns, until it ends."""
        connection = Http2Connection(stream, client=False)

        async def session(call: grpc.GrpcCall) -> None:
            await self._converse(PeerSession(call, remote, outbound=False, node=self._surroundings))

        self._servers[connection] = None
        try:
            await connection.run(lambda http_stream: grpc.answer(http_stream, session))
        finally:
            del self._servers[connection]

    async def dial_stream(self, stream: ByteStream, remote: Endpoint) -> bool:
        """Be the client on a connection, which this owns, until it ends. True if it got `ready`.

        Raises StreamReset or a Fault if there is no Kaspa node at the other end.
        """
        async with grpc.dial(stream, str(remote)) as call:
            session = PeerSession(call, remote, outbound=True, node=self._surroundings)
            await self._converse(session)
        return session.opened_at is not None

    def ban(self, host: str) -> None:
        """End what we have with this IP address, and refuse it for 24 h.

        As with kaspad, an address that we were told to dial cannot be banned.
        """
        if any(peer.host == host for peer in self.addpeers):
            return
        self._bans.add(host, trio.current_time())
        self._acquaintances.forget(ip_address(host))
        for session in list(self._sessions):
            if session.remote.host == host:
                session.stop(Reason.SHUTTING_DOWN)

    # --- tasks

    async def _work(self, listener: trio.SocketListener) -> None:
        async with trio.open_nursery() as connections:
            with self._working:
                async with trio.open_nursery() as nursery:
                    for address in self.addpeers:
                        nursery.start_soon(self._keep_dialling, address, connections)
                    nursery.start_soon(self._trim)
                    await trio.serve_listeners(
                        self._accept, [listener], handler_nursery=connections
                    )

    def _stop(self) -> None:
        self._stopping = True
        self._working.cancel()
        for session in list(self._sessions):
            session.stop(Reason.SHUTTING_DOWN)
        for connection in list(self._servers):
            connection.close_when_idle()

    async def _accept(self, accepted: trio.SocketStream) -> None:
        try:
            stream = owned(accepted)
        except OSError:  # gone already
            return
        if self._bans.holds(stream.remote.host, trio.current_time()):
            stream.reset()
            return
        # kaspad has no such bound; twice the limit leaves it to `_trim`, as there, to choose.
        if len(self._servers) >= 2 * self._inbound_limit:
            reason = Reason.CONNECTIONS_FULL
            emit(_log, logging.INFO, "kaspa_refused", remote=str(stream.remote), reason=reason)
            stream.reset()
            return
        await self.serve_stream(stream, stream.remote)

    async def _keep_dialling(self, address: Endpoint, connections: trio.Nursery) -> None:
        """kaspad's `--addpeer`: for ever, with its back-off."""
        failures = 0
        while True:
            dial = _Dial(first=failures == 0)
            connections.start_soon(self._dial, address, dial)
            await dial.ended.wait()
            delay = self._retry
            if dial.ready:
                failures = 0
            else:
                delay *= 2 ** min(failures, self._most_doublings)
                failures += 1
            await trio.sleep(delay)

    async def _dial(self, address: Endpoint, dial: _Dial) -> None:
        """One attempt and its session: outside `_working`, so that a stop ends it in peace."""
        try:
            with trio.fail_after(CONNECT_TIMEOUT):
                connected = await trio.open_tcp_stream(address.host, address.port)
            dial.ready = await self.dial_stream(owned(connected), address)
        except trio.TooSlowError:
            self._dial_failed(address, dial, Reason.DIAL_TIMEOUT, "no connection in time")
        except OSError as error:
            self._dial_failed(address, dial, Reason.DIAL_FAILED, error.strerror or str(error))
        except (StreamReset, Fault) as error:
            self._dial_failed(address, dial, Reason.DIAL_FAILED, str(error))
        finally:
            dial.ended.set()

    def _dial_failed(self, address: Endpoint, dial: _Dial, reason: Reason, detail: str) -> None:
        """Only the first of several in a row is news: vacant slots are dialled for ever."""
        self._acquaintances.failed(address)
        emit(
            _log,
            logging.INFO if dial.first else logging.DEBUG,
            "kaspa_dial_failed",
            remote=str(address),
            reason=reason.value,
            detail=detail,
        )

    async def _trim(self) -> None:
        """As kaspad: above the limit, inbound peers are chosen at random and go."""
        while True:
            await trio.sleep(TRIM_INTERVAL)
            inbound = [s for s in self._sessions if not s.outbound and s.opened_at is not None]
            surplus = max(0, len(inbound) - self._inbound_limit)
            for session in self._rng.sample(inbound, surplus):
                session.stop(Reason.CONNECTIONS_FULL)

    async def _converse(self, session: PeerSession) -> None:
        self._sessions[session] = None
        if self._stopping:
            session.stop(Reason.SHUTTING_DOWN)
        try:
            await session.run()
        except Exception as error:  # noqa: BLE001 - here a bug in a session must not end the node
            fields = {"remote": str(session.remote), "reason": Reason.HANDLER_FAULT.value}
            _log.error("kaspa_session_fault", exc_info=error, extra={FIELDS: fields})
        finally:
            del self._sessions[session]

    # --- what sessions ask

    def _version(self) -> Version:
        comment = f"({lab_payload.MARK})" if self._lab_payload else ""
        version = Version(
            protocol_version=PROTOCOL_VERSION,
            network=self.network.wire_name,
            peer_id=self._peer_id,
            user_agent=f"/kaspa-appliance:{__version__}{comment}/",
            timestamp_ms=int(self._clock.wall() * 1000),
        )
        return self._acquaintances.introduce(version)

    def _admit(self, session: PeerSession, version: Version) -> Reason | None:
        """One connection per node and IP, as kaspad's hub keys its peers."""
        for other in self._sessions:
            if (
                other is not session
                and other.opened_at is not None
                and other.remote.host == session.remote.host
                and other.version is not None
                and other.version.peer_id == version.peer_id
            ):
                return Reason.PEER_HAS_STREAM
        return None

    def _opened(self, session: PeerSession, version: Version) -> None:
        self._acquaintances.met(session.remote, version, outbound=session.outbound)


class _Dial:
    """A dial under way, and whether it got as far as `ready`. `first`: the one before did."""

    def __init__(self, *, first: bool) -> None:
        self.first = first
        self.ended = trio.Event()
        self.ready = False
