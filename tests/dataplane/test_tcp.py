"""TCP sockets as byte streams, on loopback ports that the kernel chose."""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest
import trio
import trio.testing

from appliance.dataplane.streams import BATCH
from appliance.dataplane.tcp import KEEPALIVE_IDLE, USER_TIMEOUT_MS, TcpStream
from appliance.errors import StreamReset
from appliance.network import Endpoint
from tests.dataplane.sessions import read_to_end


async def raw_pair(host: str = "127.0.0.1") -> tuple[trio.socket.SocketType, socket.socket]:
    """A connected trio socket, and the plain socket at its other end."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.bind((host, 0))
        listener.listen(1)
        ours = trio.socket.socket(family)
        await ours.connect(listener.getsockname()[:2])
        theirs, _ = listener.accept()
    return ours, theirs


@asynccontextmanager
async def tcp_pair() -> AsyncIterator[tuple[TcpStream, TcpStream]]:
    ours, theirs = await raw_pair()
    theirs.setblocking(False)
    one, other = TcpStream(ours), TcpStream(trio.socket.from_stdlib_socket(theirs))
    try:
        yield one, other
    finally:
        one.reset()
        other.reset()


async def test_bytes_half_close_and_endpoints() -> None:
    async with tcp_pair() as (one, other):
        assert one.local == other.remote and one.remote == other.local
        await one.send_all(b"question")
        await one.send_eof()
        await one.send_eof()
        assert await read_to_end(other) == b"question"
        await other.send_all(b"answer")
        await other.aclose()
        assert await read_to_end(one) == b"answer"


async def test_a_dead_peer_is_noticed_by_the_kernel() -> None:
    async with tcp_pair() as (one, _):
        option = one._sock.getsockopt
        assert option(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert option(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == KEEPALIVE_IDLE
        assert option(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == USER_TIMEOUT_MS
        assert option(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


async def test_a_reset_is_one_on_the_wire() -> None:
    async with tcp_pair() as (one, other):
        one.reset()
        one.reset()
        with pytest.raises(StreamReset):
            await other.receive_some()
        for operation in (one.receive_some(), one.send_all(b"x"), one.send_eof()):
            with pytest.raises(StreamReset):
                await operation
        await one.aclose()


async def test_a_reset_wakes_who_waits_here() -> None:
    async with tcp_pair() as (one, _), trio.open_nursery() as nursery:
        woken = []

        async def wait() -> None:
            with pytest.raises(StreamReset):
                await one.receive_some()
            woken.append(True)

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        one.reset()
        with trio.fail_after(5):
            while not woken:
                await trio.lowlevel.checkpoint()


async def test_closing_keeps_what_was_sent() -> None:
    async with tcp_pair() as (one, other):
        await one.send_all(bytes(100_000))
        await one.aclose()
        assert len(await read_to_end(other)) == 100_000


async def test_a_socket_that_was_reset_meanwhile_is_not_leaked() -> None:
    """The peer is gone between accept and us: an OSError for the accept loop, and no descriptor."""
    ours, theirs = await raw_pair()
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    theirs.close()
    await trio.lowlevel.wait_readable(ours)
    with pytest.raises(OSError):
        TcpStream(ours)
    assert ours.fileno() == -1


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_endpoints_of_both_families(host: str) -> None:
    ours, theirs = await raw_pair(host)
    with theirs:
        stream = TcpStream(ours)
        assert stream.remote == Endpoint(host, theirs.getsockname()[1])
        await stream.aclose()


async def test_an_ipv4_peer_of_an_ipv6_socket_is_an_ipv4_endpoint() -> None:
    with socket.socket() as listener, trio.socket.socket(socket.AF_INET6) as ours:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        port = listener.getsockname()[1]
        await ours.connect(("::ffff:127.0.0.1", port))
        stream = TcpStream(ours)
        assert stream.remote == Endpoint("127.0.0.1", port)
        stream.reset()


# --- ports that are free again at once


async def test_an_end_that_frees_the_port_loses_no_byte() -> None:
    ours, theirs = await raw_pair()
    theirs.setblocking(False)
    one = TcpStream(ours, frees_port=True)
    other = TcpStream(trio.socket.from_stdlib_socket(theirs))
    payload = bytes(3_000_000)
    got = bytearray()

    async def read() -> None:
        with suppress(StreamReset):
            while data := await other.receive_some():
                got.extend(data)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await one.send_all(payload)
        await one.send_eof()
    other.reset()
    assert got == payload


async def test_the_same_two_ports_can_be_connected_again_at_once() -> None:
    """An ordinary close leaves TIME_WAIT behind, and a dial from the listen port fails for it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = 0
        for _ in range(3):
            sock = trio.socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            await sock.bind(("127.0.0.1", port))
            port = sock.getsockname()[1]
            await sock.connect(listener.getsockname())
            accepted, _ = listener.accept()
            with accepted:
                stream = TcpStream(sock, frees_port=True)
                await stream.send_all(b"goodbye")
                await stream.send_eof()
                assert accepted.recv(64) == b"goodbye"


# --- driven without waiting


@asynccontextmanager
async def narrow_pair() -> AsyncIterator[tuple[TcpStream, TcpStream]]:
    """The first can have little under way: its kernel buffer and its peer's are tiny."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        ours = trio.socket.socket()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        await ours.connect(listener.getsockname())
        theirs, _ = listener.accept()
    theirs.setblocking(False)
    one, other = TcpStream(ours), TcpStream(trio.socket.from_stdlib_socket(theirs))
    try:
        yield one, other
    finally:
        one.reset()
        other.reset()


async def driven_to_end(stream: TcpStream) -> bytes:
    """All bytes up to the end of file, taken like a session takes them."""
    into = memoryview(bytearray(BATCH))
    out = bytearray()
    while True:
        try:
            size = stream.receive_nowait(into)
        except trio.WouldBlock:
            await stream.wait_receivable()
            continue
        if not size:
            return bytes(out)
        out += into[:size]


PAYLOAD = random.Random(6).randbytes(BATCH)


async def test_what_finds_no_room_is_kept_and_drained() -> None:
    async with narrow_pair() as (one, other), trio.open_nursery() as nursery:
        got: list[bytes] = []
        done = trio.Event()

        async def read() -> None:
            got.append(await driven_to_end(other))
            done.set()

        one.send_nowait(memoryview(PAYLOAD))
        assert one.sending
        nursery.start_soon(read)
        for _ in range(3):
            await one.drain()
            assert not one.sending
            batch = bytearray(PAYLOAD)
            one.send_nowait(memoryview(batch))
            batch[:] = bytes(BATCH)  # the buffer was on loan
        await one.send_eof()
        with trio.fail_after(10):
            await done.wait()
        assert got == [PAYLOAD * 4]


async def test_an_end_of_file_behind_kept_bytes_loses_none() -> None:
    async with narrow_pair() as (one, other), trio.open_nursery() as nursery:
        one.send_nowait(memoryview(PAYLOAD))
        nursery.start_soon(one.send_eof)
        assert await driven_to_end(other) == PAYLOAD


async def test_closing_with_kept_bytes_does_not_look_like_a_whole() -> None:
    async with narrow_pair() as (one, other):
        one.send_nowait(memoryview(PAYLOAD))
        await one.aclose()
        with pytest.raises(StreamReset):
            await driven_to_end(other)


async def test_closing_in_the_middle_of_a_send_does_not_look_like_a_whole() -> None:
    async with narrow_pair() as (one, other), trio.open_nursery() as nursery:

        async def send() -> None:
            with pytest.raises(StreamReset):
                await one.send_all(PAYLOAD)

        nursery.start_soon(send)
        await trio.testing.wait_all_tasks_blocked()
        await one.aclose()
        with pytest.raises(StreamReset):
            await driven_to_end(other)


WAITS: dict[str, Callable[[TcpStream], Awaitable[object]]] = {
    "drain": lambda stream: stream.drain(),
    "wait_receivable": lambda stream: stream.wait_receivable(),
}


@pytest.mark.parametrize("by", ["reset", "aclose", "peer"])
@pytest.mark.parametrize("wait", WAITS)
async def test_whoever_waits_learns_of_the_end(wait: str, by: str) -> None:
    async with narrow_pair() as (one, other), trio.open_nursery() as nursery:
        one.send_nowait(memoryview(PAYLOAD))
        outcome: list[str] = []
        done = trio.Event()

        async def watch() -> None:
            try:
                await WAITS[wait](one)
                one.receive_nowait(memoryview(bytearray(BATCH)))
            except StreamReset as error:
                outcome.append(str(error))
            done.set()

        nursery.start_soon(watch)
        await trio.testing.wait_all_tasks_blocked()
        match by:
            case "reset":
                one.reset()
            case "aclose":
                await one.aclose()
            case "peer":
                other.reset()
        with trio.fail_after(5):
            await done.wait()
        assert outcome[0].startswith("TCP connection reset")
        # Behind our own end at the latest nothing works, and nothing waits.
        one.reset()
        assert not one.sending
        for call in (
            lambda: one.receive_nowait(memoryview(bytearray(BATCH))),
            lambda: one.send_nowait(memoryview(b"x")),
        ):
            with pytest.raises(StreamReset):
                call()
        with pytest.raises(StreamReset):
            await one.wait_receivable()


async def test_nothing_there_yet_and_then_the_end_of_file() -> None:
    async with tcp_pair() as (one, other):
        into = memoryview(bytearray(BATCH))
        with pytest.raises(trio.WouldBlock):
            one.receive_nowait(into)
        await other.send_all(b"x")
        await other.send_eof()
        await one.wait_receivable()
        assert one.receive_nowait(into) == 1 and into[0] == ord("x")
        await one.wait_receivable()
        assert one.receive_nowait(into) == one.receive_nowait(into) == 0


async def test_a_cancelled_drain_loses_nothing() -> None:
    async with narrow_pair() as (one, other), trio.open_nursery() as nursery:
        one.send_nowait(memoryview(PAYLOAD))
        with trio.move_on_after(0.01) as scope:
            await one.drain()
        assert scope.cancelled_caught and one.sending
        nursery.start_soon(one.send_eof)
        assert await driven_to_end(other) == PAYLOAD
