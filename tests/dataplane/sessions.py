"""Two sessions back to back over a carrier in memory, for tests."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from appliance.dataplane.plane import Plane, PlaneLimits
from appliance.dataplane.session import MuxStream, Session
from appliance.dataplane.streams import ByteStream
from appliance.reasons import Reason
from tests.dataplane.carriers import MemoryCarrier, carrier_pair


@dataclass
class End:
    """A running session, the streams that the other end opened, and how it ended."""

    carrier: MemoryCarrier
    session: Session
    ended: trio.Event = field(default_factory=trio.Event)
    reason: Reason | None = None

    def __post_init__(self) -> None:
        self._put, self.accepted = trio.open_memory_channel[MuxStream](1000)

    async def run(self) -> None:
        self.reason = await self.session.run(self._put.send_nowait)
        self.ended.set()

    async def accept(self) -> MuxStream:
        return await self.accepted.receive()


def connected(
    nursery: trio.Nursery,
    *,
    capacity: int = 1 << 30,
    segments: list[int] | None = None,
    max_inbound: int = 64,
    plane: Plane | None = None,
) -> tuple[End, End]:
    """A client and a server, running in `nursery`. Both are of `plane`, or each of its own."""
    carriers = carrier_pair(capacity=capacity, segments=segments)
    one, other = (
        End(carrier, Session(carrier, client=client, max_inbound=max_inbound, plane=plane))
        for carrier, client in zip(carriers, (True, False), strict=True)
    )
    for end in (one, other):
        nursery.start_soon(end.run)
    return one, other


@asynccontextmanager
async def two_ends(
    *,
    capacity: int = 1 << 30,
    segments: list[int] | None = None,
    max_inbound: int = 64,
    limits: PlaneLimits | None = None,
) -> AsyncIterator[tuple[End, End]]:
    """A client and a server; both are over at the end of the block."""
    async with trio.open_nursery() as nursery:
        ends = connected(
            nursery,
            capacity=capacity,
            segments=segments,
            max_inbound=max_inbound,
            plane=None if limits is None else Plane(limits),
        )
        yield ends
        for end in ends:
            end.session.abort(Reason.SHUTTING_DOWN)
    assert_over(*(end.session for end in ends))


def assert_over(*sessions: Session) -> None:
    """These sessions, all of their planes, are over and have left nothing behind."""
    for session in sessions:
        assert session.closed.is_set() and session.closed_reason is not None
        assert session.unread == 0 and session.open_streams == 0
        assert not session._streams and not session._closing and not session._pings
        assert not session._unread._room.taken and not session._outbound._making_room
        assert_settled(session.plane)
        assert session.plane.unread == 0
        limits = session.plane.limits
        assert session._machine._windows.left == min(
            limits.connection_growth, limits.total_growth
        ), "what the windows had grown by"


def assert_settled(plane: Plane, *, paused: bool = False) -> None:
    """Between two steps: nothing that is ready to be sent was left behind, nothing is borrowed."""
    assert not plane._touched and not plane._borrowers
    assert paused or not plane._paused


def assert_accounted(plane: Plane, *sessions: Session) -> None:
    """What the plane holds unread is what its connections do, and those what their streams do."""
    assert plane.unread == sum(session.unread for session in sessions)
    for session in sessions:
        assert session.unread == sum(stream.unread for stream in session._streams.values())


async def stream_pair(one: End, other: End) -> tuple[MuxStream, MuxStream]:
    """A stream that `one` opened, and the same as `other` sees it."""
    return one.session.open_stream(), await other.accept()


async def read_to_end(stream: ByteStream, size: int = 65536) -> bytes:
    out = bytearray()
    while data := await stream.receive_some(size):
        out += data
    return bytes(out)


async def say(stream: ByteStream, payload: bytes) -> None:
    """All of it, and that it was all."""
    await stream.send_all(payload)
    await stream.send_eof()


async def exchange(one: ByteStream, other: ByteStream, there: bytes, back: bytes) -> None:
    """`there` from `one` to `other` and `back` the other way, both at once and to the end."""

    async def hear(stream: ByteStream, payload: bytes) -> None:
        heard = await read_to_end(stream)
        assert len(heard) == len(payload)
        # Not the bytes themselves: how two megabytes differ nobody wants to read.
        assert hashlib.sha256(heard).digest() == hashlib.sha256(payload).digest()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(say, one, there)
        nursery.start_soon(say, other, back)
        nursery.start_soon(hear, other, there)
        nursery.start_soon(hear, one, back)


async def settle(rounds: int = 50) -> None:
    """Let every task run until it waits; takes no time on any clock."""
    for _ in range(rounds):
        await trio.lowlevel.checkpoint()


@asynccontextmanager
async def outcome_of(
    operation: Callable[[], Awaitable[object]],
) -> AsyncIterator[list[object]]:
    """Run an operation beside the block; its result or exception is in the list afterwards."""
    out: list[object] = []
    done = trio.Event()

    async def watch() -> None:
        try:
            out.append(await operation())
        except Exception as error:  # noqa: BLE001 - the exception is what the test asks for
            out.append(error)
        done.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        await settle()
        yield out
        with trio.move_on_after(300):
            await done.wait()
        nursery.cancel_scope.cancel()
