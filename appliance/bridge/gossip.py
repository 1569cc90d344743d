"""`/kaspa-appliance/gossip/1` over host streams: asking one peer, and answering all others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

from appliance.bridge.connection import Connection, peer_deadline
from appliance.bridge.host import Host
from appliance.bridge.negotiate import NegotiatedStream
from appliance.bridge.refusals import refuse
from appliance.errors import Fault, Refused, RemoteProtocolError, StreamReset
from appliance.network import Endpoint
from appliance.reasons import Reason
from appliance.wire.circuit import HOP
from appliance.wire.gossip import (
    EXCHANGE_TIMEOUT,
    MAX_EXCHANGES,
    PROTOCOL,
    Answer,
    Answerer,
    Ask,
    Asker,
)

PROBE: Final = 10.0
"""Seconds for a peer to agree to a protocol: one round trip."""

Respond = Callable[[Connection, Ask], Answer]
"""What to answer to a question that came on this connection. Never waits, never raises Fault."""


class GossipService:
    """Answers questions of peers, at most `MAX_EXCHANGES` at once, each within its time."""

    def __init__(self, host: Host, respond: Respond) -> None:
        self.exchanges = 0
        self._host = host
        self._respond = respond

    def start(self) -> None:
        self._host.handle(PROTOCOL, self._serve)

    def stop(self) -> None:
        """Nothing new is answered; what is under way ends by itself."""
        self._host.unhandle(PROTOCOL)

    async def _serve(self, stream: NegotiatedStream, conn: Connection) -> None:
        if self.exchanges >= MAX_EXCHANGES:
            full = Refused(Reason.STREAMS_FULL, f"{MAX_EXCHANGES} exchanges at once")
            refuse(self._host.telemetry, "stream", full, peer=conn.peer_id)
            stream.reset()
            return
        self.exchanges += 1
        try:
            with peer_deadline(EXCHANGE_TIMEOUT, Reason.HANDSHAKE_TIMEOUT):
                await self._exchange(stream, conn)
        finally:
            self.exchanges -= 1

    async def _exchange(self, stream: NegotiatedStream, conn: Connection) -> None:
        """Raises RemoteProtocolError and StreamReset."""
        answerer = Answerer()
        while (ask := answerer.receive(await _some(stream))) is None:
            pass
        await stream.send_all(answerer.answer(self._respond(conn, ask)))
        await stream.aclose()


async def ask(conn: Connection, question: Ask) -> Answer:
    """One exchange with the peer of `conn`.

    Raises Fault: unsupported-protocol if the peer does not speak it, handshake-timeout if it is
    slow, connection-lost, or what is wrong with its answer. After Cancelled the stream is reset.
    """
    asker = Asker(question)
    try:
        with peer_deadline(EXCHANGE_TIMEOUT, Reason.HANDSHAKE_TIMEOUT), conn.held():
            async with conn.exchange(PROTOCOL) as stream:
                # A refusal is heard for certain only if nothing follows the proposal: it may be
                # overtaken by the reset that answers what follows.
                await stream.confirmed()
                await stream.send_all(asker.begin())
                await stream.send_eof()
                while (answer := asker.receive(await _some(stream))) is None:
                    pass
    except StreamReset as error:
        raise Fault(Reason.CONNECTION_LOST, str(error)) from error
    return answer


async def agrees_to_relay(conn: Connection) -> bool:
    """Whether the peer speaks the hop protocol of circuit relays: asked, not taken from identify.

    Raises Fault.
    """
    stream: NegotiatedStream | None = None
    try:
        with peer_deadline(PROBE, Reason.HANDSHAKE_TIMEOUT), conn.held():
            stream = conn.open(HOP)
            await stream.confirmed()
            return True
    except StreamReset as error:
        raise Fault(Reason.CONNECTION_LOST, str(error)) from error
    except RemoteProtocolError as fault:
        if fault.reason is not Reason.UNSUPPORTED_PROTOCOL:
            raise
        return False
    finally:
        if stream is not None:
            stream.reset()


async def meet(host: Host, endpoint: Endpoint, peer_id: str | None) -> Connection:
    """A direct connection to whoever is at `endpoint`, whose id may not be known yet.

    Within the host's budget for dials, from its listen port if that is free. Raises Fault.
    """
    if peer_id is not None:
        return await host.connect(endpoint, peer_id)
    try:
        return await host.dial(endpoint, None, client=True)
    except Fault as fault:
        if fault.reason is not Reason.PORT_IN_USE:
            raise
        return await host.dial(endpoint, None, client=True, any_port=True)


async def leave(host: Host, conn: Connection) -> None:
    """End a connection that nobody uses any more; do nothing if somebody does."""
    in_use = conn.closed or conn.holds or conn.serving or conn.session.open_streams
    if not in_use and not any(wants(conn) for wants in host.wanted_by):
        await conn.session.close(Reason.IDLE)


async def _some(stream: NegotiatedStream) -> bytes:
    """Raises StreamReset at the end of the stream: a message was still to come."""
    data = await stream.receive_some()
    if not data:
        raise StreamReset("the stream ended before the message")
    return data


async def identified(conn: Connection) -> None:
    """Returns once identify was answered, or failed."""
    with trio.move_on_after(PROBE):
        await conn.identified.wait()
