"""Two machines against a model, over wires that cut the bytes anywhere; and one against noise."""

from __future__ import annotations

import contextlib
import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from appliance.dataplane.yamux import (
    INITIAL_WINDOW,
    MAX_DATA,
    WIDE_WINDOW,
    DataReceived,
    EofReceived,
    PongReceived,
    ResetReceived,
    StreamOpened,
    StreamRefused,
    WindowOpened,
    Yamux,
)
from appliance.errors import LocalProtocolError, RemoteProtocolError
from appliance.reasons import Reason

_PERIOD = 1 << 20
_NOISE = memoryview(random.Random(7).randbytes(_PERIOD) * 2)
MAX_INBOUND = 3


def content(stream_id: int, sender: int, start: int, size: int) -> memoryview:
    """Bytes `start` to `start + size` of what `sender` says on a stream: position tells content."""
    at = (stream_id * 7919 + sender * 104_729 + start) % _PERIOD
    return _NOISE[at : at + size]


@dataclass
class Way:
    """What the model knows of one direction of a stream."""

    sent: int = 0
    arrived: int = 0
    read: int = 0
    eof_sent: bool = False
    eof_arrived: bool = False


@dataclass
class Stream:
    opener: int
    ways: tuple[Way, Way] = field(default_factory=lambda: (Way(), Way()))  # by sender
    known: bool = False  # the other end has heard of it
    dead: list[bool] = field(default_factory=lambda: [False, False])  # by end, reset or refused


class TwoEnds(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.ends = (
            Yamux(client=True, max_inbound=MAX_INBOUND),
            Yamux(client=False, max_inbound=MAX_INBOUND),
        )
        self.wires = (bytearray(), bytearray())  # by sender
        self.streams: dict[int, Stream] = {}
        self.pings: tuple[list[int], list[int]] = ([], [])
        self.next_ping = 0

    def usable(self, end: int) -> list[int]:
        return [
            number
            for number, stream in self.streams.items()
            if not stream.dead[end] and (stream.opener == end or stream.known)
        ]

    def pick(self, end: int, choice: int) -> tuple[int, Stream] | None:
        usable = self.usable(end)
        if not usable:
            return None
        number = usable[choice % len(usable)]
        return number, self.streams[number]

    def flush(self, end: int) -> None:
        self.wires[end].extend(self.ends[end].data_to_send())

    # --- what an end does

    @precondition(lambda self: len(self.streams) < 12)
    @rule(end=st.integers(0, 1))
    def open(self, end: int) -> None:
        number = self.ends[end].open_stream()
        assert number not in self.streams
        self.streams[number] = Stream(end)

    @rule(
        end=st.integers(0, 1),
        choice=st.integers(0, 11),
        size=st.one_of(st.integers(0, 100), st.integers(0, WIDE_WINDOW)),
    )
    def send(self, end: int, choice: int, size: int) -> None:
        picked = self.pick(end, choice)
        if picked is None or picked[1].ways[end].eof_sent:
            return
        number, stream = picked
        way = stream.ways[end]
        offered = content(number, end, way.sent, size)
        while offered and (sent := self.ends[end].send_data(number, offered)):
            assert sent <= MAX_DATA
            way.sent += sent
            offered = offered[sent:]
        if offered:
            assert self.ends[end].send_window(number) == 0, "it stopped before the window did"

    @rule(end=st.integers(0, 1), choice=st.integers(0, 11))
    def send_eof(self, end: int, choice: int) -> None:
        picked = self.pick(end, choice)
        if picked is not None and not picked[1].ways[end].eof_sent:
            self.ends[end].send_eof(picked[0])
            picked[1].ways[end].eof_sent = True

    @rule(end=st.integers(0, 1), choice=st.integers(0, 11))
    def reset(self, end: int, choice: int) -> None:
        picked = self.pick(end, choice)
        if picked is not None:
            self.ends[end].reset(picked[0])
            picked[1].dead[end] = True

    @rule(end=st.integers(0, 1), choice=st.integers(0, 11), size=st.integers(1, WIDE_WINDOW))
    def read(self, end: int, choice: int, size: int) -> None:
        picked = self.pick(end, choice)
        if picked is not None:
            way = picked[1].ways[1 - end]
            size = min(size, way.arrived - way.read)
            way.read += size
            self.ends[end].credit(picked[0], size)

    @rule(end=st.integers(0, 1))
    def ping(self, end: int) -> None:
        self.ends[end].ping(self.next_ping)
        self.pings[end].append(self.next_ping)
        self.next_ping += 1

    # --- what the network does

    @rule(
        sender=st.integers(0, 1),
        size=st.one_of(st.integers(1, 40), st.integers(1, 400_000), st.just(1 << 30)),
    )
    def deliver(self, sender: int, size: int) -> None:
        self.flush(sender)
        wire, end = self.wires[sender], 1 - sender
        arriving = bytes(wire[:size])
        del wire[:size]
        for event in self.ends[end].receive(arriving):
            match event:
                case StreamOpened(number):
                    stream = self.streams[number]
                    assert stream.opener == sender and not stream.known
                    stream.known = True
                case StreamRefused(number):
                    self.streams[number].dead[end] = True
                case DataReceived(number, data):
                    stream = self.streams[number]
                    assert stream.known or stream.opener == end
                    assert not stream.dead[end]
                    way = stream.ways[sender]
                    assert not way.eof_arrived
                    assert data == bytes(content(number, sender, way.arrived, len(data)))
                    way.arrived += len(data)
                    assert way.arrived <= way.sent
                    unread = way.arrived - way.read
                    assert unread <= (WIDE_WINDOW if way.read else INITIAL_WINDOW)
                case EofReceived(number):
                    way = self.streams[number].ways[sender]
                    assert way.eof_sent and way.arrived == way.sent
                    way.eof_arrived = True
                case ResetReceived(number):
                    stream = self.streams[number]
                    assert stream.dead[sender] and not stream.dead[end]
                    stream.dead[end] = True
                case PongReceived(value):
                    assert self.pings[end].pop(0) == value
                case WindowOpened(number):
                    assert not self.streams[number].dead[end]
                case _:
                    raise AssertionError(event)

    @invariant()
    def the_places_are_counted(self) -> None:
        for end, machine in enumerate(self.ends):
            alive = 0
            for number in self.usable(end):
                sent, got = self.streams[number].ways[end], self.streams[number].ways[1 - end]
                alive += not (sent.eof_sent and got.eof_arrived)
            assert machine.open_streams == alive

    def teardown(self) -> None:
        """All comes to its end: every byte arrives, every stream is forgotten."""
        for end in (0, 1):
            for number in self.usable(end):
                if not self.streams[number].ways[end].eof_sent:
                    self.ends[end].send_eof(number)
                    self.streams[number].ways[end].eof_sent = True
        for _ in range(8):
            for sender in (0, 1):
                self.deliver(sender, 1 << 30)
                for number in self.usable(1 - sender):
                    way = self.streams[number].ways[1 - sender]
                    if not way.eof_sent:
                        self.ends[1 - sender].send_eof(number)
                        way.eof_sent = True
        for number, stream in self.streams.items():
            if not any(stream.dead):
                for way in stream.ways:
                    assert way.arrived == way.sent and way.eof_arrived, number
        for sender, machine in enumerate(self.ends):
            assert machine.open_streams == 0
            assert not self.wires[sender] and not machine.backlog and not self.pings[sender]
        for sender, machine in enumerate(self.ends):  # every place is free again
            fresh = [machine.open_stream() for _ in range(MAX_INBOUND)]
            got = self.ends[1 - sender].receive(machine.data_to_send())
            assert got == [StreamOpened(number) for number in fresh]


TestTwoEnds = TwoEnds.TestCase
TestTwoEnds.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def _frame(kind: int, flags: int, stream: int, length: int, payload: bytes) -> bytes:
    return (
        bytes([0, kind])
        + flags.to_bytes(2, "big")
        + stream.to_bytes(4, "big")
        + length.to_bytes(4, "big")
        + payload
    )


_plausible = st.builds(
    _frame,
    st.integers(0, 4),
    st.integers(0, 17),
    st.integers(0, 9),
    st.one_of(
        st.integers(0, 64), st.sampled_from([INITIAL_WINDOW, INITIAL_WINDOW + 1, 0xFFFF_FFFF])
    ),
    st.binary(max_size=64),
)


@settings(max_examples=200, deadline=None)
@given(
    client=st.booleans(),
    pieces=st.lists(st.one_of(_plausible, st.binary(max_size=40)), max_size=30),
    ours=st.lists(st.integers(0, 30), max_size=4),
)
def test_no_bytes_raise_anything_but_a_remote_protocol_error(
    client: bool, pieces: list[bytes], ours: list[int]
) -> None:
    machine = Yamux(client=client, max_inbound=3)
    mine: list[int] = []
    for index, piece in enumerate(pieces):
        if index in ours:
            with contextlib.suppress(LocalProtocolError):  # the peer may have said go-away
                mine.append(machine.open_stream())
        try:
            machine.receive(piece)
        except RemoteProtocolError as error:
            assert error.reason is Reason.YAMUX_VIOLATION  # noqa: PT017
            return
        assert machine.open_streams <= 3 + len(mine)


def test_the_model_notices_a_lost_byte() -> None:
    """The judge itself: a machine that loses one byte must not pass."""
    model = TwoEnds()
    model.open(0)
    model.send(0, 0, 100)
    model.deliver(0, 30)
    del model.wires[0][:1]
    model.send(0, 0, 1)
    with pytest.raises((AssertionError, RemoteProtocolError)):
        model.deliver(0, 1 << 30)
