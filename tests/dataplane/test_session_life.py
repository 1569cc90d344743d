"""The connection under the streams: signs of life, goodbyes, hostile peers, our own mistakes."""

from __future__ import annotations

import random

import pytest
import trio
from trio.testing import MockClock

from appliance.dataplane.session import MuxStream, Session
from appliance.dataplane.streams import BATCH
from appliance.dataplane.vigil import PING_DEADLINE, PING_INTERVAL
from appliance.dataplane.yamux import MAX_CONTROL_BACKLOG
from appliance.errors import RemoteProtocolError, StreamReset
from appliance.reasons import Reason
from appliance.units import KIB
from tests.dataplane.carriers import MemoryCarrier, carrier_pair
from tests.dataplane.frames import ACK, DATA, GO_AWAY, PING, RST, SYN, frame, window
from tests.dataplane.sessions import End, outcome_of, read_to_end, settle, stream_pair, two_ends

PAYLOAD = random.Random(4).randbytes(600 * KIB)


# --- signs of life (stock defect 8: a dead peer is never noticed)


async def test_a_black_hole_ends_the_connection(autojump_clock: MockClock) -> None:
    async with two_ends() as (one, other):
        ours, theirs = await stream_pair(one, other)
        await theirs.send_all(b"alive")
        assert await ours.receive_some() == b"alive"
        one.carrier.vanish()
        vanished = trio.current_time()
        async with outcome_of(ours.receive_some) as outcome:
            await one.ended.wait()
        assert one.reason is Reason.PING_TIMEOUT
        assert trio.current_time() - vanished <= 2 * PING_INTERVAL + PING_DEADLINE + 1
        assert isinstance(outcome[0], StreamReset)
        assert one.carrier.was_reset


async def test_a_peer_that_was_never_heard_is_a_dead_one_too(autojump_clock: MockClock) -> None:
    carrier, _silent = carrier_pair()
    end = End(carrier, Session(carrier, client=True))
    await end.run()
    assert end.reason is Reason.PING_TIMEOUT
    assert trio.current_time() <= PING_INTERVAL + PING_DEADLINE + 1
    with trio.move_on_after(0) as scope:
        await end.session.first_byte()
    assert scope.cancelled_caught


async def test_an_idle_connection_lives_for_a_day(autojump_clock: MockClock) -> None:
    async with two_ends() as (one, other):
        await trio.sleep(86_400)
        assert not one.session.closed.is_set() and not other.session.closed.is_set()
        assert await one.session.ping() == 0.0


async def test_bytes_are_a_sign_of_life_though_the_pong_is_late(autojump_clock: MockClock) -> None:
    carrier, raw = carrier_pair()
    end = End(carrier, Session(carrier, client=True))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(end.run)
        for _ in range(20):
            # Always just too late to keep us from asking, and never the answer.
            await trio.sleep(PING_INTERVAL + PING_DEADLINE / 2)
            await raw.send_all(frame(PING, SYN, 0, 1))
        assert not end.session.closed.is_set()
        end.session.abort(Reason.IDLE)
    assert await end.session.first_byte() == PING_INTERVAL + PING_DEADLINE / 2


@pytest.mark.parametrize("how", ["abort", "close", "peer", "writer"])
async def test_ending_while_a_ping_is_out_is_no_fault(autojump_clock: MockClock, how: str) -> None:
    """The keepalive's own ping must not turn the end of one connection into an exception."""
    carrier, raw = carrier_pair(capacity=10_000)
    end = End(carrier, Session(carrier, client=True))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(end.run)
        await raw.send_all(frame(PING, ACK, 0, 99))
        await trio.sleep(PING_INTERVAL + PING_DEADLINE / 2)
        assert raw.unread, "a ping is out"
        match how:
            case "abort":
                end.session.abort(Reason.IDLE)
            case "close":
                await end.session.close(Reason.SHUTTING_DOWN)
            case "peer":
                raw.reset()
            case "writer":
                # Only the writer learns it: the reader is still waiting.
                carrier._out.reset = True
                end.session.open_stream()
        await end.ended.wait()
    expected = {"abort": Reason.IDLE, "close": Reason.SHUTTING_DOWN}
    assert end.reason is expected.get(how, Reason.CONNECTION_LOST)


async def test_a_ping_into_a_closed_session_does_not_wait_for_ever(
    autojump_clock: MockClock,
) -> None:
    async with two_ends() as (one, _):
        one.session.abort(Reason.IDLE)
        with trio.fail_after(1), pytest.raises(StreamReset):
            await one.session.ping()


async def test_a_ping_learns_that_its_session_ended(autojump_clock: MockClock) -> None:
    async with two_ends() as (one, other):
        other.carrier.vanish()
        async with outcome_of(one.session.ping) as outcome:
            one.session.abort(Reason.IDLE)
        assert isinstance(outcome[0], StreamReset)


# --- goodbyes


async def test_a_goodbye_loses_nothing_that_was_sent(autojump_clock: MockClock) -> None:
    """The last bytes are still in the backlog, and the carrier takes them slowly."""
    async with two_ends(capacity=512, segments=[512]) as (one, other):
        ours, theirs = await stream_pair(one, other)
        await ours.send_all(PAYLOAD[: 200 * KIB])
        await ours.send_eof()
        got: list[bytes] = []
        async with trio.open_nursery() as nursery:

            async def read() -> None:
                got.append(await read_to_end(theirs))

            nursery.start_soon(read)
            await one.session.close(Reason.SHUTTING_DOWN, patience=60)
        assert got == [PAYLOAD[: 200 * KIB]]
        await other.ended.wait()
        assert one.reason is Reason.SHUTTING_DOWN
        assert other.session.peer_going_away
        assert other.session.closed_detail == "the peer closed it", "and not a reset"


async def test_a_goodbye_to_a_stalled_peer_takes_no_longer_than_its_patience(
    autojump_clock: MockClock,
) -> None:
    async with two_ends(capacity=512) as (one, other):
        ours, _ = await stream_pair(one, other)
        other.carrier._in.black_hole = True
        await ours.send_all(PAYLOAD[: 100 * KIB])
        started = trio.current_time()
        await one.session.close(Reason.SHUTTING_DOWN, patience=2)
        assert trio.current_time() - started == pytest.approx(2)
        await one.ended.wait()
        assert one.reason is Reason.SHUTTING_DOWN and one.carrier.was_reset


async def test_a_goodbye_resets_what_is_still_open(autojump_clock: MockClock) -> None:
    async with two_ends() as (one, other):
        ours, theirs = await stream_pair(one, other)
        async with outcome_of(ours.receive_some) as here, outcome_of(theirs.receive_some) as there:
            await one.session.close(Reason.SHUTTING_DOWN)
        assert isinstance(here[0], StreamReset) and isinstance(there[0], StreamReset)
        with pytest.raises(StreamReset):
            one.session.open_stream()


async def test_goodbyes_from_both_ends_at_once_and_twice(autojump_clock: MockClock) -> None:
    async with two_ends() as (one, other):
        async with trio.open_nursery() as nursery:
            for end in (one, other, one, other):
                nursery.start_soon(end.session.close, Reason.SHUTTING_DOWN)
        assert one.reason is other.reason is Reason.SHUTTING_DOWN
        assert trio.current_time() < 1.5
        await one.session.close(Reason.IDLE)


async def test_a_cancelled_goodbye_is_one_all_the_same(autojump_clock: MockClock) -> None:
    async with two_ends(capacity=10) as (one, other):
        other.carrier._in.black_hole = True
        one.session.open_stream()
        with trio.move_on_after(0.1):
            await one.session.close(Reason.SHUTTING_DOWN, patience=1000)
        with trio.fail_after(1):
            await one.ended.wait()
        assert one.reason is Reason.SHUTTING_DOWN


async def test_nobody_opens_streams_during_a_goodbye(autojump_clock: MockClock) -> None:
    async with two_ends(capacity=100) as (one, other):
        other.carrier._in.black_hole = True
        ours = one.session.open_stream()
        await ours.send_all(bytes(1000))
        async with outcome_of(lambda: one.session.close(Reason.SHUTTING_DOWN, patience=5)):
            with pytest.raises(StreamReset):
                one.session.open_stream()


async def test_after_the_peers_goodbye_we_open_nothing(autojump_clock: MockClock) -> None:
    carrier, raw = carrier_pair()
    end = End(carrier, Session(carrier, client=True))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(end.run)
        await raw.send_all(frame(GO_AWAY, 0, 0, 0))
        await settle()
        with pytest.raises(StreamReset):
            end.session.open_stream()
        end.session.abort(Reason.IDLE)


async def test_when_ids_run_out_opening_is_an_ordinary_failure(autojump_clock: MockClock) -> None:
    async with two_ends() as (one, _):
        one.session._machine._next_id = 0x1_0000_0001
        with pytest.raises(StreamReset):
            one.session.open_stream()


async def test_the_end_of_the_carrier_resets_every_stream(autojump_clock: MockClock) -> None:
    async with two_ends() as (one, other):
        ours, _ = await stream_pair(one, other)
        await other.carrier.send_eof()
        await one.ended.wait()
        assert one.reason is Reason.CONNECTION_LOST
        with pytest.raises(StreamReset):
            await ours.receive_some()
        assert one.carrier.was_reset, "nobody else owns it"


# --- hostile peers


async def hostile(end: End, raw: MemoryCarrier, wire: bytes) -> None:
    """Send `wire`, reading nothing, until the session is over."""
    with trio.fail_after(100):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(end.run)
            while not end.ended.is_set():
                try:
                    await raw.send_all(wire)
                except StreamReset:
                    break
            await end.ended.wait()


async def test_a_violation_is_told_to_the_peer_and_ends_the_connection(
    autojump_clock: MockClock,
) -> None:
    carrier, raw = carrier_pair()
    end = End(carrier, Session(carrier, client=True))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(end.run)
        ours = end.session.open_stream()
        await raw.send_all(frame(DATA, 0, 7, 1))
        await end.ended.wait()
    assert end.reason is Reason.YAMUX_VIOLATION
    assert end.session.closed_detail == "stream 7 was never opened"
    assert frame(GO_AWAY, 0, 0, 1) in await _rest(raw), "go-away: protocol error"
    with pytest.raises(StreamReset):
        await ours.receive_some()


async def test_the_last_word_to_a_violator_is_written_out(autojump_clock: MockClock) -> None:
    carrier, raw = carrier_pair(capacity=5)
    end = End(carrier, Session(carrier, client=True))
    wire = b""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(end.run)
        nursery.start_soon(raw.send_all, frame(DATA, 0, 7, 1))
        while not end.ended.is_set() or raw.unread:
            await trio.sleep(0.05)
            if raw.unread:
                wire += await raw.receive_some()
    assert wire == frame(GO_AWAY, 0, 0, 1)


async def _rest(raw: MemoryCarrier) -> bytes:
    return bytes(raw._in.buffer)


async def test_a_flood_of_pings_that_nobody_reads_ends_the_connection(
    autojump_clock: MockClock,
) -> None:
    carrier, raw = carrier_pair(capacity=10_000)
    end = End(carrier, Session(carrier, client=True))
    await hostile(end, raw, frame(PING, SYN, 0, 1) * 100)
    assert end.reason is Reason.YAMUX_VIOLATION
    assert end.session._machine.backlog <= 2 * MAX_CONTROL_BACKLOG


async def test_a_flood_of_streams_opened_and_reset_keeps_few_owners_alive(
    autojump_clock: MockClock,
) -> None:
    alive = most = served = 0
    carrier, raw = carrier_pair()
    session = Session(carrier, client=False, max_inbound=16)

    async def own(stream: MuxStream) -> None:
        nonlocal alive, most, served
        alive, served = alive + 1, served + 1
        most = max(most, alive)
        try:
            with pytest.raises(StreamReset):
                await stream.receive_some()
        finally:
            alive -= 1
            stream.reset()

    async with trio.open_nursery() as nursery:

        async def run() -> None:
            await session.run(lambda stream: nursery.start_soon(own, stream))

        nursery.start_soon(run)
        wire = b"".join(window(number, flags=SYN | RST) for number in range(1, 40_001, 2))
        await raw.send_all(wire)
        await trio.sleep(1)
        assert served and alive == 0
        assert most <= 3 * 16, "two or three reads may overlap with their owners' last steps"
        assert session.streams_refused > 19_000
        session.abort(Reason.IDLE)


async def test_a_peer_that_never_reads_holds_a_bounded_backlog(autojump_clock: MockClock) -> None:
    async with two_ends(capacity=1000) as (one, other):
        pairs = [await stream_pair(one, other) for _ in range(20)]
        other.carrier._in.black_hole = True
        async with trio.open_nursery() as nursery:
            for ours, _ in pairs:
                nursery.start_soon(ours.send_all, PAYLOAD)
            await settle(1000)
            # What the carrier did not take yet; all else stays with the senders.
            assert one.carrier.unsent <= BATCH
            assert one.session._machine.backlog == 0
            nursery.cancel_scope.cancel()


# --- our own mistakes, and the carrier's


async def test_an_exception_of_on_stream_leaves_nothing_behind(autojump_clock: MockClock) -> None:
    carrier, raw = carrier_pair()
    session = Session(carrier, client=False)
    ours = session.open_stream()

    def broken(_: MuxStream) -> None:
        raise LookupError("a bug")

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(raw.send_all, window(1, flags=SYN))
            with pytest.raises(ExceptionGroup) as caught:
                await session.run(broken)
    assert caught.group_contains(LookupError, match="a bug")
    assert carrier.was_reset and session.closed.is_set()
    with pytest.raises(StreamReset):
        await ours.receive_some()


class _Refusing(MemoryCarrier):
    """A carrier whose own negotiation fails at the first read."""

    def receive_nowait(self, into: memoryview) -> int:
        raise RemoteProtocolError(Reason.UNSUPPORTED_PROTOCOL, "/yamux/1.0.0")


async def test_a_carrier_that_was_refused_says_why(autojump_clock: MockClock) -> None:
    plain, _ = carrier_pair()
    carrier = _Refusing(plain._in, plain._out, plain._segment)
    end = End(carrier, Session(carrier, client=True))
    await end.run()
    assert end.reason is Reason.UNSUPPORTED_PROTOCOL


async def test_cancelling_the_run_ends_all(autojump_clock: MockClock) -> None:
    carrier, _ = carrier_pair()
    session = Session(carrier, client=True)
    ours = session.open_stream()
    with trio.move_on_after(1):
        await session.run(lambda _: None)
    assert session.closed_reason is Reason.CONNECTION_LOST and carrier.was_reset
    with pytest.raises(StreamReset):
        await ours.send_all(b"x")


async def test_a_session_that_was_aborted_before_it_ran(autojump_clock: MockClock) -> None:
    carrier, _ = carrier_pair()
    session = Session(carrier, client=True)
    session.abort(Reason.SHUTTING_DOWN)
    assert await session.run(lambda _: None) is Reason.SHUTTING_DOWN
    assert carrier.was_reset
