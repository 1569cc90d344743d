"""What a muxer makes of single frames, and what it says: the peer is the test itself."""

from __future__ import annotations

import random

import pytest
import trio
from trio.testing import MockClock

from appliance.errors import StreamReset
from appliance.reasons import Reason
from appliance.units import KIB, MIB
from tests.dataplane.conformance.muxers import Defect, End, Subject, subjects
from tests.dataplane.conformance.wire import (
    ACK,
    DATA,
    FIN,
    GO_AWAY,
    INITIAL_WINDOW,
    PING,
    RST,
    SYN,
    WINDOW_UPDATE,
    Frame,
    Wire,
    data,
    update,
)
from tests.dataplane.sessions import outcome_of, read_to_end

PAYLOAD = random.Random(6).randbytes(1 * MIB)


async def check_alive(end: End, wire: Wire) -> None:
    """The connection serves the next stream."""
    stream = await wire.open()
    accepted = await end.accept()
    await wire.send(data(stream, b"alive", FIN))
    assert await read_to_end(accepted) == b"alive"
    await accepted.send_all(b"and well")
    await accepted.send_eof()
    assert await wire.payload(stream, 8) == b"and well"


# --- opening


@subjects()
async def test_it_announces_a_stream_in_front_of_its_bytes(
    autojump_clock: MockClock, subject: Subject
) -> None:
    async with subject.wired() as (end, wire):
        for number in (1, 3, 5) if subject.client else (2, 4, 6):
            stream = end.session.open_stream()
            assert await wire.syn() == number
            await wire.send(update(number, ACK))
            await stream.send_all(PAYLOAD[number:100])
            assert await wire.payload(number, 100 - number) == PAYLOAD[number:100]


@subjects()
async def test_it_acknowledges_a_stream_once(autojump_clock: MockClock, subject: Subject) -> None:
    async with subject.wired() as (end, wire):
        stream = await wire.open()
        accepted = await end.accept()
        await wire.heard(WINDOW_UPDATE, stream, flags=ACK)
        await accepted.send_all(b"x")
        assert (await wire.heard(DATA, stream)).flags == 0
        with trio.move_on_after(5):
            frame = await wire.heard(WINDOW_UPDATE, stream, flags=ACK)
            raise AssertionError(frame)


@subjects()
async def test_payload_may_come_with_the_announcement(
    autojump_clock: MockClock, subject: Subject
) -> None:
    async with subject.wired() as (end, wire):
        stream = wire.new_id()
        await wire.send(data(stream, b"question", SYN), data(stream, b" mark", FIN))
        assert await read_to_end(await end.accept()) == b"question mark"


@subjects()
async def test_announcement_payload_and_end_in_one_frame(
    autojump_clock: MockClock, subject: Subject
) -> None:
    async with subject.wired() as (end, wire):
        await wire.send(data(wire.new_id(), b"all there is", SYN | FIN))
        assert await read_to_end(await end.accept()) == b"all there is"


@subjects(stock=Defect.ACK_HIDES_FIN)
async def test_acknowledgement_payload_and_end_in_one_frame(
    autojump_clock: MockClock, subject: Subject
) -> None:
    async with subject.wired() as (end, wire):
        ours = end.session.open_stream()
        await wire.send(data(await wire.syn(), b"short answer", ACK | FIN))
        with trio.fail_after(5):
            assert await read_to_end(ours) == b"short answer"


@subjects()
async def test_streams_may_overtake_each_other(autojump_clock: MockClock, subject: Subject) -> None:
    """go-yamux numbers a stream in one step and announces it in another."""
    async with subject.wired() as (end, wire):
        first, second, third = wire.new_id(), wire.new_id(), wire.new_id()
        for stream in (third, first, second):
            await wire.send(data(stream, b"%d" % stream, SYN | FIN))
            assert await read_to_end(await end.accept()) == b"%d" % stream


@subjects(stock=Defect.NO_LIMIT)
async def test_a_stream_too_many_is_reset(autojump_clock: MockClock, subject: Subject) -> None:
    async with subject.wired(max_inbound=4) as (end, wire):
        for _ in range(4):
            await wire.open()
            await end.accept()
        with trio.fail_after(5):
            await wire.heard(WINDOW_UPDATE, await wire.open(), flags=RST)
        assert end.session.streams_refused == 1


# --- payload


@subjects()
async def test_empty_frames_are_nothing(autojump_clock: MockClock, subject: Subject) -> None:
    async with subject.wired() as (end, wire):
        stream = await wire.open()
        accepted = await end.accept()
        await wire.send(
            data(stream, b""), data(stream, b"a"), data(stream, b""), data(stream, b"b")
        )
        await wire.answers()
        assert await accepted.receive_some(1) == b"a"
        assert await accepted.receive_some(1) == b"b"
        async with outcome_of(accepted.receive_some) as got:
            await wire.send(data(stream, b""), update(stream))
            await wire.answers()
            assert not got, "an empty frame reads as an end of file"
            await wire.send(data(stream, b"", FIN))
        assert got == [b""]


@subjects()
async def test_frames_of_one_byte(autojump_clock: MockClock, subject: Subject) -> None:
    async with subject.wired() as (end, wire):
        stream = await wire.open()
        await wire.send(*(data(stream, PAYLOAD[at : at + 1]) for at in range(1000)))
        await wire.send(update(stream, FIN))
        assert await read_to_end(await end.accept()) == PAYLOAD[:1000]


@subjects()
@pytest.mark.parametrize("segments", [None, [50_000, 1, 12]], ids=["whole", "cut"])
async def test_a_frame_of_one_mebibyte(
    autojump_clock: MockClock, subject: Subject, segments: list[int] | None
) -> None:
    """A fast reader's window grows, and then one frame may fill it."""
    async with subject.wired(segments=segments) as (end, wire):
        stream = await wire.open()
        accepted = await end.accept()
        while wire.credit[stream] < MIB:
            size = min(64 * KIB, wire.credit[stream])
            await wire.send(data(stream, bytes(size)))
            while size:
                size -= len(await accepted.receive_some(size))
            await wire.answers()
        await wire.send(data(stream, PAYLOAD, FIN))
        assert await read_to_end(accepted) == PAYLOAD
        await check_alive(end, wire)


# --- windows


@subjects()
async def test_it_sends_as_much_as_it_may(autojump_clock: MockClock, subject: Subject) -> None:
    async with subject.wired() as (end, wire):
        ours = end.session.open_stream()
        stream = await wire.syn()
        async with outcome_of(lambda: ours.send_all(PAYLOAD[: INITIAL_WINDOW + 1000])) as sent:
            got = await wire.payload(stream, INITIAL_WINDOW)
            await wire.answers()
            assert not sent
            await wire.send(update(stream, ACK, 999))
            got += await wire.payload(stream, 999)
            await wire.answers()
            assert not sent
            await wire.send(update(stream, 0, 5000))
            got += await wire.payload(stream, 1)
        assert sent == [None]
        assert got == PAYLOAD[: INITIAL_WINDOW + 1000]


@subjects()
async def test_a_stream_may_come_with_a_wider_window(
    autojump_clock: MockClock, subject: Subject
) -> None:
    async with subject.wired() as (end, wire):
        stream = wire.new_id()
        await wire.send(update(stream, SYN, 1000))
        accepted = await end.accept()
        await accepted.send_all(PAYLOAD[: INITIAL_WINDOW + 1000])
        assert await wire.payload(stream, INITIAL_WINDOW + 1000)


@subjects()
async def test_nobody_reads_so_no_window_is_given(
    autojump_clock: MockClock, subject: Subject
) -> None:
    async with subject.wired() as (end, wire):
        stream = await wire.open()
        accepted = await end.accept()
        await wire.send(data(stream, PAYLOAD[:INITIAL_WINDOW]))
        await trio.sleep(60)
        assert wire.credit[stream] == 0
        assert await accepted.receive_some(INITIAL_WINDOW)
        await wire.answers()
        assert wire.credit[stream] > 0


# --- resets


async def check_reset_by(end: End, wire: Wire, *frames: tuple[int, bytes]) -> None:
    """Frames with these flags and payloads end a stream in both directions."""
    stream = await wire.open()
    accepted = await end.accept()
    await wire.send(*(data(stream, payload, flags) for flags, payload in frames))
    await wire.answers()
    with trio.fail_after(5):
        with pytest.raises(StreamReset):
            await accepted.send_all(b"x")
        with pytest.raises(StreamReset):
            await read_to_end(accepted)
    await check_alive(end, wire)


@subjects(stock=Defect.RESET_IS_EOF)
async def test_a_reset_ends_both_directions(autojump_clock: MockClock, subject: Subject) -> None:
    async with subject.wired() as (end, wire):
        await check_reset_by(end, wire, (RST, b""))


@subjects()
async def test_a_reset_may_come_with_payload(autojump_clock: MockClock, subject: Subject) -> None:
    async with subject.wired() as (end, wire):
        await check_reset_by(end, wire, (RST, b"last words"))


@subjects()
async def test_a_reset_may_follow_the_end_of_file(
    autojump_clock: MockClock, subject: Subject
) -> None:
    async with subject.wired() as (end, wire):
        await check_reset_by(end, wire, (FIN, b"all of it"), (RST, b""))


@subjects()
@pytest.mark.parametrize("opened_here", [True, False], ids=["opener", "acceptor"])
async def test_what_comes_late_for_a_reset_stream_is_passed_over(
    autojump_clock: MockClock, subject: Subject, opened_here: bool
) -> None:
    async with subject.wired() as (end, wire):
        if opened_here:
            resets = end.session.open_stream()
            stream = await wire.syn()
        else:
            stream = await wire.open()
            resets = await end.accept()
        resets.reset()
        await wire.heard(WINDOW_UPDATE, stream, flags=RST)
        await wire.send(
            update(stream, ACK),
            data(stream, PAYLOAD[: 100 * KIB]),
            update(stream, 0, 1000),
            data(stream, b"", FIN),
            update(stream, RST),
        )
        await wire.answers()
        await check_alive(end, wire)


@subjects()
async def test_a_reset_in_the_middle_of_a_frame(
    autojump_clock: MockClock, subject: Subject
) -> None:
    """The rest of the frame comes for nobody, and is no header."""
    async with subject.wired() as (end, wire):
        stream = await wire.open()
        accepted = await end.accept()
        frame = data(stream, PAYLOAD[:1000], FIN).encoded()
        await wire.send_raw(frame[:500])
        await trio.sleep(1)
        accepted.reset()
        await wire.heard(WINDOW_UPDATE, stream, flags=RST)
        await wire.send_raw(frame[500:])
        await check_alive(end, wire)


# --- the connection


@subjects()
async def test_pings_are_answered_with_their_values(
    autojump_clock: MockClock, subject: Subject
) -> None:
    async with subject.wired() as (end, wire):
        values = [0, 1, 0xFFFF_FFFF, 7]
        await wire.send(*(Frame(PING, SYN, 0, value) for value in values))
        assert [(await wire.heard(PING, flags=ACK)).length for _ in values] == values
        await wire.send(Frame(PING, ACK, 0, 12345))  # an answer that nobody waits for
        await check_alive(end, wire)


@subjects()
async def test_pings_are_answered_while_a_window_is_closed(
    autojump_clock: MockClock, subject: Subject
) -> None:
    async with subject.wired() as (end, wire):
        ours = end.session.open_stream()
        stream = await wire.syn()
        async with outcome_of(lambda: ours.send_all(bytes(INITIAL_WINDOW + 1))):
            await wire.payload(stream, INITIAL_WINDOW)
            await wire.answers()
            await wire.send(update(stream, 0, 1))


@subjects(stock=Defect.GO_AWAY_KILLS)
async def test_behind_a_go_away_existing_streams_live_on(
    autojump_clock: MockClock, subject: Subject
) -> None:
    async with subject.wired() as (end, wire):
        ours = end.session.open_stream()
        stream = await wire.syn()
        await wire.send(Frame(GO_AWAY, 0, 0, 0))
        await wire.answers()
        await wire.send(data(stream, b"finishing", FIN))
        assert await read_to_end(ours) == b"finishing"
        await ours.send_all(b"as well")
        assert await wire.payload(stream, 7) == b"as well"
        with pytest.raises(StreamReset):
            end.session.open_stream()


@subjects()
async def test_its_goodbye_is_a_go_away_and_an_end_of_file(
    autojump_clock: MockClock, subject: Subject
) -> None:
    async with subject.wired() as (end, wire):
        ours = end.session.open_stream()
        await wire.syn()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(end.session.close, Reason.IDLE)
            assert (await wire.heard(GO_AWAY)).length == 0
            await wire.ended.wait()
            await wire.end()
        assert end.session.closed_reason is Reason.IDLE
        with pytest.raises(StreamReset):
            end.session.open_stream()
        with pytest.raises(StreamReset):
            await ours.send_all(b"x")


@subjects(stock=Defect.LOSS_IS_EOF)
@pytest.mark.parametrize("rest", [b"", b"\0\0\0"], ids=["between frames", "inside a frame"])
async def test_streams_are_reset_when_the_connection_is_lost(
    autojump_clock: MockClock, subject: Subject, rest: bytes
) -> None:
    async with subject.wired() as (end, wire):
        ours = end.session.open_stream()
        await wire.syn()
        async with outcome_of(ours.receive_some) as got:
            await wire.send_raw(rest)
            await wire.end()
            await end.ended.wait()
        assert [type(each) for each in got] == [StreamReset]


@subjects(stock=Defect.NO_SIGN_OF_LIFE)
async def test_a_silent_peer_is_given_up(autojump_clock: MockClock, subject: Subject) -> None:
    async with subject.wired() as (end, wire):
        wire.answers_pings = False
        with trio.fail_after(90):
            await end.ended.wait()
        assert end.reason is Reason.PING_TIMEOUT
