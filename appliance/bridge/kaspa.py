"""Kaspa streams: `/kaspad/transport/1.0.0` between a peer's stream and our node's socket."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, Literal

import trio

from appliance.bridge.connection import Connection, Relayed
from appliance.bridge.host import Host
from appliance.bridge.negotiate import NegotiatedStream
from appliance.bridge.refusals import refuse
from appliance.dataplane.muxstream import MuxStream
from appliance.dataplane.pipe import PipeCounts, PipeEnd, pipe
from appliance.dataplane.socketpipe import socket_pipe
from appliance.dataplane.tcp import TcpStream
from appliance.errors import Refused, StreamReset
from appliance.events import emit
from appliance.network import Endpoint
from appliance.policy.admission import InboundBudget, InboundLimits
from appliance.policy.loopback import loopback_of
from appliance.policy.path import allows_kaspa
from appliance.reasons import Reason

PROTOCOL: Final = "/kaspad/transport/1.0.0"
NODE_DIAL_DEADLINE: Final = 5.0
"""Seconds for the node beside us to accept a TCP connection."""
NODE_LOOK_EVERY: Final = 10.0
"""Seconds between two looks at a node that does not answer."""
_log = logging.getLogger("appliance.bridge.kaspa")

PathName = Literal["direct", "relayed"]


def path_of(conn: Connection) -> PathName:
    return "relayed" if conn.relayed else "direct"


def may_carry(conn: Connection) -> bool:
    """Whether a Kaspa stream may live on this connection."""
    if not isinstance(conn.path, Relayed):
        return True
    return allows_kaspa(seconds=conn.path.limit.seconds, data_bytes=conn.path.limit.data_bytes)


@dataclass(slots=True, eq=False)
class KaspaStream:
    """A stream in progress, for status. `forward` of its counts is from the node to the peer."""

    peer_id: str
    direction: Literal["inbound", "outbound"]
    path: PathName
    relay: str | None
    opened_at: float
    local: str
    counts: PipeCounts = field(default_factory=PipeCounts)
    yields: bool = False
    """Whether it gives way to one that the peer dials at the same moment."""
    gave_way: bool = False
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)

    def give_way(self) -> None:
        self.gave_way = True
        self.scope.cancel()


class KaspaStreams:
    """Accepts Kaspa streams for the node, and knows all that run, in both directions."""

    def __init__(self, host: Host, node: Endpoint, limits: InboundLimits) -> None:
        self.budget = InboundBudget(limits)
        self.open: set[KaspaStream] = set()
        self.node_reachable: bool | None = None
        self.draining = False
        self.node = node
        """Where the node listens; the composition root corrects it where the kernel chose."""
        self._host = host
        self._ended = trio.Event()
        host.handle(PROTOCOL, self._serve)

    async def _serve(self, stream: NegotiatedStream, conn: Connection) -> None:
        try:
            if self.draining:
                raise Refused(Reason.SHUTTING_DOWN)
            if not may_carry(conn):
                raise Refused(Reason.RELAY_LIMIT_TOO_SMALL)
            crossing = self._crossing(conn.peer_id)
            if crossing and self._host.peer_id < conn.peer_id:
                raise Refused(Reason.PEER_HAS_STREAM, "both dialled at the same moment: ours stays")
            admission = self.budget.admit(conn.peer_id, conn.introduced_by)
        except Refused as fault:
            refuse(self._host.telemetry, "kaspa", fault, peer=conn.peer_id)
            stream.reset()
            return
        for ours in crossing:
            ours.give_way()
        try:
            with conn.held():
                node = await self._dial_node(conn.peer_id)
            await self.carry(node, stream, conn, "inbound", str(node.local))
        except Refused as fault:
            refuse(self._host.telemetry, "kaspa", fault, peer=conn.peer_id)
            stream.reset()
        finally:
            # Also if the peer's connection ends while we wait for the node.
            self.budget.leave(admission)

    def talks_to(self, peer_id: str) -> bool:
        """Whether a stream with the peer is open or about to be, in either direction."""
        return self.budget.holds(peer_id) or any(one.peer_id == peer_id for one in self.open)

    def _crossing(self, peer_id: str) -> list[KaspaStream]:
        """Streams of ours to a peer that dialled us before it saw them.

        Of two that cross one is enough. The dial of the smaller peer id stays: both ends know that
        without a word. Once a byte came back the peer knew of ours: then it wants a second one.
        """
        return [
            one
            for one in self.open
            if one.yields and one.peer_id == peer_id and not one.counts.backward
        ]

    async def carry(
        self,
        node: TcpStream,
        stream: NegotiatedStream,
        conn: Connection,
        direction: Literal["inbound", "outbound"],
        local: str,
        *,
        yields: bool = False,
    ) -> None:
        """Pipe until both ends are done; `local` names the node's side for people.

        Raises RemoteProtocolError if the peer does not speak the protocol after all, and Refused
        if it `yields` and the peer dialled us at the same moment. On return, after that and after
        `Cancelled` neither stream is usable.
        """
        path = path_of(conn)
        relay = conn.path.relay if isinstance(conn.path, Relayed) else None
        entry = KaspaStream(
            conn.peer_id, direction, path, relay, trio.current_time(), local, yields=yields
        )
        self._host.telemetry.kaspa_streams[direction, path] += 1
        emit(
            _log,
            logging.INFO,
            "kaspa_stream",
            peer=conn.peer_id,
            path=path,
            direction=direction,
            local=local,
        )
        end: PipeEnd | None = None
        with self._listed(entry), conn.held():
            try:
                with entry.scope:
                    end = await _piped(node, stream, entry, lambda: self._first_byte(entry, conn))
            finally:
                self._closed(entry, conn, end)
        if entry.gave_way:
            raise Refused(Reason.PEER_HAS_STREAM, "both dialled at the same moment: theirs stays")

    async def watch_node(self) -> None:
        """Know whether the node is there before a peer asks: looked at until it is, and then left
        in peace until a peer finds it gone. Never returns."""
        while True:
            if not self.node_reachable:
                await self._look_at_node()
            await trio.sleep(NODE_LOOK_EVERY)

    async def _look_at_node(self) -> None:
        try:
            with trio.fail_after(NODE_DIAL_DEADLINE):
                stream = await trio.open_tcp_stream(self.node.host, self.node.port)
        except (OSError, trio.TooSlowError):
            if self.node_reachable is None:
                emit(_log, logging.WARNING, "node_unreachable", node=str(self.node))
            self.node_reachable = False
            return
        await stream.aclose()
        self.node_reachable = True

    async def drained(self) -> None:
        """Returns once no stream runs."""
        while self.open:
            await self._ended.wait()

    async def _dial_node(self, peer_id: str) -> TcpStream:
        """The node sees each peer at a loopback address of its own."""
        ipv6 = self.node.is_ipv6
        family = trio.socket.AF_INET6 if ipv6 else trio.socket.AF_INET
        sock = trio.socket.socket(family, trio.socket.SOCK_STREAM)
        try:
            if self.node.host.startswith("127."):
                await sock.bind((loopback_of(peer_id), 0))
            with trio.fail_after(NODE_DIAL_DEADLINE):
                await sock.connect((self.node.host, self.node.port))
        except (OSError, trio.TooSlowError) as error:
            sock.close()
            self.node_reachable = False
            why = f"no answer within {NODE_DIAL_DEADLINE:g} s"
            if isinstance(error, OSError):
                why = (error.strerror or str(error)).lower()
            raise Refused(Reason.NODE_UNREACHABLE, f"{self.node}: {why}") from error
        except BaseException:  # Cancelled: nobody else knows the socket
            sock.close()
            raise
        self.node_reachable = True
        try:
            return TcpStream(sock)
        except OSError as error:
            # It accepted and hung up at once, as with an address that it bans.
            sock.close()
            raise Refused(Reason.NODE_RESET, str(self.node)) from error

    def _first_byte(self, entry: KaspaStream, conn: Connection) -> None:
        fields: dict[str, object] = {}
        if conn.relayed_at is not None:
            elapsed = trio.current_time() - conn.relayed_at
            fields["since_relayed_ms"] = round(elapsed * 1000, 1)
        emit(
            _log,
            logging.INFO,
            "kaspa_first_byte",
            peer=entry.peer_id,
            path=entry.path,
            direction=entry.direction,
            **fields,
        )

    @contextmanager
    def _listed(self, entry: KaspaStream) -> Iterator[None]:
        self.open.add(entry)
        try:
            yield
        finally:
            self.open.discard(entry)
            self._ended.set()
            self._ended = trio.Event()

    def _closed(self, entry: KaspaStream, conn: Connection, end: PipeEnd | None) -> None:
        telemetry = self._host.telemetry
        telemetry.kaspa_bytes["out"] += entry.counts.forward
        telemetry.kaspa_bytes["in"] += entry.counts.backward
        emit(
            _log,
            logging.INFO,
            "kaspa_stream_closed",
            peer=entry.peer_id,
            path=entry.path,
            bytes_in=entry.counts.backward,
            bytes_out=entry.counts.forward,
            reason=self._why(entry, conn, end),
        )

    def _why(self, entry: KaspaStream, conn: Connection, end: PipeEnd | None) -> str:
        if entry.gave_way:
            return Reason.PEER_HAS_STREAM.value
        if end is not None and end.clean:
            return "closed"
        if end is not None and end.reset_by == "left":
            return Reason.NODE_RESET.value
        if self.draining:
            return Reason.DRAIN_DEADLINE.value
        if conn.closed or end is None:
            # Every stream of a connection that ends looks reset.
            return (conn.session.closed_reason or Reason.CONNECTION_LOST).value
        return Reason.PEER_RESET.value


async def _piped(
    node: TcpStream, stream: NegotiatedStream, entry: KaspaStream, on_first: Callable[[], None]
) -> PipeEnd:
    """Raises RemoteProtocolError: the peer's refusal of our protocol shows with its first bytes."""
    if not isinstance(stream.inner, MuxStream):
        return await pipe(node, stream, entry.counts, on_first_backward=on_first)
    try:
        await stream.flush()
    except BaseException as error:  # Cancelled too: no pipe runs yet that would reset them
        node.reset()
        stream.reset()
        if isinstance(error, StreamReset):
            return PipeEnd(clean=False, reset_by="right")
        raise
    return await socket_pipe(
        node,
        stream.inner,
        entry.counts,
        leftover=stream.take_buffered(),
        agree=stream.agreement,
        on_first_backward=on_first,
    )
