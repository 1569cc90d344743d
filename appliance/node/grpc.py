"""gRPC's one bidirectional call of Kaspa on top of `node.http2`: headers, messages, status.

Source: grpc, doc/PROTOCOL-HTTP2.md. As kaspad's tonic does: the server's headers go out at once,
a session's end is status 0 (the stream just ends), gzip is understood from both sides, an unknown
path or encoding is status 12. We ourselves send uncompressed: the messages are small.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

import trio

from appliance import __version__
from appliance.dataplane.streams import ByteStream
from appliance.errors import Fault, RemoteProtocolError, StreamReset
from appliance.node.http2 import Http2Connection
from appliance.node.http2_stream import Headers, Http2Stream
from appliance.reasons import Reason
from appliance.wire import grpc_frames

PATH: Final = b"/protowire.P2P/MessageStream"
RESPONSE_TIMEOUT: Final = 10.0
"""Seconds for the server's headers: rusty-kaspa, connection_handler.rs, communication_timeout."""

_CONTENT_TYPE: Final = b"application/grpc"
_ACCEPT: Final = (b"grpc-accept-encoding", b"gzip,identity")
# grpc, doc/statuscodes.md
_OK, _UNIMPLEMENTED = 0, 12


class GrpcCall:
    """Messages both ways. One task may receive while another sends."""

    def __init__(self, stream: Http2Stream, *, server: bool, gzip: bool) -> None:
        self._stream = stream
        self._server = server
        self._decoder = grpc_frames.FrameDecoder(gzip=gzip)

    async def receive(self) -> bytes | None:
        """The next message; None once the peer has ended its direction in peace.

        Nothing is lost on Cancelled. Raises StreamReset, also for a status other than 0, and
        RemoteProtocolError for bad framing.
        """
        while (message := self._decoder.next_message()) is None:
            data = await self._stream.receive_data()
            if not data:
                self._decoder.end()
                self._check_status()
                return None
            self._decoder.feed(data)
        return message

    async def send(self, message: bytes) -> None:
        """Returns once all is accepted for sending. After Cancelled only `reset` makes sense.

        Raises StreamReset.
        """
        await self._stream.send_data(grpc_frames.encode(message))

    async def finish(self) -> None:
        """End our direction, then read and forget until the peer has ended its own.

        The caller bounds the time. Never raises StreamReset: the call is over anyway.
        """
        try:
            if not self._server:
                self._stream.send_end()
            elif not self._stream.done:
                self._stream.send_headers([(b"grpc-status", b"%d" % _OK)], end=True)
                return
            while await self._stream.receive_data():
                pass
        except StreamReset:
            pass

    def reset(self) -> None:
        """End both directions at once."""
        self._stream.reset()

    def _check_status(self) -> None:
        if self._server:
            return
        fields = dict(self._stream.trailers or self._stream.headers or ())
        status = fields.get(b"grpc-status", b"2")
        if status != b"%d" % _OK:
            detail = fields.get(b"grpc-message", b"")[:200].decode("ascii", "replace")
            raise StreamReset(
                f"gRPC status {status[:8].decode('ascii', 'replace')} {detail}".strip()
            )


async def answer(stream: Http2Stream, serve: Callable[[GrpcCall], Awaitable[None]]) -> None:
    """A server's handler for one request: refuses what is not our call, else runs `serve`."""
    headers = dict(stream.headers or ())
    kind = headers.get(b"content-type", b"")
    if kind != _CONTENT_TYPE and not kind.startswith((_CONTENT_TYPE + b"+", _CONTENT_TYPE + b";")):
        stream.send_headers([(b":status", b"415"), (b"accept-post", _CONTENT_TYPE)], end=True)
        return
    if headers.get(b":path") != PATH:
        _refuse(stream, b"no such method")
        return
    encoding = headers.get(b"grpc-encoding", b"identity")
    if encoding not in (b"identity", b"gzip"):
        _refuse(stream, b"no such grpc-encoding", _ACCEPT)
        return
    stream.send_headers([(b":status", b"200"), (b"content-type", _CONTENT_TYPE), _ACCEPT])
    await serve(GrpcCall(stream, server=True, gzip=encoding == b"gzip"))


@asynccontextmanager
async def dial(stream: ByteStream, authority: str, path: bytes = PATH) -> AsyncIterator[GrpcCall]:
    """The client's side: a connection with the one call on it, over `stream`, which it owns.

    The call may be used once the server's headers are there. Raises StreamReset if they do not come
    or say no. On leaving, the call and the connection end; after Cancelled they are reset.
    """
    connection = Http2Connection(stream, client=True)
    failure: StreamReset | Fault | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.run)
        try:
            http_stream = connection.open_stream(_request(authority, path))
            with trio.move_on_after(RESPONSE_TIMEOUT) as waiting:
                headers = dict(await http_stream.wait_headers())
            if waiting.cancelled_caught:
                raise StreamReset("the server did not answer the call in time")
            yield GrpcCall(http_stream, server=False, gzip=_check_response(headers))
            connection.forget(http_stream)
        except (StreamReset, Fault) as error:
            failure = error  # raised outside, since a nursery would wrap it in a group
        connection.close()
    if failure is not None:
        raise failure


def _request(authority: str, path: bytes) -> Headers:
    return (
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":authority", authority.encode()),
        (b":path", path),
        (b"te", b"trailers"),
        (b"content-type", _CONTENT_TYPE),
        _ACCEPT,
        (b"user-agent", f"kaspa-appliance/{__version__}".encode()),
    )


def _check_response(headers: dict[bytes, bytes]) -> bool:
    """Whether the server's messages may be gzip. Raises StreamReset if it refuses the call."""
    status = headers.get(b":status", b"")
    if status != b"200":
        raise StreamReset(f"HTTP status {status[:8].decode('ascii', 'replace')}")
    if not headers.get(b"content-type", b"").startswith(_CONTENT_TYPE):
        raise StreamReset("the server does not speak gRPC")
    encoding = headers.get(b"grpc-encoding", b"identity")
    if encoding not in (b"identity", b"gzip"):
        raise RemoteProtocolError(Reason.MALFORMED_MESSAGE, "an encoding that we did not offer")
    return encoding == b"gzip"


def _refuse(stream: Http2Stream, message: bytes, *more: tuple[bytes, bytes]) -> None:
    stream.send_headers(
        [
            (b":status", b"200"),
            (b"content-type", _CONTENT_TYPE),
            (b"grpc-status", b"%d" % _UNIMPLEMENTED),
            (b"grpc-message", message),
            *more,
        ],
        end=True,
    )
