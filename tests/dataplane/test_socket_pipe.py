"""The last yards to the node: a muxed stream and a real socket, joined."""

from __future__ import annotations

import random
import socket
import tracemalloc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio

from appliance.dataplane.muxstream import MuxStream
from appliance.dataplane.pipe import PipeCounts, PipeEnd
from appliance.dataplane.socketpipe import Agree, socket_pipe
from appliance.dataplane.tcp import TcpStream
from appliance.dataplane.windows import INITIAL_WINDOW, MAX_WINDOW
from appliance.errors import RemoteProtocolError, StreamReset
from appliance.reasons import Reason
from appliance.units import KIB, MIB
from appliance.wire import multistream
from tests.dataplane.carriers import MemoryCarrier
from tests.dataplane.chains import until
from tests.dataplane.frames import data
from tests.dataplane.sessions import (
    End,
    exchange,
    read_to_end,
    say,
    settle,
    stream_pair,
    two_ends,
)

PAYLOAD = random.Random(13).randbytes(4 * MIB)
CLEAN = PipeEnd(clean=True)
PROTOCOL = "/kaspad/transport/1.0.0"
AGREED = multistream.line(multistream.HEADER) + multistream.line(PROTOCOL)


@dataclass
class Piped:
    """What is at both ends of a running pipe."""

    node: TcpStream
    peer: MuxStream
    near: End
    far: End
    inner: TcpStream
    stream: MuxStream
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    counts: PipeCounts = field(default_factory=PipeCounts)
    end: PipeEnd | None = None
    fault: RemoteProtocolError | None = None
    over: trio.Event = field(default_factory=trio.Event)
    first_backward: int = 0


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def socket_pair(*, buffer: int | None = None) -> tuple[TcpStream, TcpStream]:
    """Ours and the node's; `buffer` bounds what the kernel keeps for the node."""
    with socket.socket() as listener:
        if buffer:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        ours = trio.socket.socket()
        if buffer:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
        await ours.connect(listener.getsockname())
        theirs, _ = listener.accept()
    theirs.setblocking(False)
    return TcpStream(ours), TcpStream(trio.socket.from_stdlib_socket(theirs))


async def fill(sock: TcpStream) -> None:
    """Until the kernel has no room for more, however often it is asked."""
    refused = 0
    while refused < 50:
        sock.send_nowait(memoryview(bytes(4 * KIB)))
        refused = refused + 1 if sock.sending else 0
        sock._unsent = memoryview(b"")
        await trio.lowlevel.checkpoint()


@asynccontextmanager
async def piped(
    *,
    segments: list[int] | None = None,
    capacity: int = 1 << 30,
    buffer: int | None = None,
    leftover: bytes = b"",
    agree: Agree | None = None,
    before: Callable[[MuxStream], None] = lambda _: None,
) -> AsyncIterator[Piped]:
    """`before` is told of the peer's stream before the pipe begins."""
    files = open_files()
    async with two_ends(segments=segments, capacity=capacity) as (near, far):
        inner, node = await socket_pair(buffer=buffer)
        peer, stream = await stream_pair(far, near)
        before(peer)
        await settle()
        state = Piped(node, peer, near, far, inner, stream)

        def first() -> None:
            state.first_backward += 1

        async def run() -> None:
            try:
                with state.scope:
                    state.end = await socket_pipe(
                        inner,
                        stream,
                        state.counts,
                        leftover=leftover,
                        agree=agree,
                        on_first_backward=first,
                    )
            except RemoteProtocolError as fault:
                state.fault = fault
            state.over.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            await settle()
            yield state
            with trio.fail_after(20):
                await state.over.wait()
        assert state.inner._sock.fileno() == -1, "the socket is let go in any case"
        assert near.session.unread == near.session.plane.unread == 0
        await settle()
        assert not near.session._streams
        node.reset()
    assert open_files() == files


@pytest.mark.parametrize(
    ("capacity", "segments", "buffer", "size"),
    [
        (1 << 30, None, None, 4 * MIB),
        (1 << 30, None, 4 * KIB, 2 * MIB),
        (7, [1, 13], None, 500),
        (5_000, [1, 4_000, 12], 4 * KIB, 200_000),
        (300_000, [70_000, 3], None, 2 * MIB),
    ],
)
async def test_bytes_and_ends_of_file_both_ways(
    capacity: int, segments: list[int] | None, buffer: int | None, size: int
) -> None:
    async with piped(capacity=capacity, segments=segments, buffer=buffer) as state:
        await exchange(state.node, state.peer, PAYLOAD[:size], PAYLOAD[-size:])
    assert state.end == CLEAN
    assert (state.counts.forward, state.counts.backward) == (size, size)
    assert state.first_backward == 1


@pytest.mark.parametrize("first", ["node", "peer"])
async def test_a_half_closed_pipe_carries_on(first: str) -> None:
    async with piped() as state:
        early, late = (state.node, state.peer) if first == "node" else (state.peer, state.node)
        await say(early, b"question")
        assert await read_to_end(late) == b"question"
        await settle()
        assert state.end is None
        for number in range(20):
            await late.send_all(bytes([number]) * 30_000)
            got = b""
            while len(got) < 30_000:
                got += await early.receive_some()
            assert got == bytes([number]) * 30_000
        await late.send_eof()
        assert await read_to_end(early) == b""
    assert state.end == CLEAN


@pytest.mark.parametrize("when", ["at once", "after bytes", "after the other end", "stalled"])
@pytest.mark.parametrize("side", ["node", "peer"])
async def test_a_reset_goes_through_at_any_moment(side: str, when: str) -> None:
    async with piped(buffer=4 * KIB) as state, trio.open_nursery() as nursery:
        here, there = (state.node, state.peer) if side == "node" else (state.peer, state.node)
        match when:
            case "after bytes":
                await here.send_all(b"x")
                assert await there.receive_some() == b"x"
            case "after the other end":
                await there.send_eof()
                assert await here.receive_some() == b""
            case "stalled":
                # The node does not read: what the peer sends is in the way of nobody's reset.
                nursery.start_soon(send_until_reset, state.peer)
                await until(lambda: state.inner.sending)
        await settle()
        here.reset()
        await state.over.wait()
        with pytest.raises(StreamReset):
            await read_to_end(there)
    assert state.end == PipeEnd(clean=False, reset_by="left" if side == "node" else "right")


async def send_until_reset(stream: MuxStream) -> None:
    try:
        while True:
            await stream.send_all(bytes(100_000))
    except StreamReset:
        pass


async def test_a_peer_that_resets_behind_its_end_is_heard() -> None:
    async with piped() as state:
        await state.peer.send_eof()
        assert await state.node.receive_some() == b""
        state.peer.reset()
        await state.over.wait()
        # The node has read to the end: its kernel tells it when it writes.
        with pytest.raises(StreamReset):
            await state.node.send_all(b"anybody there?")
    assert state.end == PipeEnd(clean=False, reset_by="right")


@pytest.mark.parametrize("unread", [False, True])
async def test_a_node_that_dies_is_noticed(unread: bool) -> None:
    """Killed, with bytes that it had not read: the kernel says reset for it."""
    async with piped() as state:
        if unread:
            await state.peer.send_all(b"unread")
            await until(lambda: state.counts.backward == 6)
            state.node._sock.close()
            with pytest.raises(StreamReset):
                await read_to_end(state.peer)
        else:
            state.node._sock.close()
            assert await state.peer.receive_some() == b""
            # It looks like a half-close until something is written to it.
            with pytest.raises(StreamReset):  # noqa: PT012 - whichever send it is
                while True:
                    await state.peer.send_all(b"anybody there?")
                    await trio.lowlevel.checkpoint()
    assert state.end == PipeEnd(clean=False, reset_by="left")


@pytest.mark.parametrize("busy", [False, True])
@pytest.mark.parametrize("how", ["the peer aborts", "we abort", "the carrier dies"])
async def test_the_connection_of_the_stream_may_die(how: str, busy: bool) -> None:
    async with piped(buffer=4 * KIB) as state, trio.open_nursery() as nursery:
        if busy:
            nursery.start_soon(send_until_reset, state.peer)
            await until(lambda: state.inner.sending)
            await state.node.send_all(bytes(1000))
        match how:
            case "the peer aborts":
                state.far.session.abort(Reason.SHUTTING_DOWN)
            case "we abort":
                state.near.session.abort(Reason.SHUTTING_DOWN)
            case "the carrier dies":
                assert isinstance(state.near.carrier, MemoryCarrier)
                state.near.carrier.reset()
        await state.over.wait()
        with pytest.raises(StreamReset):
            await read_to_end(state.node)
    assert state.end == PipeEnd(clean=False, reset_by="right")


async def test_a_node_that_does_not_read_holds_the_peer_back() -> None:
    async with piped(buffer=4 * KIB) as state, trio.open_nursery() as nursery:
        sent = 0

        async def send() -> None:
            nonlocal sent
            while sent < len(PAYLOAD):
                await state.peer.send_all(PAYLOAD[sent : sent + 50_000])
                sent += 50_000
            await state.peer.send_eof()

        nursery.start_soon(send)
        await settle(3000)
        assert state.inner.sending
        held = state.near.session.unread
        assert 0 < held <= MAX_WINDOW
        assert sent < len(PAYLOAD)
        await settle(3000)
        assert state.near.session.unread == held, "it stands still"
        # Another stream of the same connection does not notice.
        other, accepted = await stream_pair(state.far, state.near)
        await say(other, b"hello")
        assert await read_to_end(accepted) == b"hello"
        accepted.half_close()
        assert await read_to_end(state.node) == PAYLOAD
        await state.node.send_eof()
        assert await read_to_end(state.peer) == b""
    assert state.end == CLEAN


async def test_a_peer_that_does_not_read_holds_the_node_back() -> None:
    async with piped() as state, trio.open_nursery() as nursery:
        nursery.start_soon(say, state.node, PAYLOAD)
        await until(lambda: state.counts.forward == INITIAL_WINDOW)
        await settle(500)
        assert state.counts.forward == INITIAL_WINDOW
        assert len(state.stream.head) <= 256 * KIB
        assert await read_to_end(state.peer) == PAYLOAD
        await state.peer.send_eof()
    assert state.end == CLEAN


async def test_single_bytes_for_a_stalled_node_cost_about_what_they_weigh() -> None:
    async with piped(buffer=4 * KIB) as state:
        carrier = state.near.carrier
        await state.peer.send_all(bytes(200_000))
        await until(lambda: state.inner.sending)
        await settle()
        held, count = state.near.session.unread, 3000
        assert held > 100_000
        wire = data(state.stream.stream_id, b"!") * count
        carrier._segment = lambda: 13
        tracemalloc.start()
        try:
            carrier._in.buffer += wire
            carrier._in.touch()
            before = tracemalloc.get_traced_memory()[0] - len(wire)
            await until(lambda: not carrier._in.buffer)
            await settle()
            cost = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
        assert state.near.session.unread == held + count
        assert cost < 50_000, "an entry for each would be 600,000"
        state.node.reset()
        await state.over.wait()
