"""Who takes part in the suite: our muxer and the library's, in both roles.

A cell in which the library's fails for a known reason is expected to fail, strictly: the suite
says so once a new version of the library has mended it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import pytest
import trio

from appliance.bridge.stack import MuxedConn
from appliance.bridge.stock import StockSession
from appliance.dataplane.session import Session
from appliance.dataplane.streams import ByteStream, Carrier
from appliance.reasons import Reason
from tests.dataplane.carriers import MemoryCarrier, carrier_pair
from tests.dataplane.conformance.wire import Wire

MUXERS: Final[dict[str, Callable[..., MuxedConn]]] = {"ours": Session, "stock": StockSession}
PATIENCE: Final = 300.0
"""Virtual seconds for one test: beyond that somebody waits for ever."""


class Defect:
    """What py-libp2p 0.8.1 does wrong. The numbers are those of `tests/bridge/test_stock.py`."""

    STALLED_READER = "2: a writer gives up five seconds after its window closed"
    NO_SIGN_OF_LIFE = "8: a peer that went silent is never given up"
    RESET_IS_EOF = "a reset reads as the end of file once the stream is forgotten"
    LOSS_IS_EOF = "the loss of the connection reads as the end of file"
    KEPT = "a reset stream whose bytes nobody read is kept for a minute"
    READER_FORGOTTEN = "who waits to read is not woken by a reset from here"
    GO_AWAY_KILLS = "a go-away ends the streams that exist"
    UNREAD_CLOSE = "closing a stream does not tell the peer that nobody reads any more"
    ACK_HIDES_FIN = "the end of file in a frame that acknowledges is overlooked"
    NO_LIMIT = "there is no limit on streams"
    UNCHECKED = "input is not checked"


@dataclass
class End:
    """A running muxer, the streams that the other end opened, and how it ended."""

    carrier: MemoryCarrier
    session: MuxedConn
    ended: trio.Event = field(default_factory=trio.Event)
    reason: Reason | None = None

    def __post_init__(self) -> None:
        self._put, self.accepted = trio.open_memory_channel[Carrier](1000)

    async def run(self) -> None:
        self.reason = await self.session.run(self._put.send_nowait)
        self.ended.set()

    async def accept(self) -> Carrier:
        return await self.accepted.receive()


def end(kind: str, carrier: MemoryCarrier, *, client: bool, max_inbound: int = 64) -> End:
    return End(carrier, MUXERS[kind](carrier, client=client, max_inbound=max_inbound))


@dataclass(frozen=True)
class Pair:
    """Two muxers; `one` opens the streams that a test is about."""

    one: str
    other: str
    one_is_client: bool

    @asynccontextmanager
    async def connected(
        self, *, capacity: int = 1 << 30, segments: list[int] | None = None
    ) -> AsyncIterator[tuple[End, End]]:
        carriers = carrier_pair(capacity=capacity, segments=segments)
        one = end(self.one, carriers[0], client=self.one_is_client)
        other = end(self.other, carriers[1], client=not self.one_is_client)
        async with running(one, other):
            yield one, other


@dataclass(frozen=True)
class Subject:
    """A muxer whose peer is the test itself, frame by frame."""

    kind: str
    client: bool

    @asynccontextmanager
    async def wired(
        self, *, max_inbound: int = 64, segments: list[int] | None = None
    ) -> AsyncIterator[tuple[End, Wire]]:
        carrier, far = carrier_pair(segments=segments)
        subject = end(self.kind, carrier, client=self.client, max_inbound=max_inbound)
        wire = Wire(far, client=not self.client)
        async with running(subject), trio.open_nursery() as nursery:
            nursery.start_soon(wire.run)
            yield subject, wire
            wire.check()
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def running(*ends: End) -> AsyncIterator[None]:
    """They are over at the end of the block, which gets `PATIENCE`."""
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            for each in ends:
                nursery.start_soon(each.run)
            try:
                yield
            finally:
                for each in ends:
                    each.session.abort(Reason.SHUTTING_DOWN)


def pair_cells(name: str = "", *, one: str | None, other: str | None, extra: Any = ()) -> list[Any]:
    """Every pair in both roles, as parameters; `one` and `other` say why stock fails there."""
    cells = []
    for kinds in [("ours", "ours"), ("ours", "stock"), ("stock", "ours"), ("stock", "stock")]:
        why = [reason for kind, reason in zip(kinds, (one, other), strict=True)
               if kind == "stock" and reason is not None]  # fmt: skip
        for client in (True, False):
            label = f"{name}{'-'.join(kinds)}-{'client' if client else 'server'}"
            cells.append(pytest.param(Pair(*kinds, client), *extra, marks=failing(*why), id=label))
    return cells


def pairs(*, one: str | None = None, other: str | None = None) -> Any:
    """Every pair in both roles; `one` and `other` say why stock fails there."""
    return pytest.mark.parametrize("pair", pair_cells(one=one, other=other))


def failing(*why: str) -> Any:
    return [pytest.mark.xfail(strict=True, reason="; ".join(why))] if why else []


def subjects(*, stock: str | None = None) -> Any:
    """Each muxer in both roles; `stock` says why that one fails."""
    cells = []
    for kind in MUXERS:
        for client in (True, False):
            why = [stock] if kind == "stock" and stock is not None else []
            label = f"{kind}-{'client' if client else 'server'}"
            cells.append(pytest.param(Subject(kind, client), marks=failing(*why), id=label))
    return pytest.mark.parametrize("subject", cells)


async def echo(stream: ByteStream) -> None:
    """Give back what comes, and the end of file last."""
    while data := await stream.receive_some():
        await stream.send_all(data)
    await stream.aclose()


async def serve(end: End) -> None:
    """Echo every stream that the other end opens."""
    async with trio.open_nursery() as nursery:
        async for stream in end.accepted:
            nursery.start_soon(echo, stream)


async def ask(stream: ByteStream, payload: bytes) -> bytes:
    """Send it with the end behind it, reading meanwhile to the other end's end."""
    got = bytearray()
    async with trio.open_nursery() as nursery:

        async def send() -> None:
            await stream.send_all(payload)
            await stream.send_eof()

        nursery.start_soon(send)
        while data := await stream.receive_some():
            got += data
    return bytes(got)


async def forgotten(*ends: End) -> None:
    """Nobody remembers a stream."""
    await trio.sleep(1)
    assert [end.session.open_streams for end in ends] == [0] * len(ends)
