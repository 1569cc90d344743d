"""Two sessions back to back over a carrier in memory, for tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

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


@asynccontextmanager
async def two_ends(
    *, capacity: int = 1 << 30, segments: list[int] | None = None, max_inbound: int = 64
) -> AsyncIterator[tuple[End, End]]:
    """A client and a server; both are over at the end of the block."""
    ends = [
        End(carrier, Session(carrier, client=client, max_inbound=max_inbound))
        for carrier, client in zip(
            carrier_pair(capacity=capacity, segments=segments), (True, False), strict=True
        )
    ]
    async with trio.open_nursery() as nursery:
        for end in ends:
            nursery.start_soon(end.run)
        yield ends[0], ends[1]
        for end in ends:
            end.session.abort(Reason.SHUTTING_DOWN)


async def stream_pair(one: End, other: End) -> tuple[MuxStream, MuxStream]:
    """A stream that `one` opened, and the same as `other` sees it."""
    return one.session.open_stream(), await other.accept()


async def read_to_end(stream: ByteStream, size: int = 65536) -> bytes:
    out = bytearray()
    while data := await stream.receive_some(size):
        out += data
    return bytes(out)


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
