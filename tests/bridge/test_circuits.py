"""Dialling through a relay and being dialled through one, with relays that lie."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
from libp2p.relay.circuit_v2.pb import circuit_pb2
from trio.testing import MockClock

from appliance.bridge.circuits import (
    CIRCUIT_DEADLINE,
    STOP_REQUEST_DEADLINE,
    CircuitAcceptor,
    dial_through,
)
from appliance.bridge.connection import Connection, Relayed
from appliance.bridge.host import HANDSHAKE_DEADLINE, HostLimits
from appliance.bridge.messages import (
    encode_hop_status,
    encode_incoming_circuit,
    encode_reserve,
    encode_stop_status,
)
from appliance.bridge.negotiate import NegotiatedStream
from appliance.errors import Fault, Refused, StreamReset
from appliance.reasons import Reason
from appliance.wire.circuit import HOP, OK, STOP, Limit
from tests.bridge.strangers import assert_serves, ping
from tests.bridge.world import NOBODY, World, small_world, until

Serve = Callable[[NegotiatedStream, Connection], Awaitable[None]]


async def stop_answer(conn: Connection, message: bytes) -> circuit_pb2.StopMessage:
    """What a target answers to one stop message."""
    stream = conn.open(STOP)
    await stream.send_message(message)
    answer = circuit_pb2.StopMessage.FromString(await stream.receive_message())
    assert answer.type == circuit_pb2.StopMessage.STATUS
    return answer


# --- calling


async def test_both_ends_know_each_other_and_the_relay(world: World) -> None:
    relay, a, b = await world.relay(), await world.host(), await world.host()
    await world.reserve(b, relay)
    conn = await world.circuit(a, relay, b)
    [seen] = b.connections(a.peer_id)
    assert conn.path == seen.path == Relayed(relay.peer_id, Limit(120, 128 * 1024))
    assert (conn.direction, seen.direction) == ("outbound", "inbound")
    assert conn.introduced_by == seen.introduced_by == relay.peer_id
    assert await ping(conn, b"end to end") == b"end to end"
    # Nobody learns an address from a circuit.
    await conn.identified.wait()
    assert conn.observed is None and seen.observed is None


async def test_a_refusal_names_the_status_and_leaves_no_stream(world: World) -> None:
    relay, a = await world.relay(), await world.host()
    conn = await world.connect(a, relay.host)
    await conn.identified.wait()
    with pytest.raises(Refused, match="NO_RESERVATION") as caught:
        await dial_through(a, conn, NOBODY)
    assert caught.value.reason is Reason.TARGET_UNREACHABLE
    await until(lambda: conn.session.open_streams == 0)


async def _hang_up(stream: NegotiatedStream, conn: Connection) -> None:
    await stream.receive_message()
    await stream.aclose()


async def _reset(stream: NegotiatedStream, conn: Connection) -> None:
    stream.reset()


async def _half_a_message(stream: NegotiatedStream, conn: Connection) -> None:
    await stream.send_all(b"\x20abc")
    await stream.send_eof()


async def _garbage(stream: NegotiatedStream, conn: Connection) -> None:
    await stream.send_all(b"\xff" * 300)


async def _huge(stream: NegotiatedStream, conn: Connection) -> None:
    await stream.send_all(b"\xa0\x8d\x06")


async def _a_request(stream: NegotiatedStream, conn: Connection) -> None:
    await stream.send_message(encode_reserve())


async def _strange_status(stream: NegotiatedStream, conn: Connection) -> None:
    await stream.send_message(encode_hop_status(0))


async def _no_peer_behind(stream: NegotiatedStream, conn: Connection) -> None:
    await stream.send_message(encode_hop_status(OK))
    await stream.aclose()


@pytest.mark.parametrize(
    ("serve", "reason"),
    [
        (_hang_up, Reason.TARGET_UNREACHABLE),
        (_reset, Reason.TARGET_UNREACHABLE),
        (_half_a_message, Reason.TARGET_UNREACHABLE),
        (_garbage, Reason.MALFORMED_MESSAGE),
        (_huge, Reason.MESSAGE_TOO_LARGE),
        (_a_request, Reason.UNEXPECTED_MESSAGE),
        (_strange_status, Reason.TARGET_UNREACHABLE),
        (_no_peer_behind, Reason.HANDSHAKE_FAILED),
    ],
    ids=lambda value: getattr(value, "__name__", "").strip("_") or None,
)
async def test_a_relay_that_misbehaves_is_a_fault_and_leaves_no_stream(
    world: World, serve: Serve, reason: Reason
) -> None:
    relay, a = await world.host(), await world.host()
    relay.handle(HOP, serve)
    conn = await world.connect(a, relay)
    await conn.identified.wait()
    with pytest.raises(Fault) as caught:
        await dial_through(a, conn, NOBODY)
    assert caught.value.reason is reason
    await until(lambda: conn.session.open_streams == 0)
    assert not any(c.relayed for c in a.connections())
    assert await ping(conn)


async def test_a_relay_that_connects_us_to_somebody_else_is_found_out(world: World) -> None:
    relay = await world.relay()
    a, wanted, other = await world.host(), await world.host(), await world.host()
    await world.reserve(other, relay)

    async def divert(stream: NegotiatedStream, conn: Connection) -> None:
        """Answer CONNECT for anybody with a circuit to `other`."""
        await stream.receive_message()
        [to_other] = relay.host.connections(other.peer_id)
        onward = to_other.open(STOP)
        await onward.send_message(encode_incoming_circuit(conn.peer_id, Limit()))
        await onward.receive_message()
        await stream.send_message(encode_hop_status(OK))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_copy, stream, onward)
            nursery.start_soon(_copy, onward, stream)

    relay.host.handle(HOP, divert)
    conn = await world.connect(a, relay.host)
    with pytest.raises(Fault) as caught:
        await dial_through(a, conn, wanted.peer_id)
    assert caught.value.reason is Reason.WRONG_PEER
    await until(lambda: not other.connections(a.peer_id))


async def _copy(source: NegotiatedStream, target: NegotiatedStream) -> None:
    while data := await source.receive_some():
        await target.send_all(data)
    await target.send_eof()


async def test_a_relay_that_never_answers_is_given_up(fast_clock: MockClock) -> None:
    async def silence(stream: NegotiatedStream, conn: Connection) -> None:
        await trio.sleep_forever()

    async with small_world(float("inf")) as world:
        relay, a = await world.host(), await world.host()
        relay.handle(HOP, silence)
        conn = await world.connect(a, relay)
        await conn.identified.wait()
        started = trio.current_time()
        with pytest.raises(Fault) as caught:
            await dial_through(a, conn, NOBODY)
        assert caught.value.reason is Reason.TARGET_UNREACHABLE
        assert CIRCUIT_DEADLINE <= trio.current_time() - started < CIRCUIT_DEADLINE + 1
        await trio.sleep(1)
        assert conn.session.open_streams == 0


async def test_a_cancelled_dial_leaves_no_circuit(world: World) -> None:
    relay, a, b = await world.relay(), await world.host(), await world.host()
    asked = trio.Event()

    async def silence(stream: NegotiatedStream, conn: Connection) -> None:
        await stream.receive_message()
        await stream.send_message(encode_stop_status(OK))
        asked.set()  # and no handshake follows
        await trio.sleep_forever()

    await world.reserve(b, relay)
    b.handle(STOP, silence)
    conn = await world.connect(a, relay.host)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(dial_through, a, conn, b.peer_id)
        await asked.wait()
        await until(lambda: relay.telemetry.circuits_opened)
        nursery.cancel_scope.cancel()
    await until(lambda: relay.service.table.circuits == 0)
    assert not a.connections(b.peer_id)


# --- being called


async def test_stop_from_a_stranger_is_refused(world: World) -> None:
    host, stranger = await world.host(), await world.host()
    CircuitAcceptor(host, lambda _: False)
    conn = await world.connect(stranger, host)
    answer = await stop_answer(conn, encode_incoming_circuit(NOBODY, Limit()))
    assert answer.status == 202
    assert host.telemetry.refusals == {("stop", Reason.STOP_FROM_STRANGER): 1}
    await assert_serves(world, host)


async def test_stop_through_a_circuit_is_refused(world: World) -> None:
    """Even from a relay of ours: a circuit in a circuit."""
    relay, a, b = await world.relay(), await world.host(), await world.host()
    CircuitAcceptor(b, lambda _: True)
    await world.reserve(b, relay)
    CircuitAcceptor(b, lambda _: True)
    conn = await world.circuit(a, relay, b)
    answer = await stop_answer(conn, encode_incoming_circuit(NOBODY, Limit()))
    assert answer.status == 202
    assert b.telemetry.refusals == {("stop", Reason.STOP_FROM_STRANGER): 1}


@pytest.mark.parametrize(
    ("message", "status", "reason"),
    [
        (b"", 400, Reason.MALFORMED_MESSAGE),
        (b"\xff" * 30, 400, Reason.MALFORMED_MESSAGE),
        (b"\x08\x00", 400, Reason.MALFORMED_MESSAGE),
        (bytes(5000), 400, Reason.MESSAGE_TOO_LARGE),
        (encode_stop_status(OK), 401, Reason.UNEXPECTED_MESSAGE),
    ],
    ids=["empty", "garbage", "no-peer", "large", "status"],
)
async def test_a_stop_that_is_none_is_refused(
    world: World, message: bytes, status: int, reason: Reason
) -> None:
    host, relay = await world.host(), await world.host()
    CircuitAcceptor(host, lambda _: True)
    conn = await world.connect(relay, host)
    assert (await stop_answer(conn, message)).status == status
    assert host.telemetry.refusals == {("stop", reason): 1}
    assert await ping(conn)


async def test_a_full_host_refuses_circuits_too(world: World) -> None:
    host = await world.host(limits=HostLimits(1))
    CircuitAcceptor(host, lambda _: True)
    conn = await world.connect(await world.host(), host)
    answer = await stop_answer(conn, encode_incoming_circuit(NOBODY, Limit()))
    assert answer.status != OK
    assert host.telemetry.refusals == {("stop", Reason.CONNECTIONS_FULL): 1}


async def test_the_caller_must_be_whom_the_relay_named(world: World) -> None:
    """The relay plays the caller itself, under another's name."""
    host, relay = await world.host(), await world.host()
    CircuitAcceptor(host, lambda _: True)
    conn = await world.connect(relay, host)
    stream = conn.open(STOP)
    await stream.send_message(encode_incoming_circuit(NOBODY, Limit()))
    await stream.receive_message()
    with pytest.raises(Fault):
        await _upgraded(world, stream, host.peer_id)
    assert not host.connections(NOBODY)
    assert not any(c.relayed for c in host.connections())
    assert host.telemetry.refusals == {("stream", Reason.WRONG_PEER): 1}
    assert await ping(conn)


async def _upgraded(world: World, stream: NegotiatedStream, target: str) -> None:
    """Upgrade a circuit as its caller, and wait until it turns out to be of no use."""
    caller = await world.host()
    conn = await caller.adopt(stream, Relayed("-", Limit()), "outbound", client=True, expect=target)
    await conn.session.closed.wait()
    raise Fault(conn.session.closed_reason or Reason.CONNECTION_LOST)


@pytest.mark.parametrize("stage", ["request", "handshake"])
async def test_a_relay_that_falls_silent_is_cut(fast_clock: MockClock, stage: str) -> None:
    async with small_world(float("inf")) as world:
        host, relay = await world.host(), await world.host()
        CircuitAcceptor(host, lambda _: True)
        conn = await world.connect(relay, host)
        stream = conn.open(STOP)
        started = trio.current_time()
        if stage == "request":
            await stream.flush()
            answer = circuit_pb2.StopMessage.FromString(await stream.receive_message())
            assert answer.status == 400
            deadline = STOP_REQUEST_DEADLINE
        else:
            await stream.send_message(encode_incoming_circuit(NOBODY, Limit()))
            await stream.receive_message()
            with pytest.raises(StreamReset):
                await stream.receive_some()
            deadline = HANDSHAKE_DEADLINE
        assert deadline <= trio.current_time() - started < deadline + 1
        assert host.telemetry.refusals.total() == 1
        assert not host.connections(NOBODY)
