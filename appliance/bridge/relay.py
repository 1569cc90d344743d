"""Our Circuit Relay v2 service: reservations and circuits, to the spec.

State is kept per circuit; the peer id is the secure channel's; the end of one circuit never
touches another.
"""

from __future__ import annotations

import logging
import time

import trio

from appliance.bridge.connection import Connection, peer_deadline
from appliance.bridge.envelope import Voucher, seal_voucher
from appliance.bridge.host import Host
from appliance.bridge.messages import (
    decode_hop,
    decode_stop,
    encode_hop_status,
    encode_incoming_circuit,
)
from appliance.bridge.negotiate import NegotiatedStream
from appliance.bridge.refusals import refuse
from appliance.bridge.relay_circuit import Circuit
from appliance.dataplane.pace import Pacer
from appliance.errors import Fault, Refused, RemoteProtocolError, StreamReset
from appliance.events import emit
from appliance.policy.relaying import STOP_DEADLINE, RelayLimits, RelayTable
from appliance.reasons import Reason
from appliance.wire.circuit import (
    HOP,
    OK,
    STOP,
    ConnectRequest,
    Granted,
    Limit,
    expect_request,
    expect_status,
)

REQUEST_DEADLINE = 10.0
"""Seconds that a peer gets to send its request on a hop stream (go-libp2p: 1 min)."""

_log = logging.getLogger("appliance.bridge.relay")


class RelayService:
    """Serves HOP on a host. `start` and `stop` switch it; circuits in progress survive `stop`."""

    def __init__(self, host: Host, limits: RelayLimits) -> None:
        self._table = RelayTable(limits)
        self.running = False
        self._host = host
        self._carrying: dict[Circuit, int] = {}
        self._pacer = Pacer(
            host.alarms,
            each=limits.circuit_bytes_per_second,
            together=limits.relay_bytes_per_second,
        )
        self._limit = Limit(limits.circuit_seconds, limits.circuit_bytes)
        host.on_closed.append(self._connection_closed)
        host.wanted_by.append(self._is_reserved)

    def start(self) -> None:
        self._host.handle(HOP, self._serve_hop)
        self.running = True

    def stop(self) -> None:
        self._host.unhandle(HOP)
        self.running = False

    @property
    def table(self) -> RelayTable:
        """What is granted now: reservations that are over have been taken out."""
        before = self._table.reservations
        self._table.expire(trio.current_time())
        self._host.telemetry.reservations_ended += before - self._table.reservations
        return self._table

    @property
    def bytes_total(self) -> int:
        """Bytes carried since the start, circuits in progress included."""
        return self._host.telemetry.relayed_bytes + sum(c.counts.total for c in self._carrying)

    def _connection_closed(self, conn: Connection) -> None:
        table = self.table
        before = table.reservations
        table.connection_closed(conn.number)
        self._host.telemetry.reservations_ended += before - table.reservations

    def _is_reserved(self, conn: Connection) -> bool:
        """Whether a reservation lives on it: then it stays, however quiet it is (spec)."""
        try:
            held = self.table.reservation_of(conn.peer_id, trio.current_time())
        except Refused:
            return False
        return held.connection == conn.number

    async def _serve_hop(self, stream: NegotiatedStream, conn: Connection) -> None:
        subject = "reservation"
        try:
            with peer_deadline(REQUEST_DEADLINE, Reason.HANDSHAKE_TIMEOUT):
                request = expect_request(decode_hop(await stream.receive_message()))
            if isinstance(request, ConnectRequest):
                subject = "circuit"
                await self._connect(stream, conn, request.peer_id)
            else:
                await self._reserve(stream, conn)
        except Fault as fault:
            status = refuse(self._host.telemetry, subject, fault, peer=conn.peer_id)
            await stream.send_message(encode_hop_status(status))
            await stream.aclose()

    async def _reserve(self, stream: NegotiatedStream, conn: Connection) -> None:
        if conn.relayed:
            raise Refused(Reason.RELAYED_RESERVE)
        telemetry, table, now = self._host.telemetry, self.table, trio.current_time()
        before = table.reservations
        reservation = table.reserve(conn.peer_id, conn.customer, conn.number, now)
        expires = int(time.time() + reservation.expires - now)
        voucher = seal_voucher(
            self._host.identity, Voucher(self._host.peer_id, conn.peer_id, expires)
        )
        renewed = table.reservations == before
        if renewed:
            telemetry.reservations_renewed += 1
        else:
            telemetry.reservations_granted += 1
        emit(_log, logging.INFO, "reservation_granted", peer=conn.peer_id, renewed=renewed)
        granted = Granted(expires, self._host.announced(), voucher)
        await stream.send_message(
            encode_hop_status(OK, limit=self._limit, granted=granted, relay_id=self._host.peer_id)
        )
        await stream.aclose()

    async def _connect(self, stream: NegotiatedStream, conn: Connection, target_id: str) -> None:
        if conn.relayed:
            raise Refused(Reason.RELAYED_CONNECT)
        number = self.table.open_circuit(conn.peer_id, target_id, trio.current_time())
        try:
            target = await self._knock(conn.peer_id, target_id)
            try:
                await stream.send_message(encode_hop_status(OK, limit=self._limit))
            except BaseException:  # Cancelled too: nobody else knows the target's stream yet
                target.reset()
                raise
        except BaseException:  # Cancelled too: its place is free again
            self.table.close_circuit(number)
            raise
        circuit = Circuit(self._host, conn.peer_id, target_id, self._circuit_over)
        self._carrying[circuit] = number
        if not circuit.splice(stream, target, self._limit, self._pacer):
            await circuit.pipe(stream, target, self._limit)

    def _circuit_over(self, circuit: Circuit) -> None:
        self._table.close_circuit(self._carrying.pop(circuit))

    async def _knock(self, source_id: str, target_id: str) -> NegotiatedStream:
        """A stop stream that the target accepted. Raises Refused."""
        held = self.table.reservation_of(target_id, trio.current_time())
        conn = next(
            (c for c in self._host.connections(target_id) if c.number == held.connection), None
        )
        if conn is None:
            raise Refused(Reason.NO_RESERVATION)
        stop: NegotiatedStream | None = None
        accepted = False
        try:
            with peer_deadline(STOP_DEADLINE, Reason.TARGET_UNREACHABLE):
                stop = conn.open(STOP)
                await stop.send_message(encode_incoming_circuit(source_id, self._limit))
                reply = expect_status(decode_stop(await stop.receive_message()))
            if not reply.ok:
                raise Refused(Reason.TARGET_REFUSED, reply.name)
            accepted = True
            return stop
        except StreamReset as error:
            raise Refused(Reason.TARGET_UNREACHABLE, str(error)) from error
        except RemoteProtocolError as error:
            # The target's fault is not the caller's: it learns only that there is no way.
            raise Refused(Reason.TARGET_UNREACHABLE, str(error)) from error
        finally:
            if stop is not None and not accepted:
                stop.reset()
