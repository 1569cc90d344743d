"""A TCP socket as a `ByteStream`: reset really resets, a dead peer is noticed."""

from __future__ import annotations

import fcntl
import socket
import struct
import termios
from array import array
from typing import Final

import trio

from appliance.errors import StreamReset
from appliance.network import Endpoint

USER_TIMEOUT_MS: Final = 45_000
"""Unacknowledged bytes older than this end the connection (TCP_USER_TIMEOUT, RFC 5482)."""
KEEPALIVE_IDLE: Final = 30
"""Seconds; with three probes 10 s apart a black hole is noticed in a minute."""

_LOOK_AGAIN: Final = 0.005
"""Seconds between two looks at what is unacknowledged: the kernel has no event for it."""
_LINGER_ZERO: Final = struct.pack("ii", 1, 0)


class TcpStream:
    """Owns `sock`, a connected non-blocking trio socket.

    With `frees_port` its end leaves no TIME_WAIT behind: `send_eof` waits until the peer's kernel
    has all bytes and then resets, so that the same two ports can be connected again at once.
    Raises OSError if it is connected no more (the peer reset it meanwhile); it is closed then.
    """

    def __init__(self, sock: trio.socket.SocketType, *, frees_port: bool = False) -> None:
        self._sock = sock
        self._frees_port = frees_port
        try:
            self._stream = trio.SocketStream(sock)
            self._tune(sock)
            self.local = _endpoint(sock.getsockname())
            self.remote = _endpoint(sock.getpeername())
        except BaseException:
            sock.close()
            raise

    @staticmethod
    def _tune(sock: trio.socket.SocketType) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)

    async def receive_some(self, max_bytes: int = 65536) -> bytes:
        try:
            return bytes(await self._stream.receive_some(max_bytes))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise StreamReset("TCP connection reset") from error

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        try:
            await self._stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise StreamReset("TCP connection reset") from error

    async def send_eof(self) -> None:
        if self._frees_port:
            await self._acknowledged()
            self.reset()
            return
        try:
            await self._stream.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise StreamReset("TCP connection reset") from error

    def reset(self) -> None:
        if self._sock.fileno() != -1:
            # Lingering for zero seconds makes close() send RST instead of FIN.
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
            self._sock.close()

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def _acknowledged(self) -> None:
        """Until the peer's kernel has every byte; the caller sets the deadline."""
        queued = array("i", [1])
        while self._sock.fileno() != -1:
            fcntl.ioctl(self._sock.fileno(), termios.TIOCOUTQ, queued)
            if not queued[0]:
                return
            await trio.sleep(_LOOK_AGAIN)


def _endpoint(name: tuple[str, int] | tuple[str, int, int, int]) -> Endpoint:
    host = name[0].partition("%")[0]
    if host.startswith("::ffff:") and "." in host:
        host = host[len("::ffff:") :]
    return Endpoint(host, name[1])
