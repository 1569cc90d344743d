"""The client's side of circuits: dialling through a relay, and being dialled through one."""

from __future__ import annotations

from collections.abc import Callable

from appliance.bridge.connection import Connection, Relayed, peer_deadline
from appliance.bridge.host import Host
from appliance.bridge.messages import decode_hop, decode_stop, encode_connect, encode_stop_status
from appliance.bridge.negotiate import NegotiatedStream
from appliance.bridge.refusals import refuse
from appliance.errors import Fault, Refused, StreamReset
from appliance.reasons import Reason
from appliance.wire.circuit import HOP, OK, STOP, expect_circuit, expect_status

CIRCUIT_DEADLINE = 30.0
"""Seconds for the relay to reach the target: its own deadline plus two round trips."""
STOP_REQUEST_DEADLINE = 10.0


async def dial_through(host: Host, relay: Connection, target_id: str) -> Connection:
    """A connection to `target_id` inside a circuit of `relay`.

    Raises Fault: reservation-refused style reasons carry the relay's status in their detail.
    After `Cancelled` no circuit is left.
    """
    stream = relay.open(HOP)
    try:
        with peer_deadline(CIRCUIT_DEADLINE, Reason.TARGET_UNREACHABLE):
            await stream.send_message(encode_connect(target_id))
            reply = expect_status(decode_hop(await stream.receive_message()))
        if not reply.ok:
            raise Refused(Reason.TARGET_UNREACHABLE, f"the relay answered {reply.name}")
    except BaseException as error:  # Cancelled too: half an exchange is no circuit
        stream.reset()
        if isinstance(error, StreamReset):
            raise Fault(Reason.TARGET_UNREACHABLE, f"the relay hung up: {error}") from error
        raise
    return await host.adopt(
        stream,
        Relayed(relay.peer_id, reply.limit),
        "outbound",
        client=True,
        expect=target_id,
        introduced_by=relay.peer_id,
    )


class CircuitAcceptor:
    """Serves STOP: accepts circuits from relays at which we have reserved, and from nobody else."""

    def __init__(self, host: Host, is_our_relay: Callable[[str], bool]) -> None:
        self._host = host
        self._is_our_relay = is_our_relay
        host.handle(STOP, self._serve_stop)

    async def _serve_stop(self, stream: NegotiatedStream, conn: Connection) -> None:
        try:
            with peer_deadline(STOP_REQUEST_DEADLINE, Reason.HANDSHAKE_TIMEOUT):
                request = expect_circuit(decode_stop(await stream.receive_message()))
            if conn.relayed or not self._is_our_relay(conn.peer_id):
                raise Refused(Reason.STOP_FROM_STRANGER)
            self._host.check_room()
        except Fault as fault:
            status = refuse(self._host.telemetry, "stop", fault, peer=conn.peer_id)
            await stream.send_message(encode_stop_status(status))
            await stream.aclose()
            return
        await stream.send_message(encode_stop_status(OK))
        # What the relay says of the caller is checked against the channel's own peer id.
        await self._host.adopt(
            stream,
            Relayed(conn.peer_id, request.limit),
            "inbound",
            client=False,
            expect=request.peer_id,
            introduced_by=conn.peer_id,
        )
