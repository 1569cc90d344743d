"""Peers for the node's tests: log capture, streams without a network, and grpcio as a stranger."""

from __future__ import annotations

import logging
import queue
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import grpc
import trio
import trio.testing

from appliance.errors import StreamReset
from appliance.events import FIELDS
from appliance.network import Endpoint, Network
from appliance.node.embedded import EmbeddedNode
from appliance.wire import kaspa_codec
from appliance.wire.kaspa_messages import Message, Payload, Ready, Verack, Version

PATH = "/protowire.P2P/MessageStream"
ANY = Endpoint("127.0.0.1", 0)
STRANGER = Version(
    protocol_version=10,
    network="kaspa-simnet",
    peer_id=b"s" * 16,
    user_agent="/kaspad:1.1.0/kaspad:1.1.0/",
    timestamp_ms=1,
)


class Journal(logging.Handler):
    """The events that the node logs."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.events: list[dict[str, Any]] = []
        self._arrived = trio.lowlevel.ParkingLot()

    def emit(self, record: logging.LogRecord) -> None:
        fields = getattr(record, FIELDS, {})
        self.events.append({"event": record.getMessage(), "logger": record.name, **fields})
        self._arrived.unpark_all()

    def all(self, event: str) -> list[dict[str, Any]]:
        return [entry for entry in self.events if entry["event"] == event]

    async def wait(self, event: str, count: int = 1, within: float = 20) -> list[dict[str, Any]]:
        """The first `count` events of that name, as soon as they are there."""
        with trio.fail_after(within):
            while len(self.all(event)) < count:
                await self._arrived.park()
        return self.all(event)[:count]


@contextmanager
def journal() -> Iterator[Journal]:
    logger = logging.getLogger("appliance.node")
    handler, level = Journal(), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield handler
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


@asynccontextmanager
async def running(
    *addpeers: Endpoint, network: Network = Network.SIMNET, **options: Any
) -> AsyncIterator[tuple[EmbeddedNode, Endpoint]]:
    """A node on a free loopback port, and where it listens; stopped in peace at the end."""
    node = EmbeddedNode(network, ANY, addpeers, **options)
    async with trio.open_nursery() as nursery:
        bound = await nursery.start(node.run)
        yield node, bound
        nursery.cancel_scope.cancel()


class MemoryStream:
    """One end of `memory_pair` as a ByteStream."""

    def __init__(self, stream: trio.StapledStream[Any, Any]) -> None:
        self._stream = stream
        self.partner: MemoryStream | None = None
        self.was_reset = False

    async def receive_some(self, max_bytes: int = 65536) -> bytes:
        try:
            data = bytes(await self._stream.receive_some(max_bytes))
        except (trio.ClosedResourceError, trio.BrokenResourceError) as error:
            raise StreamReset("reset") from error
        if self.was_reset:
            raise StreamReset("reset")
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        try:
            await self._stream.send_all(data)
        except (trio.ClosedResourceError, trio.BrokenResourceError) as error:
            raise StreamReset("reset") from error

    async def send_eof(self) -> None:
        try:
            await self._stream.send_eof()
        except (trio.ClosedResourceError, trio.BrokenResourceError) as error:
            raise StreamReset("reset") from error

    def reset(self) -> None:
        for end in (self, self.partner):
            assert end is not None
            end.was_reset = True
            for half in (end._stream.send_stream, end._stream.receive_stream):
                half.close()

    async def aclose(self) -> None:
        await self._stream.aclose()


def memory_pair() -> tuple[MemoryStream, MemoryStream]:
    """Two ends of a connection that needs no operating system, for tests in virtual time."""
    left, right = (MemoryStream(stream) for stream in trio.testing.memory_stream_pair())
    left.partner, right.partner = right, left
    return left, right


def says(payload: Payload) -> bytes:
    return kaspa_codec.encode(Message(payload))


def _same(data: bytes) -> bytes:
    return data


class GrpcioCall:
    """A Kaspa stream as grpcio carries it, from either side; blocking, for use in a thread."""

    def __init__(self) -> None:
        self.outgoing: queue.Queue[bytes | None] = queue.Queue()
        self.incoming: Iterator[bytes] = iter(())

    def send(self, payload: Payload) -> None:
        self.outgoing.put(says(payload))

    def receive(self) -> Payload:
        return kaspa_codec.decode(next(self.incoming)).payload

    def shake_hands(self, version: Version = STRANGER) -> Version:
        """As a stock node. Returns what the peer said of itself."""
        self.send(version)
        heard = [self.receive()]
        self.send(Verack())
        heard.append(self.receive())
        theirs = next(payload for payload in heard if isinstance(payload, Version))
        assert Verack() in heard
        self.send(Ready())
        assert self.receive() == Ready()
        return theirs

    def requests(self) -> Iterator[bytes]:
        return iter(self.outgoing.get, None)


@contextmanager
def grpcio_client(
    target: Endpoint, path: str = PATH, compression: grpc.Compression | None = None
) -> Iterator[tuple[GrpcioCall, Any]]:
    """grpcio dials; the second value is its call object."""
    with grpc.insecure_channel(str(target), compression=compression) as channel:
        stream = channel.stream_stream(path, _same, _same)
        call = GrpcioCall()
        rpc = stream(call.requests(), timeout=30)
        call.incoming = iter(rpc)
        try:
            yield call, rpc
        finally:
            call.outgoing.put(None)
            rpc.cancel()


@contextmanager
def grpcio_server(
    talk: Callable[[GrpcioCall], None], compression: grpc.Compression | None = None
) -> Iterator[Endpoint]:
    """grpcio serves: `talk` is called in a thread for each stream, and ends it by returning."""

    def serve(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        # kaspad's headers go out at once, before any message.
        context.send_initial_metadata(())
        call = GrpcioCall()
        call.incoming = requests

        def run() -> None:
            try:
                talk(call)
            except (StopIteration, grpc.RpcError):
                pass
            finally:
                call.outgoing.put(None)

        with ThreadPoolExecutor(1) as talking:
            talking.submit(run)
            yield from call.requests()

    handler = grpc.method_handlers_generic_handler(
        "protowire.P2P",
        {"MessageStream": grpc.stream_stream_rpc_method_handler(serve, _same, _same)},
    )
    server = grpc.server(ThreadPoolExecutor(4), compression=compression)
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield Endpoint("127.0.0.1", port)
    finally:
        server.stop(None).wait()
