"""Protocols chosen lazily, on streams in memory: agreed, refused, late, cut, cancelled."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from appliance.bridge.negotiate import NegotiatedStream, accept
from appliance.dataplane.session import Session
from appliance.dataplane.streams import BATCH
from appliance.errors import RemoteProtocolError, StreamReset
from appliance.reasons import Reason
from appliance.wire.framing import frame
from appliance.wire.multistream import HEADER, line
from tests.dataplane.carriers import MemoryCarrier, carrier_pair
from tests.dataplane.sessions import outcome_of, read_to_end, settle

P = "/a/protocol"
PROPOSAL = line(HEADER) + line(P)
REFUSAL = line(HEADER) + line("na")


def proposed(
    *, segments: list[int] | None = None, capacity: int = 1 << 30
) -> tuple[NegotiatedStream, MemoryCarrier]:
    """A stream that proposes `P`, and the raw other end."""
    inner, raw = carrier_pair(segments=segments, capacity=capacity)
    return NegotiatedStream.propose(inner, P), raw


def carrier_of(stream: NegotiatedStream) -> MemoryCarrier:
    assert isinstance(stream.inner, MemoryCarrier)
    return stream.inner


async def accepted(raw: MemoryCarrier) -> NegotiatedStream:
    return await accept(raw, lambda protocol: protocol == P)


async def test_the_proposal_travels_with_the_first_bytes(autojump_clock: MockClock) -> None:
    stream, raw = proposed()
    assert raw.unread == 0
    await stream.send_all(b"hello")
    assert await raw.receive_some() == PROPOSAL + b"hello"
    await stream.send_all(b"more")
    assert await raw.receive_some() == b"more"


@pytest.mark.parametrize("how", ["receive_some", "receive_exactly", "receive_message", "send_eof"])
async def test_or_alone_if_we_have_nothing_to_say(autojump_clock: MockClock, how: str) -> None:
    stream, raw = proposed()
    operation = getattr(stream, how)
    argument = (3,) if how == "receive_exactly" else ()
    async with outcome_of(lambda: operation(*argument)) as outcome:
        assert await raw.receive_some() == PROPOSAL
        await raw.send_all(PROPOSAL + frame(b"ab"))
    expected = {"receive_some": frame(b"ab"), "receive_exactly": frame(b"ab"),
                "receive_message": b"ab", "send_eof": None}  # fmt: skip
    assert outcome == [expected[how]]


@pytest.mark.parametrize("segments", [None, [1], [20, 1, 3]], ids=str)
async def test_both_ends_agree_however_the_bytes_are_cut(
    autojump_clock: MockClock, segments: list[int] | None
) -> None:
    stream, raw = proposed(segments=segments)
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            there = await accepted(raw)
            assert there.protocol == P
            assert await there.receive_message() == b"question"
            await there.send_message(b"answer")
            await there.send_all(b"tail")
            await there.aclose()

        nursery.start_soon(serve)
        await stream.send_message(b"question")
        assert await stream.receive_message() == b"answer"
        assert await stream.receive_exactly(1) == b"t"
        assert await read_to_end(stream) == b"ail"


async def test_both_directions_at_once(autojump_clock: MockClock) -> None:
    """The receiver and the sender both find the proposal unsent: it goes out once, in front."""
    stream, raw = proposed(capacity=10)
    async with trio.open_nursery() as nursery:
        got: list[bytes] = []

        async def receive() -> None:
            got.append(await stream.receive_some())

        nursery.start_soon(receive)
        nursery.start_soon(stream.send_all, b"x" * 100)
        wire = b""
        while len(wire) < len(PROPOSAL) + 100:
            wire += await raw.receive_some()
        assert wire == PROPOSAL + b"x" * 100
        await raw.send_all(PROPOSAL + b"answer")
        while not got:
            await settle()
    assert b"answer".startswith(got[0])


@pytest.mark.parametrize("how", ["receive_some", "receive_message", "confirmed"])
async def test_a_refusal_shows_at_the_first_receive(autojump_clock: MockClock, how: str) -> None:
    stream, raw = proposed(segments=[1])
    await stream.send_all(b"too early")
    async with outcome_of(getattr(stream, how)) as outcome:
        await raw.send_all(REFUSAL)
    (error,) = outcome
    assert isinstance(error, RemoteProtocolError)
    assert error.reason is Reason.UNSUPPORTED_PROTOCOL


async def test_a_late_answer_is_waited_for(autojump_clock: MockClock) -> None:
    stream, raw = proposed()
    async with outcome_of(stream.confirmed) as outcome:
        await trio.sleep(100)
        assert not outcome
        await raw.send_all(PROPOSAL[:-1])
        await trio.sleep(100)
        assert not outcome
        await raw.send_all(PROPOSAL[-1:])
    assert outcome == [None]


@pytest.mark.parametrize("said", [b"", PROPOSAL[:7], PROPOSAL[:-1]])
async def test_an_end_of_file_is_no_agreement(autojump_clock: MockClock, said: bytes) -> None:
    for how in ("receive_some", "receive_message", "confirmed"):
        stream, raw = proposed()
        await raw.send_all(said)
        await raw.send_eof()
        with pytest.raises(StreamReset):
            await getattr(stream, how)()


async def test_an_end_of_file_behind_the_agreement_is_one(autojump_clock: MockClock) -> None:
    stream, raw = proposed()
    await raw.send_all(PROPOSAL)
    await raw.send_eof()
    assert await stream.receive_some() == b""
    with pytest.raises(StreamReset):
        await stream.receive_exactly(1)
    with pytest.raises(StreamReset):
        await stream.receive_message()


@pytest.mark.parametrize("cut", range(1, 12))
async def test_a_cancelled_receive_of_a_message_loses_nothing(
    autojump_clock: MockClock, cut: int
) -> None:
    stream, raw = proposed()
    wire = PROPOSAL + frame(b"a message") + b"rest"
    at = len(PROPOSAL) + cut - 1
    await raw.send_all(wire[:at])
    with trio.move_on_after(1) as scope:
        assert await stream.receive_message() == b"a message"
    await raw.send_all(wire[at:])
    if scope.cancelled_caught:
        assert await stream.receive_message() == b"a message"
    assert await stream.receive_exactly(4) == b"rest"


async def test_a_proposal_that_was_cut_off_is_not_followed_by_naked_bytes(
    autojump_clock: MockClock,
) -> None:
    stream, raw = proposed(capacity=5)
    with trio.move_on_after(1) as scope:
        await stream.receive_some()
    assert scope.cancelled_caught
    assert carrier_of(stream).was_reset
    with pytest.raises(StreamReset):
        await stream.send_all(b"naked")
    assert (await raw.receive_some())[:5] == PROPOSAL[:5]


async def test_a_receive_cancelled_before_the_proposal_left_changes_nothing(
    autojump_clock: MockClock,
) -> None:
    stream, raw = proposed()
    with trio.CancelScope() as scope:
        scope.cancel()
        await stream.receive_some()
    await stream.send_all(b"hello")
    assert await raw.receive_some() == PROPOSAL + b"hello"


async def test_a_message_that_is_too_large_is_refused_by_its_length(
    autojump_clock: MockClock,
) -> None:
    stream, raw = proposed()
    await raw.send_all(PROPOSAL + b"\x81\x20")
    with pytest.raises(RemoteProtocolError) as caught:
        await stream.receive_message(4096)
    assert caught.value.reason is Reason.MESSAGE_TOO_LARGE


async def test_a_reset_takes_the_proposal_back(autojump_clock: MockClock) -> None:
    stream, raw = proposed()
    stream.reset()
    with pytest.raises(StreamReset):
        await stream.receive_some()
    assert raw.unread == 0


# --- the other end


async def test_accepting_the_second_proposal(autojump_clock: MockClock) -> None:
    inner, raw = carrier_pair()
    async with outcome_of(lambda: accepted(inner)) as outcome:
        await raw.send_all(line(HEADER) + line("/other"))
        await settle()
        assert await raw.receive_some() == REFUSAL
        await raw.send_all(line(P) + b"first bytes")
    (stream,) = outcome
    assert isinstance(stream, NegotiatedStream)
    assert stream.take_buffered() == b"first bytes" and stream.take_buffered() == b""


@pytest.mark.parametrize("said", [b"", line(HEADER), line(HEADER) + line(P)[:-1]])
async def test_a_peer_that_leaves_while_choosing(autojump_clock: MockClock, said: bytes) -> None:
    inner, raw = carrier_pair()
    await raw.send_all(said)
    await raw.send_eof()
    with pytest.raises(StreamReset):
        await accepted(inner)


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\n\r\n" * 10, line(P), b"\xff" * 20])
async def test_a_peer_that_speaks_something_else(autojump_clock: MockClock, said: bytes) -> None:
    inner, raw = carrier_pair()
    await raw.send_all(said)
    with pytest.raises(RemoteProtocolError):
        await accepted(inner)


# --- driven without waiting


def taken(stream: NegotiatedStream) -> bytes:
    """What is there, taken at once; trio.WouldBlock if nothing is."""
    into = memoryview(bytearray(BATCH))
    return bytes(into[: stream.receive_nowait(into)])


async def driven(stream: NegotiatedStream, count: int) -> bytes:
    """`count` bytes, taken like a session takes them."""
    out = b""
    while len(out) < count:
        try:
            out += taken(stream)
        except trio.WouldBlock:
            await stream.wait_receivable()
    return out


async def test_a_driver_sends_the_proposal_with_its_first_bytes(autojump_clock: MockClock) -> None:
    stream, raw = proposed(capacity=5)
    batch = bytearray(b"hello")
    stream.send_nowait(memoryview(batch))
    batch[:] = b"xxxxx"  # it was only on loan
    assert stream.sending
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.drain)
        wire = b""
        while len(wire) < len(PROPOSAL) + 5:
            wire += await raw.receive_some()
    assert wire == PROPOSAL + b"hello" and not stream.sending
    stream.send_nowait(memoryview(b"more"))
    assert await raw.receive_some() == b"more"


async def test_a_driver_that_waits_sends_the_proposal(autojump_clock: MockClock) -> None:
    stream, raw = proposed()
    with pytest.raises(trio.WouldBlock):
        taken(stream)
    async with outcome_of(stream.wait_receivable) as outcome:
        assert await raw.receive_some() == PROPOSAL
        assert not outcome
        await raw.send_all(b"x")
    assert outcome == [None]


@pytest.mark.parametrize("segments", [None, [1], [20, 1, 3], [len(PROPOSAL)], [len(PROPOSAL) + 1]],
                         ids=str)  # fmt: skip
async def test_a_driver_finds_the_agreement_however_it_is_cut(
    autojump_clock: MockClock, segments: list[int] | None
) -> None:
    stream, raw = proposed(segments=segments)
    await raw.send_all(PROPOSAL + b"behind it")
    await raw.send_eof()
    assert await driven(stream, 9) == b"behind it"
    assert taken(stream) == taken(stream) == b""


@pytest.mark.parametrize("said", [b"", PROPOSAL[:7], PROPOSAL[:-1]])
async def test_an_end_of_file_is_no_agreement_for_a_driver_either(
    autojump_clock: MockClock, said: bytes
) -> None:
    stream, raw = proposed()
    await raw.send_all(said)
    await raw.send_eof()
    with pytest.raises(StreamReset):
        await driven(stream, 1)


async def test_an_end_of_file_right_behind_the_agreement_is_one_for_a_driver_too(
    autojump_clock: MockClock,
) -> None:
    stream, raw = proposed()
    await raw.send_all(PROPOSAL)
    await raw.send_eof()
    with pytest.raises(trio.WouldBlock):
        taken(stream)
    with trio.fail_after(1):
        await stream.wait_receivable()
    assert taken(stream) == b""


async def test_a_driver_learns_of_a_refusal(autojump_clock: MockClock) -> None:
    stream, raw = proposed(segments=[1])
    await raw.send_all(REFUSAL)
    with pytest.raises(RemoteProtocolError) as caught:
        await driven(stream, 1)
    assert caught.value.reason is Reason.UNSUPPORTED_PROTOCOL


async def test_what_was_read_too_far_is_what_a_driver_gets_first(
    autojump_clock: MockClock,
) -> None:
    stream, raw = proposed()
    await raw.send_all(PROPOSAL + frame(b"ab") + b"rest")
    assert await stream.receive_message() == b"ab"
    into = memoryview(bytearray(BATCH))
    assert stream.receive_nowait(into[:3]) == 3 and bytes(into[:3]) == b"res"
    with trio.fail_after(1):
        await stream.wait_receivable()
    await raw.send_all(b" and more")
    assert await driven(stream, 10) == b"t and more"


async def test_a_refusal_of_the_muxer_is_the_reason_of_the_connection(
    autojump_clock: MockClock,
) -> None:
    stream, raw = proposed()
    session = Session(stream, client=True)
    await raw.send_all(REFUSAL)
    assert await session.run(lambda _: None) is Reason.UNSUPPORTED_PROTOCOL


async def test_a_connection_that_has_nothing_to_say_still_proposes_its_muxer(
    autojump_clock: MockClock,
) -> None:
    stream, raw = proposed()
    session = Session(stream, client=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(session.run, lambda _: None)
        await settle()
        assert await raw.receive_some() == PROPOSAL
        await raw.send_all(PROPOSAL + bytes([0, 2, 0, 1]) + bytes(7) + b"\x09")
        await settle()
        assert await raw.receive_some() == bytes([0, 2, 0, 2]) + bytes(7) + b"\x09"
        session.abort(Reason.IDLE)


async def test_first_bytes_do_not_overtake_a_proposal_that_is_on_its_way(
    autojump_clock: MockClock,
) -> None:
    """The reader sends it alone, and waits inside; the writer has something to say meanwhile."""
    for capacity in (5, 1 << 30):
        stream, raw = proposed(capacity=capacity)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.wait_receivable)
            await trio.lowlevel.checkpoint()
            wire = b""

            async def write(stream: NegotiatedStream = stream) -> None:
                while stream.sending:
                    await stream.drain()
                stream.send_nowait(memoryview(b"first bytes"))
                await stream.drain()

            nursery.start_soon(write)
            while len(wire) < len(PROPOSAL) + 11:
                wire += await raw.receive_some()
            nursery.cancel_scope.cancel()
        assert wire == PROPOSAL + b"first bytes"
