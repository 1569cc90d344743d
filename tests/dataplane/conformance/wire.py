"""The other end of a connection as frames: what a test sends, and what comes back.

Written from the specification (hashicorp/yamux, spec.md) and sharing nothing with our machine.
"""

from __future__ import annotations

import struct
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import trio

from appliance.errors import StreamReset
from tests.dataplane.carriers import MemoryCarrier

DATA, WINDOW_UPDATE, PING, GO_AWAY = range(4)
SYN, ACK, FIN, RST = 1, 2, 4, 8
INITIAL_WINDOW: Final = 256 * 1024
_HEADER: Final = struct.Struct("!BBHII")


@dataclass(frozen=True)
class Frame:
    """`length` is the payload's, or what the kind makes of it."""

    kind: int
    flags: int
    stream: int
    length: int = 0
    payload: bytes = b""
    version: int = 0

    def encoded(self) -> bytes:
        header = _HEADER.pack(self.version, self.kind, self.flags, self.stream, self.length)
        return header + self.payload


def data(stream: int, payload: bytes, flags: int = 0) -> Frame:
    return Frame(DATA, flags, stream, len(payload), payload)


def update(stream: int, flags: int = 0, increment: int = 0) -> Frame:
    return Frame(WINDOW_UPDATE, flags, stream, increment)


class Parser:
    """Bytes in any pieces → whole frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, received: bytes) -> Iterator[Frame]:
        self._buffer += received
        while len(self._buffer) >= _HEADER.size:
            version, kind, flags, stream, length = _HEADER.unpack_from(self._buffer)
            assert version == 0
            size = _HEADER.size + (length if kind == DATA else 0)
            if len(self._buffer) < size:
                return
            payload = bytes(self._buffer[_HEADER.size : size])
            del self._buffer[:size]
            yield Frame(kind, flags, stream, length, payload)

    @property
    def rest(self) -> int:
        """Bytes of a frame that did not come whole."""
        return len(self._buffer)


class Wire:
    """Reads what the muxer under test says, and judges it against the specification."""

    def __init__(self, carrier: MemoryCarrier, *, client: bool) -> None:
        self._carrier = carrier
        self._next_id = 1 if client else 2
        self._their_parity = 0 if client else 1
        self._heard: deque[Frame] = deque()
        self._news = trio.Event()
        self._faults: list[str] = []
        self._room: Counter[int] = Counter()
        self._known: set[int] = set()
        self._finished: set[int] = set()
        self._reset: set[int] = set()
        self.credit: Counter[int] = Counter()
        """What the muxer lets us send on a stream."""
        self.answers_pings = True
        self.ended = trio.Event()

    def new_id(self) -> int:
        """The id of a stream that we are about to open."""
        self._next_id += 2
        return self._next_id - 2

    async def send(self, *frames: Frame) -> None:
        for frame in frames:
            if frame.flags & SYN and frame.kind != PING:
                self.credit[frame.stream] += INITIAL_WINDOW
                self._room[frame.stream] += INITIAL_WINDOW
                self._known.add(frame.stream)
            if frame.kind == DATA:
                self.credit[frame.stream] -= frame.length
            elif frame.kind == WINDOW_UPDATE:
                self._room[frame.stream] += frame.length
        await self._carrier.send_all(b"".join(frame.encoded() for frame in frames))

    async def send_raw(self, raw: bytes) -> None:
        """Bytes that need not be frames, uncounted."""
        await self._carrier.send_all(raw)

    async def end(self) -> None:
        await self._carrier.send_eof()

    async def open(self) -> int:
        """A stream of ours."""
        stream = self.new_id()
        await self.send(update(stream, SYN))
        return stream

    async def heard(self, kind: int, stream: int = 0, *, flags: int = 0) -> Frame:
        """The first frame of that kind and stream, with at least these flags, not asked for yet."""
        while True:
            for frame in self._heard:
                if (frame.kind, frame.stream) == (kind, stream) and frame.flags & flags == flags:
                    self._heard.remove(frame)
                    return frame
            await self._news.wait()

    async def syn(self) -> int:
        """The id of the next stream that the muxer opens."""
        while True:
            for frame in self._heard:
                if frame.kind != PING and frame.flags & SYN:
                    self._heard.remove(frame)
                    return frame.stream
            await self._news.wait()

    async def payload(self, stream: int, size: int) -> bytes:
        """The next bytes of a stream, that many."""
        got = b""
        while len(got) < size:
            got += (await self.heard(DATA, stream)).payload
        assert len(got) == size
        return got

    async def answers(self) -> None:
        """Everything sent so far was taken in: a ping came back."""
        value = 0x5EED
        await self.send(Frame(PING, SYN, 0, value))
        assert (await self.heard(PING, flags=ACK)).length == value

    # --- what it watches

    async def run(self) -> None:
        with suppress(StreamReset):  # the muxer let the connection go
            await self._listen()
        self.ended.set()

    async def _listen(self) -> None:
        parser = Parser()
        while received := await self._carrier.receive_some():
            for frame in parser.feed(received):
                self._judge(frame)
                if frame.kind == PING and frame.flags == SYN:
                    if not self.answers_pings:
                        continue
                    await self.send(Frame(PING, ACK, 0, frame.length))
                    continue
                self._heard.append(frame)
                self._news.set()
                self._news = trio.Event()

    def check(self) -> None:
        """The muxer under test kept the specification."""
        assert not self._faults, self._faults

    def _judge(self, frame: Frame) -> None:
        if frame.kind in (PING, GO_AWAY):
            self._demand(frame.stream == 0, "on a stream", frame)
            return
        if frame.flags & SYN:
            self._demand(frame.stream % 2 == self._their_parity, "of our parity", frame)
            self._demand(frame.stream not in self._known, "opened twice", frame)
            self._known.add(frame.stream)
            self._room[frame.stream] += INITIAL_WINDOW
            self.credit[frame.stream] += INITIAL_WINDOW
        self._demand(frame.stream in self._known, "of no stream", frame)
        self._demand(frame.stream not in self._reset, "behind its reset", frame)
        if frame.kind == DATA:
            self._demand(frame.stream not in self._finished, "behind its end of file", frame)
            self._room[frame.stream] -= frame.length
            self._demand(self._room[frame.stream] >= 0, "beyond the window", frame)
        else:
            self.credit[frame.stream] += frame.length
        if frame.flags & FIN:
            self._finished.add(frame.stream)
        if frame.flags & RST:
            self._reset.add(frame.stream)

    def _demand(self, kept: bool, why: str, frame: Frame) -> None:
        if not kept:
            self._faults.append(f"{why}: {frame}")
