"""Sockets of the embedded node: its listener, and connections as byte streams."""

from __future__ import annotations

import trio

from appliance.dataplane.tcp import TcpStream
from appliance.errors import ApplianceError
from appliance.network import Endpoint


async def bind(endpoint: Endpoint) -> trio.SocketListener:
    """Listen on one endpoint. Raises ApplianceError."""
    try:
        listeners = await trio.open_tcp_listeners(endpoint.port, host=endpoint.host)
    except OSError as error:
        raise ApplianceError(
            f"the embedded node cannot listen on {endpoint}: {error.strerror or error}",
            hint="another node may be running there; choose another port under node.p2p",
        ) from None
    return listeners[0]


def owned(connected: trio.SocketStream) -> TcpStream:
    """The socket of `connected` as a ByteStream.

    Raises OSError if the peer is gone already; the socket is closed then.
    """
    try:
        return TcpStream(connected.socket)
    except OSError:
        connected.socket.close()
        raise
