"""The HTTP/2 driver against h2 driven by hand: slow, greedy, broken and hostile peers."""

from __future__ import annotations

import functools
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from ipaddress import IPv4Address
from typing import Any

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings
import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.errors import StreamReset
from appliance.network import Endpoint, Network
from appliance.node import grpc, http2
from appliance.node.embedded import EmbeddedNode
from appliance.node.http2_stream import Http2Stream
from appliance.wire import grpc_frames
from appliance.wire.kaspa_messages import NetAddress, Ready, RequestAddresses, Verack
from tests.node.peers import ANY, STRANGER, MemoryStream, journal, memory_pair, says

REQUEST = [
    (":method", "POST"),
    (":scheme", "http"),
    (":authority", "node"),
    (":path", "/protowire.P2P/MessageStream"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
]
REMOTE = Endpoint("203.0.113.2", 40000)


class Hand:
    """One end of an HTTP/2 connection, moved frame by frame."""

    def __init__(self, stream: MemoryStream, *, client: bool = True) -> None:
        self.stream = stream
        self.h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=client, header_encoding="utf-8")
        )
        self.h2.initiate_connection()
        self.events: list[h2.events.Event] = []

    async def flush(self) -> None:
        await self.stream.send_all(self.h2.data_to_send())

    async def request(self, headers: Sequence[tuple[str, str]] = REQUEST) -> int:
        stream_id = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream_id, list(headers))
        await self.flush()
        return stream_id

    async def say(self, stream_id: int, *messages: bytes) -> None:
        for message in messages:
            self.h2.send_data(stream_id, grpc_frames.encode(message))
        await self.flush()

    async def hear(self, until: Callable[[h2.events.Event], bool]) -> h2.events.Event | None:
        """Read, and give credit back, up to an event; None if the connection ended before."""
        seen = 0
        while True:
            for event in self.events[seen:]:
                if until(event):
                    return event
            seen = len(self.events)
            try:
                data = await self.stream.receive_some()
                if not data:
                    return None
                for event in self.h2.receive_data(data):
                    if isinstance(event, h2.events.DataReceived):
                        credit = event.flow_controlled_length
                        self.h2.acknowledge_received_data(credit, event.stream_id)
                    self.events.append(event)
                await self.flush()
            except StreamReset:
                return None

    async def hear_a(self, kind: type[h2.events.Event]) -> Any:
        return await self.hear(lambda event: isinstance(event, kind))


@asynccontextmanager
async def served(**options: Any) -> AsyncIterator[Hand]:
    """A node, and a hand-driven client of it."""
    left, right = memory_pair()
    node = EmbeddedNode(Network.SIMNET, ANY, **options)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.serve_stream, right, REMOTE)
        yield Hand(left)
        left.reset()


def status_of(event: Any) -> dict[str, str]:
    return dict(event.headers)


async def test_headers_come_before_any_message() -> None:
    async with served() as hand:
        await hand.request()
        response = status_of(await hand.hear_a(h2.events.ResponseReceived))
        assert response[":status"] == "200"
        assert response["content-type"] == "application/grpc"


@pytest.mark.parametrize("kind", ["text/html", "application/grpc-web", "application/json", None])
async def test_what_is_not_grpc_is_415(kind: str | None) -> None:
    headers = [pair for pair in REQUEST if pair[0] != "content-type"]
    async with served() as hand:
        await hand.request([*headers, ("content-type", kind)] if kind else headers)
        response = await hand.hear_a(h2.events.ResponseReceived)
        assert status_of(response)[":status"] == "415"
        assert await hand.hear_a(h2.events.StreamEnded)


@pytest.mark.parametrize("kind", ["application/grpc+proto", "application/grpc;charset=utf-8"])
async def test_other_names_for_grpc_are_grpc(kind: str) -> None:
    async with served() as hand:
        await hand.request([*REQUEST[:-1], ("content-type", kind)])
        assert status_of(await hand.hear_a(h2.events.ResponseReceived))[":status"] == "200"


async def test_an_unknown_path_is_status_12_in_the_headers() -> None:
    async with served() as hand:
        await hand.request([*REQUEST[:3], (":path", "/x"), *REQUEST[4:]])
        response = status_of(await hand.hear_a(h2.events.ResponseReceived))
        assert response[":status"] == "200"
        assert response["grpc-status"] == "12"


async def test_the_end_is_a_trailer_with_status_0() -> None:
    async with served() as hand:
        stream_id = await hand.request()
        await hand.hear_a(h2.events.ResponseReceived)
        hand.h2.end_stream(stream_id)
        await hand.flush()
        assert status_of(await hand.hear_a(h2.events.TrailersReceived)) == {"grpc-status": "0"}


async def test_a_peer_that_says_nothing_gets_four_seconds(
    autojump_clock: trio.testing.MockClock,
) -> None:
    with journal() as log:
        async with served() as hand:
            await hand.request()
            began = trio.current_time()
            assert await hand.hear_a(h2.events.TrailersReceived)
            assert 4 <= trio.current_time() - began < 5
    (gone,) = log.all("kaspa_disconnected")
    assert gone["reason"] == "kaspa-timeout"


async def test_a_peer_that_drips_bytes_gets_no_longer(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with served() as hand:
        stream_id = await hand.request()
        frame = grpc_frames.encode(says(STRANGER))
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hand.hear_a, h2.events.TrailersReceived)
            for byte in frame[:9]:
                hand.h2.send_data(stream_id, bytes([byte]))
                await hand.flush()
                await trio.sleep(0.44)
        assert trio.current_time() - began < 5


async def test_a_peer_that_stops_reading_costs_bounded_memory_and_is_left() -> None:
    known = [NetAddress(ip=IPv4Address(0x0B000000 + n), port=16111) for n in range(1000)]
    with journal() as log:
        async with served(known=known) as hand:
            stream_id = await hand.request()
            await hand.say(stream_id, says(STRANGER), says(Verack()), says(Ready()))
            # Asks for 2.4 MB, and reads nothing of it.
            for _ in range(150):
                await hand.say(stream_id, says(RequestAddresses()))
                await trio.testing.wait_all_tasks_blocked()
            (gone,) = await log.wait("kaspa_disconnected")
    assert gone["detail"] == "the peer asks faster than it reads"


async def test_control_frames_that_nobody_reads_answers_to_end_the_connection() -> None:
    left, right = memory_pair()
    blocked = trio.Event()

    async def never(data: bytes | bytearray | memoryview) -> None:
        blocked.set()
        await trio.sleep_forever()

    right.send_all = never  # type: ignore[method-assign] # a peer that stalls
    node = EmbeddedNode(Network.SIMNET, ANY)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.serve_stream, right, REMOTE)
        await blocked.wait()
        hand = Hand(left)
        sent = 0
        while not right.was_reset:
            for _ in range(1000):
                hand.h2.ping(b"12345678")
            sent += 1000
            await hand.flush()
            await trio.testing.wait_all_tasks_blocked()
            assert sent * 17 < 4 * http2.MAX_UNSENT


async def test_only_a_few_streams_at_once() -> None:
    async with served() as hand:
        await hand.request()
        await hand.hear_a(h2.events.ResponseReceived)
        assert hand.h2.remote_settings.max_concurrent_streams == http2.MAX_STREAMS
        for _ in range(http2.MAX_STREAMS - 1):
            await hand.request()
        await hand.hear(
            lambda _: (
                sum(isinstance(e, h2.events.ResponseReceived) for e in hand.events)
                == http2.MAX_STREAMS
            )
        )


async def test_a_client_that_opens_and_resets_streams_is_sent_away() -> None:
    async with served() as hand:
        for _ in range(http2.MAX_STREAMS_EVER + 1):
            stream_id = await hand.request()
            hand.h2.reset_stream(stream_id)
            await hand.flush()
            await trio.testing.wait_all_tasks_blocked()
            hand.h2.receive_data(await hand.stream.receive_some())
        assert hand.h2.state_machine.state is h2.connection.ConnectionState.CLOSED


async def test_a_connection_without_a_stream_is_closed_in_peace(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with served() as hand:
        await hand.flush()
        began = trio.current_time()
        goodbye = await hand.hear_a(h2.events.ConnectionTerminated)
        assert goodbye.error_code == h2.errors.ErrorCodes.NO_ERROR
        assert trio.current_time() - began == pytest.approx(http2.IDLE_TIMEOUT, abs=1)


async def test_a_reset_ends_the_session_and_not_the_connection() -> None:
    with journal() as log:
        async with served() as hand:
            stream_id = await hand.request()
            await hand.hear_a(h2.events.ResponseReceived)
            hand.h2.reset_stream(stream_id, h2.errors.ErrorCodes.CANCEL)
            await hand.flush()
            (gone,) = await log.wait("kaspa_disconnected")
            assert gone["reason"] == "connection-lost"
            hand.events.clear()
            await hand.request()
            assert await hand.hear_a(h2.events.ResponseReceived)


async def test_a_goaway_ends_the_sessions() -> None:
    with journal() as log:
        async with served() as hand:
            await hand.request()
            await hand.hear_a(h2.events.ResponseReceived)
            hand.h2.close_connection()
            await hand.flush()
            (gone,) = await log.wait("kaspa_disconnected")
    assert "GOAWAY" in gone["detail"]


async def test_a_handler_that_does_not_read_holds_at_most_a_window() -> None:
    left, right = memory_pair()
    connection = http2.Http2Connection(right, client=False)

    async def idle(_: Http2Stream) -> None:
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.run, idle)
        hand = Hand(left)
        await hand.hear_a(h2.events.RemoteSettingsChanged)
        stream_id = await hand.request()
        # Forget what the peer allows: send one window, and then a little more.
        hand.h2.outbound_flow_control_window = 1 << 30
        hand.h2.streams[stream_id].outbound_flow_control_window = 1 << 30
        for _ in range(http2.WINDOW // 16384 + 1):
            hand.h2.send_data(stream_id, bytes(16384))
        await hand.flush()
        goodbye = await hand.hear_a(h2.events.ConnectionTerminated)
        assert goodbye.error_code == h2.errors.ErrorCodes.FLOW_CONTROL_ERROR
        nursery.cancel_scope.cancel()


# --- as a client


@asynccontextmanager
async def dialled() -> AsyncIterator[tuple[Hand, list[BaseException]]]:
    """A hand-driven server, and what `grpc.dial` raised."""
    left, right = memory_pair()
    raised: list[BaseException] = []

    async def dial() -> None:
        try:
            async with grpc.dial(left, "node:1") as call:
                while await call.receive() is not None:
                    pass
        except StreamReset as error:
            raised.append(error)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(dial)
        yield Hand(right, client=False), raised
        right.reset()


async def test_what_a_server_sees_of_us() -> None:
    async with dialled() as (hand, _):
        request = await hand.hear_a(h2.events.RequestReceived)
        headers = dict(request.headers)
        assert headers[":method"] == "POST"
        assert headers[":path"] == "/protowire.P2P/MessageStream"
        assert headers["te"] == "trailers"
        assert headers["content-type"] == "application/grpc"
        assert hand.h2.remote_settings.enable_push == 0


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ([(":status", "404")], "HTTP status 404"),
        ([(":status", "200"), ("content-type", "text/html")], "does not speak gRPC"),
        (
            [(":status", "200"), ("content-type", "application/grpc"), ("grpc-status", "12")],
            "gRPC status 12",
        ),
    ],
)
async def test_a_server_that_says_no(headers: list[tuple[str, str]], said: str) -> None:
    async with dialled() as (hand, raised):
        request = await hand.hear_a(h2.events.RequestReceived)
        hand.h2.send_headers(request.stream_id, headers, end_stream=True)
        await hand.flush()
        await hand.hear(lambda _: False)
    assert said in str(raised[0])


async def test_a_server_that_never_answers_gets_ten_seconds(
    autojump_clock: trio.testing.MockClock,
) -> None:
    began = trio.current_time()
    async with dialled() as (hand, raised):
        await hand.hear(lambda _: False)
    assert "in time" in str(raised[0])
    assert 10 <= trio.current_time() - began < 13


async def test_an_end_without_trailers_is_not_a_clean_end() -> None:
    async with dialled() as (hand, raised):
        request = await hand.hear_a(h2.events.RequestReceived)
        headers = [(":status", "200"), ("content-type", "application/grpc")]
        hand.h2.send_headers(request.stream_id, headers)
        hand.h2.send_data(request.stream_id, grpc_frames.encode(says(RequestAddresses()))[:4])
        await hand.flush()
        await hand.stream.send_eof()
        await hand.hear(lambda _: False)
    assert raised


# --- anything at all


async def feed(chunks: Sequence[bytes], *, client: bool) -> None:
    left, right = memory_pair()
    node = EmbeddedNode(Network.SIMNET, ANY)

    async def serve() -> None:
        if client:
            with suppress(StreamReset):
                await node.dial_stream(right, REMOTE)
        else:
            await node.serve_stream(right, REMOTE)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        with suppress(StreamReset):
            for chunk in chunks:
                await left.send_all(chunk)
            await left.send_eof()
        with trio.move_on_after(30), suppress(StreamReset):
            while await left.receive_some():
                pass
        left.reset()


def in_virtual_time(chunks: Sequence[bytes], *, client: bool) -> None:
    clock = trio.testing.MockClock(autojump_threshold=0)
    trio.run(functools.partial(feed, chunks, client=client), clock=clock)


def conversation() -> bytes:
    """What a well-behaved client sends in a whole handshake."""
    hand = Hand(memory_pair()[0])
    hand.h2.send_headers(1, REQUEST)
    for payload in (STRANGER, Verack()):
        hand.h2.send_data(1, grpc_frames.encode(says(payload)))
    hand.h2.send_data(1, grpc_frames.encode(bytes.fromhex("920300")), end_stream=True)
    return hand.h2.data_to_send()


@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@given(st.lists(st.binary(max_size=200), max_size=4), st.booleans(), st.booleans())
def test_garbage_never_breaks_the_node(chunks: list[bytes], preface: bool, client: bool) -> None:
    if preface:
        chunks = [conversation()[: 24 + 30], *chunks]
    in_virtual_time(chunks, client=client)


@settings(max_examples=300, suppress_health_check=list(HealthCheck))
@given(st.randoms(use_true_random=False), st.booleans())
def test_a_damaged_conversation_never_breaks_the_node(rng: random.Random, client: bool) -> None:
    data = bytearray(conversation())
    for _ in range(rng.randint(1, 4)):
        data[rng.randrange(24, len(data))] ^= 1 << rng.randrange(8)
    in_virtual_time([bytes(data[24:] if client else data)], client=client)
