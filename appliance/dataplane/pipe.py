"""Two byte streams joined: what one receives the other sends, until both ends have said enough."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Literal, TypeVar

import trio

from appliance.dataplane.streams import ByteStream
from appliance.errors import Fault, StreamReset
from appliance.units import KIB

CHUNK: Final = 64 * KIB
"""Bytes in flight between the two streams, each way."""

Side = Literal["left", "right"]
T = TypeVar("T")


@dataclass(slots=True, eq=False)
class PipeCounts:
    """Bytes carried so far: `forward` from left to right, `backward` from right to left."""

    forward: int = 0
    backward: int = 0

    @property
    def total(self) -> int:
        return self.forward + self.backward


@dataclass(frozen=True, slots=True)
class PipeEnd:
    """How a pipe ended: `clean` after both half-closes, else reset by one side or by the limit."""

    clean: bool
    reset_by: Side | None = None
    over_limit: bool = False


class _Over(Exception):
    """Ends the pipe from inside one of its directions."""

    def __init__(self, end: PipeEnd) -> None:
        self.end = end


async def pipe(
    left: ByteStream,
    right: ByteStream,
    counts: PipeCounts,
    *,
    limit: int = 0,
    on_first_backward: Callable[[], None] | None = None,
) -> PipeEnd:
    """Carry bytes both ways until both directions ended; half-close and reset are carried too.

    `limit` bounds the bytes of each direction (0: none): bytes that would pass it are not sent,
    and both streams are reset. After `Cancelled` both streams are reset. On return neither
    stream is usable; `counts` holds what was carried, also while it runs.

    Raises Fault if a stream does, as one whose lazily proposed protocol was refused; both are
    reset then.
    """

    async def forward() -> None:
        while data := await _on("left", left.receive_some(CHUNK)):
            _check(limit, counts.forward, len(data))
            await _on("right", right.send_all(data))
            counts.forward += len(data)
        await _on("right", right.send_eof())

    async def backward() -> None:
        while data := await _on("right", right.receive_some(CHUNK)):
            if not counts.backward and on_first_backward is not None:
                on_first_backward()
            _check(limit, counts.backward, len(data))
            await _on("left", left.send_all(data))
            counts.backward += len(data)
        await _on("left", left.send_eof())

    end: PipeEnd | None = None
    try:
        end = await _both(forward, backward)
        if end.clean:
            await left.aclose()
            await right.aclose()
    except BaseException:  # Cancelled too, also between the two closes
        end = None
        raise
    finally:
        if end is None or not end.clean:
            left.reset()
            right.reset()
    return end


async def _both(*directions: Callable[[], Awaitable[None]]) -> PipeEnd:
    first: PipeEnd | Fault | None = None

    async def run(direction: Callable[[], Awaitable[None]]) -> None:
        nonlocal first
        try:
            await direction()
        except _Over as over:
            first = first or over.end
            nursery.cancel_scope.cancel()
        except Fault as fault:
            # Kept out of the nursery, which would wrap it in a group that nobody expects.
            first = first or fault
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for direction in directions:
            nursery.start_soon(run, direction)
    if isinstance(first, Fault):
        raise first
    return first or PipeEnd(clean=True)


async def _on(side: Side, operation: Awaitable[T]) -> T:
    """The result of an operation on that side's stream; its reset ends the pipe."""
    try:
        return await operation
    except StreamReset:
        raise _Over(PipeEnd(clean=False, reset_by=side)) from None


def _check(limit: int, carried: int, more: int) -> None:
    if limit and carried + more > limit:
        raise _Over(PipeEnd(clean=False, over_limit=True))
