"""A TCP socket as a carrier: reset really resets, a dead peer is noticed."""

from __future__ import annotations

import contextlib
import fcntl
import socket
import struct
import termios
from array import array
from typing import Final

import trio

from appliance.errors import StreamReset
from appliance.network import Endpoint
from appliance.units import KIB

USER_TIMEOUT_MS: Final = 45_000
"""Unacknowledged bytes older than this end the connection (TCP_USER_TIMEOUT, RFC 5482)."""
KEEPALIVE_IDLE: Final = 30
"""Seconds; with three probes 10 s apart a black hole is noticed in a minute."""

UNSENT: Final = 128 * KIB
"""Bytes that the kernel takes beyond what it may send at once (TCP_NOTSENT_LOWAT): what is in its
hands cannot be overtaken by a ping or a new stream."""
SHORT_PATH_US: Final = 2_000
"""Round trips below this need no large receive buffer: 256 KiB every 2 ms are a gigabit."""
SHORT_PATH_BUFFER: Final = 256 * KIB
"""On a short path the receive buffer stays at this (the kernel doubles it for its own books): less
queues in front of a busy reader, and it stays in the processor's cache."""

_LOOK_AGAIN: Final = 0.005
"""Seconds between two looks at what is unacknowledged: the kernel has no event for it."""
_TCP_INFO_SIZE: Final = 152
_MIN_RTT_AT: Final = 148
"""Offset of `tcpi_min_rtt` (microseconds) in struct tcp_info (linux/tcp.h, since 4.6)."""
_LINGER_ZERO: Final = struct.pack("ii", 1, 0)


class TcpStream:
    """Takes over `sock`, a connected trio socket, whatever becomes of it.

    With `frees_port` its end leaves no TIME_WAIT behind: `send_eof` waits until the peer's kernel
    has all bytes and then resets, so that the same two ports can be connected again at once.
    Raises OSError if it is connected no more (the peer reset it meanwhile); it is closed then.
    """

    __slots__ = ("_eof_sent", "_frees_port", "_receiving", "_sending", "_sock", "_unsent", "local",
                 "remote")  # fmt: skip

    def __init__(self, sock: trio.socket.SocketType, *, frees_port: bool = False) -> None:
        # The bare socket: what trio's wraps around each call is a quarter of a relay's CPU.
        self._sock = socket.socket(fileno=sock.detach())
        self._frees_port = frees_port
        # What was accepted and found no room in the kernel.
        self._unsent = memoryview(b"")
        self._receiving = False
        self._sending = False
        self._eof_sent = False
        try:
            self._sock.setblocking(False)
            self._tune()
            self.local = _endpoint(self._sock.getsockname())
            self.remote = _endpoint(self._sock.getpeername())
        except BaseException:  # whatever it is: the socket has no other owner
            self._sock.close()
            raise

    def _tune(self) -> None:
        set_option = self._sock.setsockopt
        set_option(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        set_option(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        set_option(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE)
        set_option(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)
        set_option(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
        set_option(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
        set_option(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT)

    def fit_to_path(self) -> None:
        """Bound what queues in the kernel where the path is short, once a round trip was seen.

        Longer paths keep the kernel's own tuning, which follows bandwidth and delay.
        """
        with contextlib.suppress(OSError):  # it was reset meanwhile: its driver will notice
            info = self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_SIZE)
            if len(info) < _TCP_INFO_SIZE:
                return
            (min_rtt,) = struct.unpack_from("=I", info, _MIN_RTT_AT)
            if min_rtt < SHORT_PATH_US:
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SHORT_PATH_BUFFER)

    # --- driven

    @property
    def sending(self) -> bool:
        return len(self._unsent) > 0

    def receive_nowait(self, into: memoryview) -> int:
        try:
            return self._sock.recv_into(into)
        except BlockingIOError:
            raise trio.WouldBlock from None
        except OSError as error:
            raise _reset(error) from error

    async def wait_receivable(self) -> None:
        try:
            await trio.lowlevel.wait_readable(self._sock)
        except (trio.ClosedResourceError, ValueError) as error:
            raise _reset(error) from error

    def send_nowait(self, data: memoryview) -> None:
        sent = self._send(data)
        if sent < len(data):
            self._unsent = memoryview(bytes(data[sent:]))

    async def drain(self) -> None:
        while self._unsent:
            await self._wait_sendable()
            # Looked up again: a reset meanwhile has dropped it.
            self._unsent = self._unsent[self._send(self._unsent) :]

    # --- as a byte stream

    async def receive_some(self, max_bytes: int = 65536) -> bytes:
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving from this socket")
        self._receiving = True
        try:
            await trio.lowlevel.checkpoint()
            while True:
                try:
                    return self._sock.recv(max_bytes)
                except BlockingIOError:
                    await self.wait_receivable()
                except OSError as error:
                    raise _reset(error) from error
        finally:
            self._receiving = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this socket")
        if self._eof_sent:
            raise StreamReset("sending behind the end of file")
        self._sending = True
        try:
            await trio.lowlevel.checkpoint()
            view = memoryview(data)
            while view:
                view = view[self._send(view) :]
                if view:
                    await self._wait_sendable()
        finally:
            self._sending = False

    async def send_eof(self) -> None:
        await self.drain()
        if self._frees_port:
            await self._acknowledged()
            self.reset()
            return
        await trio.lowlevel.checkpoint()
        self.half_close()

    def reset(self) -> None:
        if self._sock.fileno() != -1:
            # Lingering for zero seconds makes close() send RST instead of FIN.
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
            self._close()

    async def aclose(self) -> None:
        if self._sending or self._unsent:
            self.reset()  # else the peer would take a part for the whole
        elif self._sock.fileno() != -1:
            self._close()
        await trio.lowlevel.checkpoint()

    # --- inside

    def _send(self, data: memoryview) -> int:
        if not data:
            return 0
        try:
            return self._sock.send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise _reset(error) from error

    async def _wait_sendable(self) -> None:
        try:
            await trio.lowlevel.wait_writable(self._sock)
        except (trio.ClosedResourceError, ValueError) as error:
            raise _reset(error) from error

    def half_close(self) -> None:
        """`send_eof` without a checkpoint, and without freeing the port. Raises StreamReset."""
        if self._eof_sent:
            return
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise _reset(error) from error
        self._eof_sent = True

    def _close(self) -> None:
        self._unsent = memoryview(b"")
        trio.lowlevel.notify_closing(self._sock)
        self._sock.close()

    async def _acknowledged(self) -> None:
        """Until the peer's kernel has every byte; the caller sets the deadline."""
        queued = array("i", [1])
        while self._sock.fileno() != -1:
            fcntl.ioctl(self._sock.fileno(), termios.TIOCOUTQ, queued)
            if not queued[0]:
                return
            await trio.sleep(_LOOK_AGAIN)


def _reset(error: Exception) -> StreamReset:
    why = "closed here" if isinstance(error, trio.ClosedResourceError | ValueError) else str(error)
    return StreamReset(f"TCP connection reset: {why}")


def _endpoint(name: tuple[str, int] | tuple[str, int, int, int]) -> Endpoint:
    host = name[0].partition("%")[0]
    if host.startswith("::ffff:") and "." in host:
        host = host[len("::ffff:") :]
    return Endpoint(host, name[1])
