"""TCP for libp2p: listening and dialling on one port, which is what punching needs."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Sequence

import trio

from appliance.dataplane.tcp import TcpStream
from appliance.errors import ApplianceError, Fault
from appliance.network import Endpoint
from appliance.reasons import Reason

BACKLOG = 128
"""Connections that the kernel keeps for us between two rounds of accepting."""


def _new_socket(ipv6: bool) -> trio.socket.SocketType:
    family = socket.AF_INET6 if ipv6 else socket.AF_INET
    sock = trio.socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # Listener and dialler share the port: the NAT then maps both alike.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if ipv6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    return sock


async def listen(endpoints: Sequence[Endpoint]) -> list[trio.socket.SocketType]:
    """Bound, listening sockets, or none at all.

    Raises ApplianceError naming the endpoint that cannot be had. A second listener on a port is
    refused although SO_REUSEPORT would allow it: two appliances would steal each other's peers.
    """
    sockets: list[trio.socket.SocketType] = []
    try:
        for endpoint in endpoints:
            _refuse_if_taken(endpoint)
            sock = _new_socket(endpoint.is_ipv6)
            sockets.append(sock)
            await sock.bind((endpoint.host, endpoint.port))
            sock.listen(BACKLOG)
    except BaseException as error:  # Cancelled too: all of them or none
        for sock in sockets:
            sock.close()
        if isinstance(error, OSError):
            raise _cannot_listen(endpoint, error) from error
        raise
    return sockets


def _refuse_if_taken(endpoint: Endpoint) -> None:
    if endpoint.port == 0:
        return
    family = socket.AF_INET6 if endpoint.is_ipv6 else socket.AF_INET
    with contextlib.closing(socket.socket(family, socket.SOCK_STREAM)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if endpoint.is_ipv6:
            # Else `[::]` would collide with our own listener on 0.0.0.0.
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            probe.bind((endpoint.host, endpoint.port))
        except OSError as error:
            raise _cannot_listen(endpoint, error) from error


def _cannot_listen(endpoint: Endpoint, error: OSError) -> ApplianceError:
    hints = {
        errno.EADDRINUSE: f"another program uses port {endpoint.port}: see `ss -ltnp`",
        errno.EADDRNOTAVAIL: f"{endpoint.host} is not an address of this machine: see `ip address`",
        errno.EACCES: "ports below 1024 need a privilege that the appliance does without",
    }
    return ApplianceError(
        f"bridge.listen: cannot listen on {endpoint}: {(error.strerror or str(error)).lower()}",
        hint=hints.get(error.errno or 0),
    )


async def dial(target: Endpoint, source: Endpoint | None, *, punching: bool = False) -> TcpStream:
    """Connect, from `source` if given (host and port; an unspecified host is fine).

    With `punching` the open may be simultaneous. Linux then takes half the round trip for the
    whole: it counts from its own SYN-ACK, and the peer answered the SYN before. BBR believes the
    shortest round trip for 10 s (`bbr_min_rtt_win_sec`) and sends ever less meanwhile, so such a
    connection is controlled by loss instead.

    Raises Fault: dial-failed, or port-in-use if a connection between the two ports exists or ended
    less than a minute ago. After `Cancelled` the socket is closed.
    """
    sock = _new_socket(target.is_ipv6)
    try:
        if source is not None:
            await sock.bind((source.host, source.port))
        if punching:
            _control_by_loss(sock)
        await sock.connect((target.host, target.port))
        return TcpStream(sock, frees_port=source is not None)
    except BaseException as error:  # Cancelled too
        sock.close()
        if isinstance(error, OSError):
            taken = source is not None and error.errno == errno.EADDRNOTAVAIL
            reason = Reason.PORT_IN_USE if taken else Reason.DIAL_FAILED
            detail = f"{target}: {(error.strerror or str(error)).lower()}"
            raise Fault(reason, detail) from error
        raise


def _control_by_loss(sock: trio.socket.SocketType) -> None:
    """Replace BBR by what the system lets an ordinary user have; other choices are kept."""
    if not sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).startswith(b"bbr"):
        return
    for name in (b"cubic", b"reno"):
        with contextlib.suppress(OSError):  # not built in, or not for ordinary users
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, name)
            return
