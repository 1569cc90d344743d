"""GET /metrics over HTTP/1.1, and nothing else."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from typing import Final

import h11
import trio

from appliance.errors import ApplianceError
from appliance.events import FIELDS
from appliance.network import Endpoint
from appliance.operate.metrics import MetricsSnapshot, expose

_log = logging.getLogger(__name__)

MAX_HEAD: Final = 8 * 1024  # bytes of a request's line and headers
MAX_CLIENTS: Final = 8  # where no plan says
DEADLINE: Final = 10.0  # seconds from accept to the last byte
_LINGER: Final = 1.0  # seconds to read what a client still sends, so that it gets our answer
_CONTENT_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"


async def serve(
    endpoint: Endpoint,
    collect: Callable[[], MetricsSnapshot],
    *,
    clients: int = MAX_CLIENTS,
    task_status: trio.TaskStatus[Endpoint] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled; started with the endpoint in use (port 0 picks a free one).

    `collect` is called once per scrape and must not block. `clients` are served at once; one more
    is closed unheard. Raises ApplianceError if the address
    cannot be listened on.
    """
    try:
        listeners = await trio.open_tcp_listeners(endpoint.port, host=endpoint.host, backlog=16)
    except OSError as error:
        in_use = error.errno == errno.EADDRINUSE
        raise ApplianceError(
            f"metrics.listen: {endpoint} {'is in use' if in_use else 'is not to be had here'}",
            hint="choose another port, or `listen: off`",
        ) from None
    port = listeners[0].socket.getsockname()[1]
    server = _Server(collect, clients)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, server.client, listeners)
        task_status.started(Endpoint(endpoint.host, port))


class _Server:
    def __init__(self, collect: Callable[[], MetricsSnapshot], most: int) -> None:
        self._collect = collect
        self._most = most
        self._clients = 0

    async def client(self, stream: trio.SocketStream) -> None:
        """One connection, one request. Raises nothing but Cancelled."""
        self._clients += 1
        try:
            async with stream:
                if self._clients <= self._most:
                    with trio.move_on_after(DEADLINE):
                        await self._exchange(stream)
        except trio.BrokenResourceError:
            pass
        finally:
            self._clients -= 1

    async def _exchange(self, stream: trio.SocketStream) -> None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        try:
            request = await _next_request(connection, stream)
        except h11.RemoteProtocolError as error:
            await _respond(connection, stream, error.error_status_hint)
            return
        if request is None:
            return
        head_only = request.method == b"HEAD"
        if request.target.split(b"?")[0] != b"/metrics":
            await _respond(connection, stream, 404, head_only=head_only)
        elif request.method not in (b"GET", b"HEAD"):
            await _respond(connection, stream, 405, allow=True)
        else:
            try:
                body = expose(self._collect())
            except Exception:  # noqa: BLE001 - logged with all it knows
                # Stopped here: a fault in counting must not end the daemon.
                _log.exception("metrics_fault", extra={FIELDS: {}})
                await _respond(connection, stream, 500, head_only=head_only)
                return
            await _respond(connection, stream, 200, body, head_only=head_only)


async def _next_request(
    connection: h11.Connection, stream: trio.SocketStream
) -> h11.Request | None:
    """The request's head; its body, if any, is never read. None if the client left."""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await stream.receive_some(MAX_HEAD))
        elif isinstance(event, h11.Request):
            return event
        else:
            return None


_PHRASES: Final = {200: b"OK", 404: b"Not Found", 405: b"Method Not Allowed", 500: b"Fault"}


async def _respond(
    connection: h11.Connection,
    stream: trio.SocketStream,
    status: int,
    body: bytes | None = None,
    *,
    allow: bool = False,
    head_only: bool = False,
) -> None:
    phrase = _PHRASES.get(status, b"Bad Request")
    payload = phrase + b"\n" if body is None else body
    headers = [
        (b"content-type", _CONTENT_TYPE if body is not None else b"text/plain"),
        (b"content-length", str(len(payload)).encode("ascii")),
        (b"connection", b"close"),
        *([(b"allow", b"GET, HEAD")] if allow else []),
    ]
    response = h11.Response(status_code=status, headers=headers, reason=phrase)
    out = connection.send(response) or b""
    if not head_only:
        out += connection.send(h11.Data(data=payload)) or b""
    out += connection.send(h11.EndOfMessage()) or b""
    await stream.send_all(out)
    await stream.send_eof()
    with trio.move_on_after(_LINGER):
        while await stream.receive_some(MAX_HEAD):
            pass
