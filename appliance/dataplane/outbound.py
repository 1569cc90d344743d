"""The sending half of a connection: whose frames go into the carrier, and when.

Whoever has something to send pumps it into the carrier at once; only while the carrier is full is
there a task, which waits for room.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from appliance.dataplane.buffers import borrow, give_back
from appliance.dataplane.fair import Turns
from appliance.dataplane.frames import HEADER_SIZE
from appliance.dataplane.muxstream import MuxStream
from appliance.dataplane.plane import Plane
from appliance.dataplane.streams import BATCH, Carrier
from appliance.dataplane.yamux import Yamux
from appliance.errors import StreamReset


class Outbound:
    """Moves the frames of `machine`, and the bytes of the streams in line, into `carrier`.

    `lost` is told when the carrier turns out to be reset; it must not raise. Nothing is sent
    before `begin` and after `end`.
    """

    __slots__ = ("_blocked", "_carrier", "_idle", "_lost", "_machine", "_making_room", "_nursery",
                 "_over", "_plane", "_pumping", "_touched", "_turns")  # fmt: skip

    def __init__(
        self, carrier: Carrier, machine: Yamux, plane: Plane, lost: Callable[[], None]
    ) -> None:
        self._carrier = carrier
        self._machine = machine
        self._plane = plane
        self._lost = lost
        self._nursery: trio.Nursery | None = None
        self._turns: Turns[MuxStream] = Turns()
        self._touched = self._pumping = self._over = False
        # The carrier is full, and whether the task runs that waits for room.
        self._blocked = self._making_room = False
        self._idle = trio.Event()

    def begin(self, nursery: trio.Nursery) -> None:
        """From now on frames go out; `nursery` is where the wait for room runs."""
        self._nursery = nursery
        self.touch()

    def end(self) -> None:
        """Nothing more goes out; whoever waits in `flushed` wakes up."""
        self._over = True
        self._idle.set()

    def let_go(self) -> None:
        """After `end`, once the tasks of its nursery are gone: its owner may be forgotten too."""
        self._nursery = None
        self._lost = _nobody

    def touch(self) -> None:
        """There is something to send: the next flush of the plane pumps it."""
        if not self._touched:
            self._touched = True
            self._plane.touch(self)

    def offer(self, stream: MuxStream) -> None:
        """The stream has bytes at its head: it gets a turn."""
        self._turns.join(stream)
        self.touch()

    def leave(self, stream: MuxStream) -> None:
        """The stream is gone: it gets no turn."""
        self._turns.leave(stream)

    def pump(self) -> None:
        """Frames into the carrier, for as long as it takes them. No checkpoint, no exception."""
        self._touched = False
        if self._pumping or self._over or self._nursery is None:
            return
        self._pumping = True
        batch = borrow()
        try:
            while not self._blocked:
                if self._carrier.sending:
                    self._blocked = True
                    if not self._making_room:
                        self._making_room = True
                        self._nursery.start_soon(self._make_room)
                elif size := self._fill(batch[:BATCH]):
                    self._carrier.send_nowait(batch[:size])
                else:
                    self._idle.set()
                    break
        except StreamReset:
            self._lost()
        finally:
            give_back(batch)
            self._pumping = False

    async def flushed(self) -> None:
        """Returns once the carrier has taken every frame, or the connection is over."""
        while not self._over:
            self.touch()
            self._plane.flush()
            if not self._blocked and not self._machine.backlog and not self._turns:
                return
            if self._idle.is_set():
                self._idle = trio.Event()
            await self._idle.wait()

    # --- inside

    def _fill(self, batch: memoryview) -> int:
        """Frames of everybody whose turn it is: answers first, then payload. Bytes written."""
        machine, turns = self._machine, self._turns
        size = machine.write_control(batch) if machine.backlog else 0
        room = len(batch) - size
        while room > HEADER_SIZE and turns and (stream := turns.next()) is not None:
            most = room if turns.alone else stream.deficit
            frame = batch[size:]
            wrote = machine.write_data(stream.stream_id, stream.head[:most], frame)
            stream.taken(wrote)
            # What comes in crumbs goes on in one frame.
            while stream.head and wrote < most and (
                more := machine.extend_data(
                    stream.stream_id, stream.head[: most - wrote], frame, wrote
                )
            ):  # fmt: skip
                wrote += more
                stream.taken(more)
            stream.deficit -= wrote
            size += HEADER_SIZE + wrote
            room -= HEADER_SIZE + wrote
        return size

    async def _make_room(self) -> None:
        """Until the carrier has taken what it was given, and all that followed."""
        try:
            while self._blocked:
                await self._carrier.drain()
                self._blocked = False
                self.pump()
                self._plane.flush()
        except StreamReset:
            self._lost()
        finally:
            self._making_room = False


def _nobody() -> None:
    """Is told when nobody is left to be told."""
