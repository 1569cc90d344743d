"""Two streams joined: what arrives on one is framed straight into the other, by whoever reads it.

A splice has no task and, while both connections keep up, no bytes of its own: they go from the
buffer in which they were received into the batch of the other connection. What finds no room
there is kept, at most the receive window, and credited to its sender only once it has left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from appliance.dataplane.fair import QUANTUM
from appliance.dataplane.muxstream import MuxStream
from appliance.dataplane.pace import Pace, Pacer
from appliance.dataplane.pipe import PipeCounts, PipeEnd, Side
from appliance.dataplane.plane import Plane

_SMALL: Final = 4096
"""Pieces below this are put together when they have to be kept."""


class Splice:
    """Joins `left` and `right`, streams of connections that share a plane, from now on.

    `limit` bounds the bytes of each direction (0: none): bytes that would pass it are not sent,
    and both streams are reset. `leftover` are bytes read from each stream and not used.
    `on_end` is called once, when both directions ended or either stream is gone; neither is
    usable then. Nothing here raises.
    """

    __slots__ = ("_backward", "_forward", "_on_end", "counts", "limit")

    def __init__(
        self,
        left: MuxStream,
        right: MuxStream,
        counts: PipeCounts,
        *,
        plane: Plane,
        leftover: tuple[bytes, bytes] = (b"", b""),
        limit: int = 0,
        pacer: Pacer | None = None,
        on_end: Callable[[PipeEnd], None],
    ) -> None:
        self.counts = counts
        self.limit = limit
        self._on_end: Callable[[PipeEnd], None] | None = on_end
        self._forward = _Lane(self, "left", left, right, plane, pacer)
        self._backward = _Lane(self, "right", right, left, plane, pacer)
        # In one step, so that no byte overtakes those that are here already.
        here = (
            left.join(_Side(self._forward, self._backward)),
            right.join(_Side(self._backward, self._forward)),
        )
        for lane, early, inbox in zip((self._forward, self._backward), leftover, here, strict=True):
            lane.start(early, inbox)
        left.tell_sink()
        right.tell_sink()
        plane.flush()

    @property
    def over(self) -> bool:
        return self._on_end is None

    def reset(self) -> None:
        """End it at once, as by a limit on time: both streams are reset, `on_end` not called."""
        self._on_end = None
        self._release()

    # --- called by the lanes

    def finish(self, end: PipeEnd) -> None:
        on_end, self._on_end = self._on_end, None
        if on_end is None:
            return
        self._release(reset=not end.clean)
        on_end(end)

    def finish_if_over(self) -> None:
        if self._forward.over and self._backward.over:
            self.finish(PipeEnd(clean=True))

    def _release(self, *, reset: bool = True) -> None:
        for lane in (self._forward, self._backward):
            lane.release()
            if reset:
                lane.source.reset()


class _Lane:
    """One direction."""

    __slots__ = ("_at_head", "_borrowed", "_early", "_ended", "_fresh", "_line", "_owed", "_pace",
                 "_plane", "_splice", "_taken", "_turn", "over", "side", "source",
                 "target")  # fmt: skip

    def __init__(
        self,
        splice: Splice,
        side: Side,
        source: MuxStream,
        target: MuxStream,
        plane: Plane,
        pacer: Pacer | None,
    ) -> None:
        self._splice = splice
        self.side = side
        self.source = source
        self.target = target
        self._plane = plane
        self._pace: Pace | None = None if pacer is None else pacer.join(self)
        # What waits behind the target's head: bytes of ours, then parts of the receive buffer.
        self._line: list[memoryview] = []
        self._fresh = 0
        # Whether the target's head and the end of the line lie in the receive buffer.
        self._borrowed = self._at_head = False
        # Bytes that were credited to the source before it was joined.
        self._early = 0
        # Bytes that went out and were not accounted for yet.
        self._owed = 0
        self._taken = 0
        # What is left of a turn that the pacer granted.
        self._turn = 0
        self._ended = False
        self.over = False

    def start(self, early: bytes, inbox: Iterable[bytes]) -> None:
        """Begin with what was read already."""
        self._early = len(early)
        for piece in (early, *inbox):
            if piece and not self._splice.over:
                self._accept(memoryview(piece))
        self._advance()

    # --- as the sink of its source

    def received(self, data: memoryview) -> None:
        if self._splice.over:
            self.source.credit(len(data))
            return
        if not self._accept(data):
            return
        self._fresh += 1
        if not self._borrowed:
            self._borrowed = True
            self._plane.borrow(self)
        self._advance()

    def ended(self) -> None:
        self._ended = True
        if not self._splice.over:
            self._advance()

    def lost(self) -> None:
        self._splice.finish(PipeEnd(clean=False, reset_by=self.side))

    def supplied(self, size: int) -> None:
        """The target has sent `size` bytes of its head."""
        if not self._owed:
            self._plane.owe(self)
        self._owed += size
        if not self._splice.over:
            self._advance()

    def pay(self) -> None:
        """Account for what went since the last time, and let the source send more."""
        size, self._owed = self._owed, 0
        if self.side == "left":
            self._splice.counts.forward += size
        else:
            self._splice.counts.backward += size
        early = min(size, self._early)
        self._early -= early
        if size > early:
            self.source.credit(size - early)

    # --- as a borrower, and in the pacer's line

    def settle(self) -> None:
        self._borrowed = False
        if self._at_head and self.target.head:
            self.target.head = memoryview(bytes(self.target.head))
        self._at_head = False
        if self._fresh:
            fresh = [self._line.pop() for _ in range(self._fresh)]
            if self._line and len(self._line[-1]) < _SMALL:
                # A byte at a time, it would cost two hundred times its size.
                fresh.append(self._line.pop())
            self._line.append(memoryview(b"".join(reversed(fresh))))
            self._fresh = 0

    def go_on(self) -> None:
        if not self._splice.over:
            self._advance()
            self._plane.flush()

    def release(self) -> None:
        """It is over: nothing is sent any more."""
        self.pay()
        self._line.clear()
        self._fresh = 0
        self._at_head = False
        if self._pace is not None:
            self._pace.leave()

    # --- inside

    def _accept(self, data: memoryview) -> bool:
        self._taken += len(data)
        if self._splice.limit and self._taken > self._splice.limit:
            self._splice.finish(PipeEnd(clean=False, over_limit=True))
            return False
        self._line.append(data)
        return True

    def _advance(self) -> None:
        """Put the next piece in line at the target's head, or the end behind the last."""
        if self.target.head:
            return
        if not self._line:
            if self._ended and not self.over:
                self.over = True
                self.target.half_close()
                self._splice.finish_if_over()
            return
        if self._pace is not None and self._turn <= 0:
            if not self._pace.granted():
                return
            self._turn = QUANTUM
        piece = self._next()
        if self._pace is not None:
            if len(piece) > self._turn:
                self._line.insert(0, piece[self._turn :])
                self._fresh += self._at_head
                piece = piece[: self._turn]
            self._turn -= len(piece)
            self._pace.spend(len(piece))
        self.target.head = piece
        self.target.session.offer(self.target)

    def _next(self) -> memoryview:
        """The first in line; small ones together, since each costs as much as a large one."""
        line, count, size = self._line, 0, 0
        while count < len(line) and len(line[count]) < _SMALL and size < QUANTUM:
            size += len(line[count])
            count += 1
        count = max(count, 1)
        self._at_head = count == 1 and self._fresh == len(line)
        self._fresh = min(self._fresh, len(line) - count)
        piece = line[0] if count == 1 else memoryview(b"".join(line[:count]))
        del line[:count]
        return piece


class _Side:
    """The sink of one of the streams: it feeds one lane and is fed by the other."""

    __slots__ = ("_away", "_home")

    def __init__(self, away: _Lane, home: _Lane) -> None:
        self._away = away
        self._home = home

    def received(self, data: memoryview) -> None:
        self._away.received(data)

    def ended(self) -> None:
        self._away.ended()

    def lost(self, why: str) -> None:
        self._away.lost()

    def supplied(self, size: int) -> None:
        self._home.supplied(size)
