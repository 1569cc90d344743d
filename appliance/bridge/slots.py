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

from appliance.bridge.connection import Connection
from appliance.bridge.guard import guarded, supervised
from appliance.bridge.host import Host
from appliance.bridge.kaspa import PROTOCOL, KaspaStreams
from appliance.bridge.peer_path import PeerPath, tell_first_byte
from appliance.bridge.refusals import refuse
from appliance.dataplane.tcp import TcpStream
from appliance.errors import ApplianceError, Fault, Refused
from appliance.events import emit
from appliance.network import Endpoint
from appliance.policy.backoff import SLOT_CEILING, SLOT_FIRST, Backoff
from appliance.policy.relays import Relay
from appliance.reasons import Reason

__all__ = ["Relay", "Slot", "SlotSpec"]

PATIENCE_BEYOND_DEADLINE: Final = 3.0
"""Seconds that a node's dial may wait for a path beyond `direct_deadline`: the relay's part."""
_log = logging.getLogger("appliance.bridge.slots")


@dataclass(frozen=True, slots=True)
class SlotSpec:
    """Where the node dials, whom it reaches, through which relays (tried in order)."""

    listen: Endpoint
    peer_id: str
    relays: tuple[Relay, ...]


class ListeningSlot:
    """What all slots have: a listener, a path to whoever stands behind it, the node's connection.

    `run` owns them. Who stands behind it, a subclass says in `_keep_path`.
    """

    origin: Literal["declared", "book"]
    """Who says which peer stands behind it."""
    yields = False
    """Whether its stream gives way to one that the peer dials at the same moment."""

    def __init__(
        self,
        listen: Endpoint,
        host: Host,
        streams: KaspaStreams,
        rng: random.Random,
        *,
        direct_deadline: float,
    ) -> None:
        self.listening = listen
        """Where the node dials; with the port that the kernel chose, once we listen."""
        self.state: Literal["idle", "connecting", "open", "waiting", "vacant"] = "idle"
        self.failure: Fault | None = None
        self.way: PeerPath | None = None
        self._wanted_at = listen
        self._host = host
        self._streams = streams
        self._rng = rng
        self._direct_deadline = direct_deadline
        self._listener: trio.socket.SocketType | None = None
        self._path: Connection | None = None
        self._have_path = trio.Event()
        self._waiting: trio.CancelScope | None = None
        self._in_use = False

    @property
    def peer_id(self) -> str | None:
        """Who stands behind it; None: nobody yet."""
        return None if self.way is None else self.way.peer_id

    async def listen(self) -> Endpoint:
        """Take the port without serving it yet. Raises ApplianceError if it cannot be had."""
        if self._listener is None:
            self._listener = await _listen(self._wanted_at)
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
        level = logging.DEBUG if self.peer_id is None else logging.INFO
        emit(_log, level, "slot_listening", slot=str(bound), peer=self.peer_id)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(supervised, self._host.telemetry, "slot", self._keep_path)
                nursery.start_soon(self._accept_loop, self._listener, nursery)
                task_status.started(bound)
        finally:
            self.close()

    # --- what differs

    async def _keep_path(self) -> None:
        """Never returns: `_hold_path` again and again."""
        raise NotImplementedError

    def _somebody_is_there(self) -> bool:
        """Whether a node that dials now is to wait for a path."""
        return True

    def _may_open(self) -> bool:
        """Whether the node that waited for a path may have a stream on it."""
        return True

    def _stream_ended(self, lasted: float) -> None:
        """The node's stream to the peer is over."""

    # --- the path

    async def _hold_path(self, way: PeerPath, backoff: Backoff) -> None:
        """Find a connection and keep it until it is gone or a better one stands. Raises Fault."""
        self.state = "connecting"
        conn = await way.find()
        backoff.succeeded()
        self.failure, self.state = None, "open"
        self._path = conn
        self._have_path.set()
        try:
            with conn.held():
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(tell_first_byte, conn)
                    await way.until_better(conn)
                    nursery.cancel_scope.cancel()
        finally:
            self._path = None
            self._have_path = trio.Event()

    async def _pause(self, way: PeerPath, backoff: Backoff, fault: Fault) -> None:
        """There is no path; wait before the next attempt."""
        self.state, self.failure = "waiting", fault
        delay = backoff.failed(self._rng)
        emit(
            _log,
            logging.WARNING,
            "slot_unreachable",
            slot=str(self.listening),
            peer=way.peer_id,
            reason=fault.reason.value,
            detail=fault.detail,
            retry_in_s=round(delay, 1),
        )
        await trio.sleep(delay)

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
                refuse(self._host.telemetry, "slot", Refused(reason), peer=self.peer_id)
                node.reset()
                continue
            if not self._somebody_is_there():
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
                refuse(self._host.telemetry, "slot", fault, peer=self.peer_id)
                node.reset()
                return
            if not self._may_open():
                node.reset()
                return
            self._in_use = True
            began = trio.current_time()
            try:
                stream = conn.open(PROTOCOL)
                await self._streams.carry(
                    node, stream, conn, "outbound", str(self.listening), yields=self.yields
                )
            finally:
                self._in_use = False
                self._stream_ended(trio.current_time() - began)

        well = False
        try:
            well = await guarded(self._host.telemetry, "slot", self.peer_id or "-", serve)
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


class Slot(ListeningSlot):
    """A slot for a peer that the declaration names; it never changes."""

    origin = "declared"

    def __init__(
        self,
        spec: SlotSpec,
        host: Host,
        streams: KaspaStreams,
        rng: random.Random,
        *,
        direct_deadline: float,
    ) -> None:
        super().__init__(spec.listen, host, streams, rng, direct_deadline=direct_deadline)
        self.spec = spec
        self._way = PeerPath(host, spec.peer_id, spec.relays, direct_deadline=direct_deadline)
        self.way = self._way

    async def _keep_path(self) -> None:
        backoff = Backoff(SLOT_FIRST, SLOT_CEILING)
        while True:
            try:
                await self._hold_path(self._way, backoff)
            except Fault as fault:
                await self._pause(self._way, backoff, fault)


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
