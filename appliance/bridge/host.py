"""The libp2p host: listens, dials, upgrades, keeps the list of connections, serves streams.

The library gives the noise handshake, keys, ids and messages; its Swarm is left out (ADR 0001).
Only this module makes a `Connection`, hence an authenticated peer id.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Final

import trio

from appliance.bridge import identify, transport
from appliance.bridge.connection import Connection, Direct, Direction, Relayed, peer_deadline
from appliance.bridge.dialling import Dialling
from appliance.bridge.gate import Expected, Gate, HostLimits
from appliance.bridge.guard import guarded, supervised
from appliance.bridge.identity import Identity
from appliance.bridge.introductions import PING, Introductions
from appliance.bridge.negotiate import NegotiatedStream, accept
from appliance.bridge.reception import Reception
from appliance.bridge.refusals import refuse
from appliance.bridge.secure import PROTOCOL as NOISE
from appliance.bridge.stack import OURS, Stack
from appliance.bridge.telemetry import Telemetry
from appliance.dataplane.alarms import Alarms
from appliance.dataplane.malloc import keep_freed_memory
from appliance.dataplane.plane import Plane, PlaneLimits
from appliance.dataplane.streams import Carrier
from appliance.dataplane.tcp import TcpStream
from appliance.errors import (
    Fault,
    LocalProtocolError,
    Refused,
    RemoteProtocolError,
    StreamReset,
)
from appliance.events import emit
from appliance.network import Endpoint
from appliance.policy.reach import dialable, is_dialable
from appliance.reasons import Reason

YAMUX: Final = "/yamux/1.0.0"

HANDSHAKE_DEADLINE: Final = 15.0
"""Seconds from an accepted socket to a multiplexed connection (go-libp2p: 60 s in all)."""
NEGOTIATION_DEADLINE: Final = 15.0
"""Seconds that a stream opened by the peer may take to choose its protocol."""
DIAL_DEADLINE: Final = 10.0
"""Seconds for TCP to connect: three SYNs."""
_REAP_EVERY: Final = 30.0
_log = logging.getLogger("appliance.bridge")

__all__ = ["Handler", "Host", "HostLimits"]

Handler = Callable[[NegotiatedStream, Connection], Awaitable[None]]


class Host:
    """One identity on the network. `run` owns every task; all else may be called from any task."""

    def __init__(
        self,
        identity: Identity,
        limits: HostLimits,
        telemetry: Telemetry,
        *,
        external: Sequence[Endpoint] = (),
        allow_private: bool = False,
        plane: PlaneLimits | None = None,
        stack: Stack = OURS,
    ) -> None:
        self.identity = identity
        self.telemetry = telemetry
        self.allow_private = allow_private
        self.external = tuple(external)
        self.listening: tuple[Endpoint, ...] = ()
        self.on_connected: list[Callable[[Connection], None]] = []
        self.on_closed: list[Callable[[Connection], None]] = []
        self.wanted_by: list[Callable[[Connection], bool]] = []
        """Asked before a connection is closed as idle: whether somebody counts on it."""
        self.plane = Plane(plane or PlaneLimits())
        self.alarms = Alarms()
        self.limits = limits
        self.dialling = Dialling(limits.dials, limits.dials_per_second)
        self._gate = Gate(limits)
        self._stack = stack
        self._noise = stack.security(identity)
        self._introductions = Introductions(
            identity,
            telemetry,
            allow_private=allow_private,
            announced=self.announced,
            protocols=lambda: self._handlers,
        )
        self._handlers: dict[str, Handler] = {
            identify.PROTOCOL: self._introductions.serve,
            identify.PUSH: self._introductions.serve_push,
            PING: self._introductions.serve_ping,
        }
        self._connections: dict[str, list[Connection]] = {}
        self._changed = trio.Event()
        self._dialling: dict[str, trio.Lock] = {}
        self._nursery: trio.Nursery | None = None

    # --- what others ask

    @property
    def peer_id(self) -> str:
        return self.identity.peer_id

    def handle(self, protocol: str, handler: Handler) -> None:
        """Serve `protocol`; the handler owns the stream, and its faults end only that stream."""
        self._handlers[protocol] = handler

    def unhandle(self, protocol: str) -> None:
        self._handlers.pop(protocol, None)

    def connections(self, peer_id: str | None = None) -> list[Connection]:
        """Live connections, to everybody or to one peer."""
        if peer_id is not None:
            return list(self._connections.get(peer_id, ()))
        return [conn for conns in self._connections.values() for conn in conns]

    def direct_to(self, peer_id: str) -> Connection | None:
        """The oldest live direct connection to the peer."""
        for conn in self._connections.get(peer_id, ()):
            if not conn.relayed and not conn.closed:
                return conn
        return None

    async def wait_direct(self, peer_id: str) -> Connection:
        """The first direct connection to the peer that stands."""
        while (conn := self.direct_to(peer_id)) is None:
            await self._changed.wait()
        return conn

    def announced(self) -> tuple[Endpoint, ...]:
        """Where we can be dialled: declared addresses, then those observed by peers we dialled."""
        candidates = [*self.external, *self._introductions.observed]
        if self.allow_private:
            candidates += self.listening
        return dialable(candidates, allow_private=self.allow_private)

    # --- life

    async def run(
        self,
        listen: Sequence[Endpoint],
        *,
        task_status: trio.TaskStatus[tuple[Endpoint, ...]] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Listen and serve until cancelled; started once with the bound endpoints.

        Raises ApplianceError if an endpoint cannot be had; nothing was started then.
        """
        sockets = await transport.listen(listen)
        keep_freed_memory()
        self.listening = tuple(Endpoint(*sock.getsockname()[:2]) for sock in sockets)
        reception = Reception(self._gate, self.telemetry, self.adopt)
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                for sock in sockets:
                    receive = partial(reception.run, sock)
                    nursery.start_soon(supervised, self.telemetry, "accept", receive)
                nursery.start_soon(supervised, self.telemetry, "reap", self._reap_loop)
                nursery.start_soon(supervised, self.telemetry, "alarms", self.alarms.run)
                task_status.started(self.listening)
        finally:
            self._gate.closing = True
            for sock in sockets:
                sock.close()
            for conn in self.connections():
                conn.session.abort(Reason.SHUTTING_DOWN)

    async def close_connections(self) -> None:
        """Say goodbye to every peer; new connections are refused from here on."""
        self._gate.closing = True
        async with trio.open_nursery() as nursery:
            for conn in self.connections():
                nursery.start_soon(conn.session.close, Reason.SHUTTING_DOWN)

    # --- dialling

    async def connect(self, endpoint: Endpoint, peer_id: str) -> Connection:
        """A direct connection to the peer, a standing one if there is one.

        Dialled from the listen port, so that what the peer observes is what others can punch;
        from any port while that one is taken.
        Raises Fault (dial-failed, dial-timeout, wrong-peer, handshake-…).
        """
        lock = self._dialling.setdefault(peer_id, trio.Lock())
        try:
            async with lock:
                standing = self.direct_to(peer_id)
                if standing is not None:
                    return standing
                try:
                    return await self.dial(endpoint, peer_id, client=True)
                except Fault as fault:
                    if fault.reason is not Reason.PORT_IN_USE:
                        raise
                    # After a crash the kernel keeps the old connection's ports for a minute.
                    return await self.dial(endpoint, peer_id, client=True, any_port=True)
        finally:
            if not lock.statistics().tasks_waiting and not lock.locked():
                self._dialling.pop(peer_id, None)

    async def dial(
        self,
        endpoint: Endpoint,
        peer_id: str | None,
        *,
        client: bool,
        punched: bool = False,
        any_port: bool = False,
        introduced_by: str | None = None,
    ) -> Connection:
        """A new direct connection. `client` is our security role, whatever TCP thinks.

        Without a `peer_id` to whoever is there; the connection says who that is.
        Raises Fault; after `Cancelled` no connection was made.
        """
        if peer_id == self.peer_id:
            raise Refused(Reason.SELF_DIAL)
        if not is_dialable(endpoint, allow_private=True):
            raise Refused(Reason.DIAL_FAILED, f"{endpoint} is no machine's address")
        source = None if any_port else self._source_for(endpoint)
        with peer_deadline(DIAL_DEADLINE, Reason.DIAL_TIMEOUT):
            if not punched:
                await self.dialling.turn()
            async with self.dialling.socket():
                tcp = await transport.dial(endpoint, source, punching=punched)
        path = Direct(endpoint, tcp.local, source is not None, punched)
        return await self.adopt(
            tcp, path, "outbound", client=client, expect=peer_id, introduced_by=introduced_by
        )

    async def adopt(
        self,
        carrier: Carrier,
        path: Direct | Relayed,
        direction: Direction,
        *,
        client: bool,
        expect: str | None,
        introduced_by: str | None = None,
    ) -> Connection:
        """Upgrade a byte stream to a connection and serve it from now on.

        Raises Fault; then, and after `Cancelled`, the carrier was reset.
        """
        assert self._nursery is not None, "the host is not running"
        try:
            with peer_deadline(HANDSHAKE_DEADLINE, Reason.HANDSHAKE_TIMEOUT):
                muxed, peer_id = await self._upgrade(carrier, client=client, expect=expect)
            if self._gate.closing:
                raise Refused(Reason.SHUTTING_DOWN)
            if isinstance(carrier, TcpStream):
                carrier.fit_to_path()
        except BaseException as error:  # Cancelled too: no session owns the carrier yet
            carrier.reset()
            if isinstance(error, StreamReset):
                raise Fault(Reason.HANDSHAKE_FAILED, str(error)) from error
            raise
        max_inbound = self._gate.limits.streams_per_connection
        session = self._stack.muxer(muxed, client=client, max_inbound=max_inbound, plane=self.plane)
        conn = Connection(
            peer_id, direction, path, session, trio.current_time(), introduced_by=introduced_by
        )
        self._register(conn)
        self._nursery.start_soon(self._run_connection, conn)
        return conn

    def expecting(
        self,
        peer_id: str,
        addresses: Sequence[Endpoint],
        *,
        client: bool,
        introduced_by: str | None,
    ) -> AbstractContextManager[None]:
        """While punching: a socket that comes in from these addresses keeps the agreed role."""
        return self._gate.expecting(Expected(peer_id, frozenset(addresses), client, introduced_by))

    def check_room(self) -> None:
        """Raises Refused if no connection may be added."""
        self._gate.check_room()

    # --- inside

    def _source_for(self, target: Endpoint) -> Endpoint | None:
        for endpoint in self.listening:
            if endpoint.is_ipv6 == target.is_ipv6:
                return endpoint
        return None

    async def _upgrade(
        self, carrier: Carrier, *, client: bool, expect: str | None
    ) -> tuple[NegotiatedStream, str]:
        if client:
            raw = NegotiatedStream.propose(carrier, NOISE)
        else:
            raw = await accept(carrier, lambda protocol: protocol == NOISE)
        channel, peer_id = await self._noise.handshake(raw, client=client, expect=expect)
        if peer_id == self.peer_id:
            raise Refused(Reason.SELF_DIAL)
        if not client:
            return await accept(channel, lambda protocol: protocol == YAMUX), peer_id
        muxed = NegotiatedStream.propose(channel, YAMUX)
        await muxed.flush()
        return muxed, peer_id

    def _register(self, conn: Connection) -> None:
        self._connections.setdefault(conn.peer_id, []).append(conn)
        if isinstance(conn.path, Direct):
            self._gate.opened(conn.path.remote.host)
            emit(
                _log,
                logging.INFO,
                "direct_connection",
                peer=conn.peer_id,
                address=str(conn.path.remote),
                direction=conn.direction,
            )
        else:
            self._gate.opened(None)
            emit(
                _log,
                logging.INFO,
                "relayed_connection",
                peer=conn.peer_id,
                relay=conn.path.relay,
                direction=conn.direction,
            )
        self._tell()

    def _unregister(self, conn: Connection) -> None:
        conns = self._connections[conn.peer_id]
        conns.remove(conn)
        if not conns:
            del self._connections[conn.peer_id]
        self._gate.closed(conn.path.remote.host if isinstance(conn.path, Direct) else None)
        if conn.session.streams_refused:
            self.telemetry.refusals["stream", Reason.STREAMS_FULL] += conn.session.streams_refused
        reason = conn.session.closed_reason or Reason.CONNECTION_LOST
        self.telemetry.connections_closed[reason] += 1
        emit(
            _log,
            logging.INFO,
            "connection_closed",
            peer=conn.peer_id,
            reason=reason.value,
            relayed=conn.relayed,
        )
        self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def _run_connection(self, conn: Connection) -> None:
        async def live() -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._introductions.ask, conn)
                await self._notify(self.on_connected, conn)

                def serve(stream: Carrier) -> None:
                    if conn.serving >= 2 * self._gate.limits.streams_per_connection:
                        # The muxer forgets a stream that its opener resets, its task lives on.
                        full = Refused(Reason.STREAMS_FULL)
                        refuse(self.telemetry, "stream", full, peer=conn.peer_id)
                        stream.reset()
                        return
                    conn.serving += 1
                    nursery.start_soon(self._serve_stream, stream, conn)

                await conn.session.run(serve)
                nursery.cancel_scope.cancel()

        try:
            await guarded(self.telemetry, "connection", conn.peer_id, live)
        finally:
            conn.session.abort(Reason.CONNECTION_LOST)
            self._unregister(conn)
            await self._notify(self.on_closed, conn)

    async def _notify(
        self, listeners: Sequence[Callable[[Connection], None]], conn: Connection
    ) -> None:
        """Tell each listener, whatever the others do. No checkpoint."""

        async def tell(listener: Callable[[Connection], None]) -> None:
            listener(conn)

        for listener in listeners:
            await guarded(self.telemetry, "connection", conn.peer_id, partial(tell, listener))

    async def _serve_stream(self, stream: Carrier, conn: Connection) -> None:
        ended_well = False
        protocol = "negotiation"

        async def serve() -> None:
            nonlocal protocol
            with peer_deadline(NEGOTIATION_DEADLINE, Reason.HANDSHAKE_TIMEOUT):
                negotiated = await accept(stream, self._handlers.__contains__)
            handler = self._handlers.get(negotiated.protocol)
            if handler is None:  # switched off while we agreed to it
                raise RemoteProtocolError(Reason.UNSUPPORTED_PROTOCOL, negotiated.protocol)
            protocol = negotiated.protocol
            await handler(negotiated, conn)

        async def serve_or_refuse() -> None:
            nonlocal ended_well
            try:
                await serve()
                ended_well = True
            except LocalProtocolError:
                raise
            except Fault as fault:
                refuse(self.telemetry, "stream", fault, peer=conn.peer_id)

        try:
            await guarded(self.telemetry, lambda: protocol, conn.peer_id, serve_or_refuse)
        finally:
            conn.serving -= 1
            conn.last_used = trio.current_time()
            if not ended_well:
                stream.reset()

    async def _reap_loop(self) -> None:
        while True:
            await trio.sleep(_REAP_EVERY)
            now = trio.current_time()
            for conn in self.connections():
                if conn.is_idle(now) and not any(wants(conn) for wants in self.wanted_by):
                    conn.session.abort(Reason.IDLE)
