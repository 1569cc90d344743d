"""Outbound: a local port per private peer wanted. The node dials the port; the peer stands behind.

Each slot keeps a path to its peer warm, so that the node's dial finds a stream at once; a path
that breaks is sought again with back-off, and the node's next dial just works.
"""

from __future__ import annotations

import errno
import logging
import random
from dataclasses import dataclass
from typing import Final, Literal

import trio

from appliance.bridge.circuits import dial_through
from appliance.bridge.connection import Connection
from appliance.bridge.guard import guarded, supervised
from appliance.bridge.host import Host
from appliance.bridge.introductions import IDENTIFY_DEADLINE
from appliance.bridge.kaspa import PROTOCOL, KaspaStreams, may_carry
from appliance.bridge.refusals import refuse
from appliance.dataplane.tcp import TcpStream
from appliance.errors import ApplianceError, Fault, Refused, StreamReset
from appliance.events import emit
from appliance.network import Endpoint
from appliance.policy.backoff import SLOT_CEILING, SLOT_FIRST, Backoff
from appliance.reasons import Reason

PATIENCE_BEYOND_DEADLINE: Final = 3.0
"""Seconds that a node's dial may wait for a path beyond `direct_deadline`: the relay's part."""
_log = logging.getLogger("appliance.bridge.slots")


@dataclass(frozen=True, slots=True)
class Relay:
    """A relay through which a private peer may be reached."""

    endpoint: Endpoint
    peer_id: str


@dataclass(frozen=True, slots=True)
class SlotSpec:
    """Where the node dials, whom it reaches, through which relays (tried in order)."""

    listen: Endpoint
    peer_id: str
    relays: tuple[Relay, ...]


class Slot:
    """One slot. `run` owns its listener, its path and the node's connection."""

    def __init__(
        self,
        spec: SlotSpec,
        host: Host,
        streams: KaspaStreams,
        rng: random.Random,
        *,
        direct_deadline: float,
    ) -> None:
        self.spec = spec
        self.listening = spec.listen
        """Where the node dials; with the port that the kernel chose, once we listen."""
        self.state: Literal["idle", "connecting", "open", "waiting"] = "idle"
        self.failure: Fault | None = None
        self._host = host
        self._streams = streams
        self._rng = rng
        self._direct_deadline = direct_deadline
        self._listener: trio.socket.SocketType | None = None
        self._path: Connection | None = None
        self._have_path = trio.Event()
        self._waiting: trio.CancelScope | None = None
        self._in_use = False

    async def listen(self) -> Endpoint:
        """Take the port without serving it yet. Raises ApplianceError if it cannot be had."""
        if self._listener is None:
            self._listener = await _listen(self.spec.listen)
            self.listening = Endpoint(*self._listener.getsockname()[:2])
        return self.listening

    def close(self) -> None:
        """Give the port back; for a slot that is not to run. Idempotent."""
        if self._listener is not None:
            self._listener.close()

    async def run(
        self, *, task_status: trio.TaskStatus[Endpoint] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Until cancelled; started with the bound endpoint. Raises ApplianceError if taken."""
        bound = await self.listen()
        assert self._listener is not None
        emit(_log, logging.INFO, "slot_listening", slot=str(bound), peer=self.spec.peer_id)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(supervised, self._host.telemetry, "slot", self._keep_path)
                nursery.start_soon(self._accept_loop, self._listener, nursery)
                task_status.started(bound)
        finally:
            self.close()

    # --- the path

    async def _keep_path(self) -> None:
        backoff = Backoff(SLOT_FIRST, SLOT_CEILING)
        while True:
            self.state = "connecting"
            try:
                conn = await self._find_path()
            except Fault as fault:
                self.state, self.failure = "waiting", fault
                delay = backoff.failed(self._rng)
                emit(
                    _log,
                    logging.WARNING,
                    "slot_unreachable",
                    slot=str(self.listening),
                    peer=self.spec.peer_id,
                    reason=fault.reason.value,
                    detail=fault.detail,
                    retry_in_s=round(delay, 1),
                )
                await trio.sleep(delay)
                continue
            backoff.succeeded()
            self.failure, self.state = None, "open"
            self._path = conn
            self._have_path.set()
            with conn.held():
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._tell_first_byte, conn)
                    await self._until_better(conn)
                    nursery.cancel_scope.cancel()
            self._path = None
            self._have_path = trio.Event()

    async def _tell_first_byte(self, conn: Connection) -> None:
        """How long it took from the relayed connection to the first byte on the direct one."""
        if conn.relayed or conn.relayed_at is None:
            return
        heard_at = await conn.session.first_byte()
        emit(
            _log,
            logging.INFO,
            "direct_first_byte",
            peer=conn.peer_id,
            time_to_direct_ms=round((heard_at - conn.relayed_at) * 1000, 1),
        )

    async def _until_better(self, conn: Connection) -> None:
        """Until the path is gone, or a direct one stands beside a relayed one."""

        async def direct() -> None:
            await self._host.wait_direct(self.spec.peer_id)
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            if conn.relayed:
                nursery.start_soon(direct)
            await conn.session.closed.wait()
            nursery.cancel_scope.cancel()

    async def _find_path(self) -> Connection:
        """A connection that may carry a Kaspa stream. Raises Fault."""
        if self.spec.peer_id == self._host.peer_id:
            raise Refused(Reason.SELF_DIAL, "this peer id is our own")
        if (standing := self._host.direct_to(self.spec.peer_id)) is not None:
            return standing
        fault = Fault(Reason.NO_PATH, "no relay is known for this peer")
        for relay in self.spec.relays:
            try:
                relayed = await self._through(relay)
            except Fault as error:
                fault = error
                continue
            except StreamReset as error:
                fault = Fault(Reason.CONNECTION_LOST, str(error))
                continue
            conn = await self._upgraded(relayed)
            if conn is not None:
                return conn
            if relayed.closed:
                reason = relayed.session.closed_reason or Reason.CONNECTION_LOST
                fault = Fault(reason, "the relayed connection ended before a direct one stood")
                continue
            if may_carry(relayed):
                return relayed
            await relayed.session.close(Reason.RELAY_LIMIT_TOO_SMALL)
            fault = Refused(
                Reason.RELAY_LIMIT_TOO_SMALL, "no direct connection, and the relay's limit is small"
            )
        raise fault

    async def _through(self, relay: Relay) -> Connection:
        via = await self._host.connect(relay.endpoint, relay.peer_id)
        with via.held():
            # Our observed address comes from the relay; the punch needs it.
            with trio.move_on_after(IDENTIFY_DEADLINE):
                await via.identified.wait()
            return await dial_through(self._host, via, self.spec.peer_id)

    async def _upgraded(self, relayed: Connection) -> Connection | None:
        """The direct connection, if it comes within the deadline and before the relayed one ends.

        The side that received the circuit starts the punch; all there is to do here is to wait.
        """
        with trio.move_on_after(self._direct_deadline), relayed.held():
            await self._until_better(relayed)
        direct = self._host.direct_to(self.spec.peer_id)
        if direct is not None:
            direct.relayed_at = relayed.opened_at
        return direct

    # --- the node's side

    async def _accept_loop(self, listener: trio.socket.SocketType, nursery: trio.Nursery) -> None:
        while True:
            try:
                sock, _ = await listener.accept()
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS):
                    await trio.sleep(0.1)
                continue
            try:
                node = TcpStream(sock)
            except OSError:  # gone already
                sock.close()
                continue
            if self._in_use or self._streams.draining:
                # One stream a peer: the other end would refuse a second one anyway.
                reason = Reason.PEER_HAS_STREAM if self._in_use else Reason.SHUTTING_DOWN
                refuse(self._host.telemetry, "slot", Refused(reason), peer=self.spec.peer_id)
                node.reset()
                continue
            if self._waiting is not None:
                # A node that dials again has given up on the dial that still waits for a path.
                self._waiting.cancel()
            self._waiting = trio.CancelScope()
            nursery.start_soon(self._serve, node, self._waiting)

    async def _serve(self, node: TcpStream, waiting: trio.CancelScope) -> None:
        async def serve() -> None:
            conn = None
            with waiting:
                conn = await self._path_in_time()
            if waiting.cancelled_caught:
                node.reset()
                return
            if self._waiting is waiting:
                self._waiting = None
            if conn is None:
                fault = Refused((self.failure or Fault(Reason.NO_PATH)).reason, "no path in time")
                refuse(self._host.telemetry, "slot", fault, peer=self.spec.peer_id)
                node.reset()
                return
            self._in_use = True
            try:
                stream = conn.open(PROTOCOL)
                await self._streams.carry(node, stream, conn, "outbound", str(self.listening))
            finally:
                self._in_use = False

        well = False
        try:
            well = await guarded(self._host.telemetry, "slot", self.spec.peer_id, serve)
        finally:
            if not well:
                node.reset()

    async def _path_in_time(self) -> Connection | None:
        """The path, waited for while the node waits for us."""
        with trio.move_on_after(self._direct_deadline + PATIENCE_BEYOND_DEADLINE):
            while self._path is None or self._path.closed:
                await self._have_path.wait()
            return self._path
        return None


async def _listen(endpoint: Endpoint) -> trio.socket.SocketType:
    family = trio.socket.AF_INET6 if endpoint.is_ipv6 else trio.socket.AF_INET
    sock = trio.socket.socket(family, trio.socket.SOCK_STREAM)
    try:
        sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_REUSEADDR, 1)
        await sock.bind((endpoint.host, endpoint.port))
        sock.listen(4)
    except OSError as error:
        sock.close()
        raise ApplianceError(
            f"bridge.slots: cannot listen on {endpoint}: {(error.strerror or str(error)).lower()}",
            hint="choose another first port, or stop the program that uses this one",
        ) from error
    return sock
