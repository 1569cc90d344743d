"""What go-, js- and rust-libp2p once said to our muxer, said again: to ours and to the library's.

Expected is what the frames of a recording say by themselves (`wire.Parser`), and that the
payload known from `record.py` is in them.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field

import pytest
import trio
from trio.testing import MockClock

from appliance.dataplane.frames import (
    DataReceived,
    EofReceived,
    GoAwayReceived,
    PongReceived,
    ResetReceived,
    StreamOpened,
)
from appliance.dataplane.streams import Carrier
from appliance.dataplane.yamux import Yamux
from appliance.errors import StreamReset
from tests.dataplane.carriers import carrier_pair
from tests.dataplane.conformance.muxers import MUXERS, end, running
from tests.dataplane.conformance.recordings import (
    AT_ONCE,
    BULK,
    DIGEST,
    ECHO,
    PEERS,
    Chunk,
    Recording,
    load,
)
from tests.dataplane.conformance.wire import (
    ACK,
    DATA,
    FIN,
    GO_AWAY,
    PING,
    RST,
    SYN,
    Frame,
    Parser,
)
from tests.dataplane.frames import control_of
from tests.interop.peers import pattern

RECORDINGS = [
    pytest.param(recording, id=f"{peer}-{'client' if recording.client else 'server'}")
    for peer in PEERS
    for recording in load(peer)
]


@dataclass
class Heard:
    """What one stream brought: its payload, and how it ended so far."""

    payload: bytearray = field(default_factory=bytearray)
    end: str = ""


@dataclass
class Account:
    """What a connection brought, by stream id."""

    streams: dict[int, Heard] = field(default_factory=dict)
    opened: list[int] = field(default_factory=list)
    """By the peer, in order."""
    pongs: list[int] = field(default_factory=list)
    answers: list[tuple[int, int, int]] = field(default_factory=list)
    """What our end must say by itself: acknowledgements and pongs, as (kind, stream, value)."""
    goodbyes: list[int] = field(default_factory=list)

    def add(self, stream: int) -> Heard:
        return self.streams.setdefault(stream, Heard())


def frames(recording: Recording) -> Iterator[tuple[bool, Frame]]:
    """All frames in order, each with whether it was received."""
    parsers = {True: Parser(), False: Parser()}
    for chunk in recording.chunks:
        for frame in parsers[chunk.received].feed(chunk.data):
            yield chunk.received, frame
    assert not any(parser.rest for parser in parsers.values())


def written(recording: Recording) -> Account:
    """The account that the frames give."""
    account = Account()
    for received, frame in frames(recording):
        if not received:
            if frame.kind < PING and frame.flags & SYN:
                account.add(frame.stream)
            elif frame.kind < PING and frame.flags & RST:
                account.add(frame.stream).end = "reset here"
            elif frame.kind == PING and frame.flags == ACK:
                account.answers.append((PING, 0, frame.length))
            elif frame.flags & ACK:
                account.answers.append((frame.kind, frame.stream, 0))
        elif frame.kind == PING:
            if frame.flags == ACK:
                account.pongs.append(frame.length)
        elif frame.kind == GO_AWAY:
            account.goodbyes.append(frame.length)
        else:
            if frame.flags & SYN:
                account.opened.append(frame.stream)
            heard = account.add(frame.stream)
            if heard.end in {"", "eof"}:
                heard.payload += frame.payload
                if frame.flags & (FIN | RST):
                    heard.end = "reset" if frame.flags & RST else "eof"
    return account


@pytest.mark.parametrize("recording", RECORDINGS)
def test_what_was_asked_for_is_in_a_recording(recording: Recording) -> None:
    payloads = [bytes(heard.payload) for heard in written(recording).streams.values()]
    asked = pattern(DIGEST)
    answer = f"{DIGEST} {hashlib.sha256(asked).hexdigest()}".encode()
    # Their question, and their answer to ours.
    times = {pattern(size): 2 for size in (ECHO, *AT_ONCE)} | {asked: 1, answer: 1}
    for expected, count in (times | {pattern(BULK): 1}).items():
        assert sum(payload.endswith(expected) for payload in payloads) == count


# --- our machine


def pieces(data: bytes, cut: str) -> Iterator[bytes]:
    rng = random.Random(len(data))
    sizes = {
        "whole": [len(data)],
        # Every byte alone; in bulk every header is still cut everywhere.
        "bytes": [1] if len(data) < 10_000 else [7],
        "anywhere": [1, 2, 11, 12, 13, 100, 1000, 30_000],
    }
    at = 0
    while at < len(data):
        size = rng.choice(sizes[cut])
        yield data[at : at + size]
        at += size


@pytest.mark.parametrize("cut", ["whole", "bytes", "anywhere"])
@pytest.mark.parametrize("recording", RECORDINGS)
def test_our_machine_understands_every_byte(recording: Recording, cut: str) -> None:
    machine = Yamux(client=recording.client)
    account, said = Account(), Parser()
    ours = Parser()
    frame_out = memoryview(bytearray(70_000))

    def receive(data: bytes) -> None:
        for event in machine.receive(data):
            match event:
                case StreamOpened(stream):
                    account.opened.append(stream)
                    account.add(stream)
                case DataReceived(stream, payload):
                    account.add(stream).payload += payload
                    machine.credit(stream, len(payload))
                case EofReceived(stream):
                    account.add(stream).end = "eof"
                case ResetReceived(stream):
                    account.add(stream).end = "reset"
                case PongReceived(value):
                    account.pongs.append(value)
                case GoAwayReceived(code):
                    account.goodbyes.append(code)

    def do(frame: Frame) -> None:
        """What its owner told our muxer then."""
        if frame.kind == PING and frame.flags == SYN:
            machine.ping(frame.length)
        elif frame.kind < PING:
            if frame.flags & SYN:
                assert machine.open_stream() == frame.stream
                account.add(frame.stream)
            if frame.kind == DATA:
                payload = memoryview(frame.payload)
                assert machine.write_data(frame.stream, payload, frame_out) == frame.length
            if frame.flags & FIN:
                machine.send_eof(frame.stream)
            if frame.flags & RST:
                machine.reset(frame.stream)
                account.add(frame.stream).end = "reset here"

    for chunk in recording.joined():
        if chunk.received:
            for piece in pieces(chunk.data, cut):
                receive(piece)
        else:
            for frame in ours.feed(chunk.data):
                do(frame)
        for frame in said.feed(control_of(machine)):
            if frame.kind != GO_AWAY and frame.flags == ACK:
                value = frame.length if frame.kind == PING else 0
                account.answers.append((frame.kind, frame.stream, value))
    expected = written(recording)
    assert account.streams == expected.streams
    assert sorted(account.answers) == sorted(expected.answers)
    account.answers = expected.answers  # compared above: in time their order may differ
    assert account == expected


# --- whole muxers


class Replay:
    """One muxer in the place of ours: what was received arrives again, what was done is done."""

    def __init__(self, kind: str, recording: Recording, segments: list[int] | None) -> None:
        carrier, self._far = carrier_pair(segments=segments)
        self._recording = recording
        self._end = end(kind, carrier, client=recording.client)
        self._nursery: trio.Nursery
        self._streams: dict[int, Carrier] = {}
        self._expected = written(recording)
        self._opened = iter(self._expected.opened)
        self.account = Account()

    async def run(self) -> None:
        ours = Parser()
        async with running(self._end), trio.open_nursery() as self._nursery:
            self._nursery.start_soon(self._accept)
            for chunk in self._recording.joined():
                if chunk.received:
                    await self._far.send_all(chunk.data)
                else:
                    for frame in ours.feed(chunk.data):
                        await self._do(frame)
                await trio.sleep(0.01)  # on the test's clock: until everybody waits
            with suppress(StreamReset):  # a go-away was enough for the library
                await self._far.send_eof()
            await self._end.ended.wait()
            await trio.sleep(0.01)
            self._nursery.cancel_scope.cancel()

    async def _accept(self) -> None:
        async for stream in self._end.accepted:
            self._use(next(self._opened), stream)

    def _use(self, number: int, stream: Carrier) -> None:
        self._streams[number] = stream
        self._nursery.start_soon(self._read, stream, self.account.add(number))

    async def _read(self, stream: Carrier, heard: Heard) -> None:
        try:
            while data := await stream.receive_some():
                heard.payload += data
            heard.end = "eof"
        except StreamReset:
            heard.end = heard.end or "reset"

    async def _do(self, frame: Frame) -> None:
        if frame.kind >= PING:
            return
        if frame.flags & SYN:
            self._use(frame.stream, self._end.session.open_stream())
            await trio.sleep(0.01)
        stream = self._streams[frame.stream]
        if frame.kind == DATA:
            await stream.send_all(frame.payload)
        if frame.flags & FIN:
            await stream.send_eof()
        if frame.flags & RST:
            self.account.add(frame.stream).end = "reset here"
            stream.reset()

    def check(self, *, reset_reads_as_eof: bool) -> None:
        assert self.account.streams.keys() == self._expected.streams.keys()
        for number, expected in self._expected.streams.items():
            heard = self.account.streams[number]
            if expected.end == "eof":
                assert heard == expected
            else:
                # A reset may overtake what its reader did not take yet.
                assert expected.payload.startswith(heard.payload)
                assert reset_reads_as_eof or heard.end == (expected.end or "reset")


@pytest.mark.parametrize("segments", [None, [13, 1, 5000, 12]], ids=["whole", "cut"])
@pytest.mark.parametrize("kind", MUXERS)
@pytest.mark.parametrize("recording", RECORDINGS)
async def test_a_muxer_hands_over_the_same_bytes(
    autojump_clock: MockClock, recording: Recording, kind: str, segments: list[int] | None
) -> None:
    replay = Replay(kind, recording, segments)
    await replay.run()
    replay.check(reset_reads_as_eof=kind == "stock")


def test_a_changed_byte_is_noticed() -> None:
    """The judge itself."""
    [recording, _] = load("go")
    at = next(
        number
        for number, chunk in enumerate(recording.chunks)
        if chunk.received and len(chunk.data) > ECHO
    )
    changed = bytearray(recording.chunks[at].data)
    changed[ECHO // 2] ^= 1
    chunks = (*recording.chunks[:at], Chunk(True, bytes(changed)), *recording.chunks[at + 1 :])
    other = Recording(recording.client, recording.ended, chunks)
    assert written(other) != written(recording)
