"""The relay service on the wire: reservations, and every refusal with its status."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import base58
import pytest
import trio
from libp2p.peer.envelope import unmarshal_envelope
from libp2p.peer.id import ID
from libp2p.relay.circuit_v2.pb import circuit_pb2
from trio.testing import MockClock

from appliance.bridge.connection import Connection
from appliance.bridge.messages import (
    encode_connect,
    encode_hop_status,
    encode_stop_status,
)
from appliance.bridge.negotiate import NegotiatedStream
from appliance.errors import Fault, StreamReset
from appliance.policy.relaying import STOP_DEADLINE
from appliance.reasons import Reason
from appliance.wire import multiaddr
from appliance.wire.circuit import HOP, OK, STOP
from tests.bridge.hops import (
    RESERVE,
    ask,
    circuit,
    status,
    target_of,
)
from tests.bridge.strangers import ping
from tests.bridge.world import (
    NOBODY,
    RelayHost,
    World,
    logged,
    small_world,
    until,
)

# --- reservations


async def test_a_reservation_is_what_the_spec_says(world: World) -> None:
    relay, peer = await world.relay(), await world.host()
    conn = await world.connect(peer, relay.host)
    answer = await ask(conn, RESERVE)
    assert answer.status == OK
    assert abs(answer.reservation.expire - (time.time() + 3600)) < 5
    assert (answer.limit.duration, answer.limit.data) == (120, 131072)
    relay_bytes, peer_bytes = base58.b58decode(relay.peer_id), base58.b58decode(peer.peer_id)
    # "including the peer ID of the relay node but not the trailing p2p-circuit part"
    assert [multiaddr.decode(address) for address in answer.reservation.addrs] == [
        multiaddr.TcpAddress(relay.endpoint, relay_bytes)
    ]
    envelope = unmarshal_envelope(answer.reservation.voucher)
    envelope.validate("libp2p-relay-rsvp")
    assert envelope.payload_type == b"\x03\x02"
    assert str(ID.from_pubkey(envelope.public_key)) == relay.peer_id
    voucher = circuit_pb2.Voucher.FromString(envelope.raw_payload)
    assert (voucher.relay, voucher.peer) == (relay_bytes, peer_bytes)
    assert voucher.expiration == answer.reservation.expire
    assert relay.telemetry.reservations_granted == 1


async def test_no_limits_means_no_limit_on_the_wire(world: World) -> None:
    relay = await world.relay(circuit_seconds=0, circuit_bytes=0)
    conn = await world.connect(await world.host(), relay.host)
    assert not (await ask(conn, RESERVE)).HasField("limit")


async def test_defect_5_a_reservation_is_booked_for_the_authenticated_peer(world: World) -> None:
    relay, peer, other = await world.relay(), await world.host(), await world.host()
    asker = await world.connect(await world.host(), relay.host)
    conn = await world.connect(peer, relay.host)
    forged = circuit_pb2.HopMessage(type=circuit_pb2.HopMessage.RESERVE)
    forged.peer.id = base58.b58decode(other.peer_id)
    answer = await ask(conn, forged.SerializeToString())
    assert answer.status == OK
    envelope = unmarshal_envelope(answer.reservation.voucher)
    voucher = circuit_pb2.Voucher.FromString(envelope.raw_payload)
    assert voucher.peer == base58.b58decode(peer.peer_id)
    assert await status(asker, encode_connect(other.peer_id)) == 204
    assert relay.service.table.reservations == 1


async def test_a_renewal_needs_no_free_slot(world: World) -> None:
    relay = await world.relay(reservations=1, reservations_per_ip=1)
    holder = await world.connect(await world.host(), relay.host)
    late = await world.connect(await world.host(), relay.host)
    assert await status(holder, RESERVE) == OK
    assert await status(late, RESERVE) == 200
    assert await status(holder, RESERVE) == OK
    telemetry = relay.telemetry
    assert (telemetry.reservations_granted, telemetry.reservations_renewed) == (1, 1)
    assert telemetry.refusals == {("reservation", Reason.RESERVATIONS_FULL): 1}


async def test_a_reservation_ends_with_its_connection(world: World) -> None:
    relay = await world.relay(reservations=1)
    holder, late = await world.host(), await world.connect(await world.host(), relay.host)
    assert await status(await world.connect(holder, relay.host), RESERVE) == OK
    assert await status(late, RESERVE) == 200
    await world.stop(holder)
    await until(lambda: relay.service.table.reservations == 0)
    assert relay.telemetry.reservations_ended == 1
    assert await status(late, encode_connect(holder.peer_id)) == 204
    assert await status(late, RESERVE) == OK


async def test_a_reservation_ends_at_its_time(fast_clock: MockClock) -> None:
    async with small_world(float("inf")) as world:
        relay = await world.relay(reservations=1, reservation_seconds=60)
        holder, other = await world.host(), await world.host()
        assert await status(await world.connect(holder, relay.host), RESERVE) == OK
        conn = await world.connect(other, relay.host)
        await trio.sleep(58)
        assert await status(conn, RESERVE) == 200
        await trio.sleep(3)
        assert relay.service.table.reservations == 0
        assert relay.telemetry.reservations_ended == 1
        assert await status(conn, encode_connect(holder.peer_id)) == 204
        assert await status(conn, RESERVE) == OK
        # A slot that was free again is granted, not renewed.
        assert relay.telemetry.reservations_granted == 2
        assert relay.telemetry.reservations_renewed == 0


async def test_a_quiet_reservation_keeps_its_connection(fast_clock: MockClock) -> None:
    """Idle connections are closed after two minutes; the spec wants reserved ones kept."""
    async with small_world(float("inf")) as world:
        relay = await world.relay(reservation_seconds=1000)
        holder, guest = await world.host(), await world.host()
        conn = await world.connect(holder, relay.host)
        await world.connect(guest, relay.host)
        assert await status(conn, RESERVE) == OK
        with conn.held():
            await trio.sleep(900)
            assert not relay.host.connections(guest.peer_id)
            assert relay.service.table.reservations == 1
            assert relay.host.connections(holder.peer_id) and not conn.closed
            await trio.sleep(300)
            assert conn.closed


# --- refusals


Refusal = Callable[[World], Awaitable[tuple[RelayHost, Connection, bytes]]]


async def _reservations_full(world: World) -> tuple[RelayHost, Connection, bytes]:
    relay = await world.relay(reservations=1)
    await target_of(world, relay)
    return relay, await world.connect(await world.host(), relay.host), RESERVE


async def _address_full(world: World) -> tuple[RelayHost, Connection, bytes]:
    relay = await world.relay(reservations_per_ip=1)
    await target_of(world, relay)
    return relay, await world.connect(await world.host(), relay.host), RESERVE


async def _circuits_full(world: World) -> tuple[RelayHost, Connection, bytes]:
    relay = await world.relay(circuits=1)
    target, other = await target_of(world, relay), await target_of(world, relay)
    await circuit(world, relay, target)
    source = await world.connect(await world.host(), relay.host)
    return relay, source, encode_connect(other.host.peer_id)


async def _source_full(world: World) -> tuple[RelayHost, Connection, bytes]:
    relay = await world.relay(circuits_per_peer=1)
    target, other = await target_of(world, relay), await target_of(world, relay)
    ends = await circuit(world, relay, target)
    return relay, ends.connection, encode_connect(other.host.peer_id)


async def _target_full(world: World) -> tuple[RelayHost, Connection, bytes]:
    relay = await world.relay(circuits_per_peer=1)
    target = await target_of(world, relay)
    await circuit(world, relay, target)
    source = await world.connect(await world.host(), relay.host)
    return relay, source, encode_connect(target.host.peer_id)


async def _over_a_circuit(world: World) -> tuple[RelayHost, Connection]:
    """A relay that was itself reached through a relay."""
    outer, inner = await world.relay(), await world.relay()
    await world.reserve(inner.host, outer)
    return inner, await world.circuit(await world.host(), outer, inner.host)


async def _relayed_reserve(world: World) -> tuple[RelayHost, Connection, bytes]:
    relay, conn = await _over_a_circuit(world)
    return relay, conn, RESERVE


async def _relayed_connect(world: World) -> tuple[RelayHost, Connection, bytes]:
    relay, conn = await _over_a_circuit(world)
    target = await target_of(world, relay)
    return relay, conn, encode_connect(target.host.peer_id)


async def _with_stop(
    world: World, serve: Callable[[NegotiatedStream, Connection], Awaitable[None]]
) -> tuple[RelayHost, Connection, bytes]:
    relay = await world.relay()
    target = await target_of(world, relay)
    target.host.handle(STOP, serve)
    source = await world.connect(await world.host(), relay.host)
    return relay, source, encode_connect(target.host.peer_id)


async def _target_refuses(world: World) -> tuple[RelayHost, Connection, bytes]:
    async def refuse(stream: NegotiatedStream, conn: Connection) -> None:
        await stream.receive_message()
        await stream.send_message(encode_stop_status(203))
        await stream.aclose()

    return await _with_stop(world, refuse)


async def _target_babbles(world: World) -> tuple[RelayHost, Connection, bytes]:
    async def babble(stream: NegotiatedStream, conn: Connection) -> None:
        await stream.receive_message()
        await stream.send_message(b"\xff\xff\xff")

    return await _with_stop(world, babble)


async def _target_vanishes(world: World) -> tuple[RelayHost, Connection, bytes]:
    async def vanish(stream: NegotiatedStream, conn: Connection) -> None:
        await stream.receive_message()
        conn.session.abort(Reason.CONNECTION_LOST)

    return await _with_stop(world, vanish)


async def _target_speaks_no_stop(world: World) -> tuple[RelayHost, Connection, bytes]:
    relay = await world.relay()
    target = await target_of(world, relay)
    target.host.unhandle(STOP)
    source = await world.connect(await world.host(), relay.host)
    return relay, source, encode_connect(target.host.peer_id)


async def _draining_reserve(world: World) -> tuple[RelayHost, Connection, bytes]:
    relay = await world.relay()
    relay.service.table.draining = True
    return relay, await world.connect(await world.host(), relay.host), RESERVE


async def _draining_connect(world: World) -> tuple[RelayHost, Connection, bytes]:
    relay = await world.relay()
    target = await target_of(world, relay)
    relay.service.table.draining = True
    source = await world.connect(await world.host(), relay.host)
    return relay, source, encode_connect(target.host.peer_id)


def _saying(message: bytes) -> Refusal:
    async def make(world: World) -> tuple[RelayHost, Connection, bytes]:
        relay = await world.relay()
        return relay, await world.connect(await world.host(), relay.host), message

    return make


STRANGER = base58.b58decode(NOBODY)


@pytest.mark.parametrize(
    ("make", "wire", "counted"),
    [
        (_reservations_full, 200, ("reservation", Reason.RESERVATIONS_FULL)),
        (_address_full, 200, ("reservation", Reason.RESERVATIONS_PER_IP_FULL)),
        (_draining_reserve, 200, ("reservation", Reason.SHUTTING_DOWN)),
        (_draining_connect, 200, ("circuit", Reason.SHUTTING_DOWN)),
        (_circuits_full, 201, ("circuit", Reason.CIRCUITS_FULL)),
        (_source_full, 201, ("circuit", Reason.CIRCUITS_PER_PEER_FULL)),
        (_target_full, 201, ("circuit", Reason.CIRCUITS_PER_PEER_FULL)),
        (_relayed_reserve, 202, ("reservation", Reason.RELAYED_RESERVE)),
        (_relayed_connect, 202, ("circuit", Reason.RELAYED_CONNECT)),
        (_target_refuses, 203, ("circuit", Reason.TARGET_REFUSED)),
        (_target_babbles, 203, ("circuit", Reason.TARGET_UNREACHABLE)),
        (_target_vanishes, 203, ("circuit", Reason.TARGET_UNREACHABLE)),
        (_target_speaks_no_stop, 203, ("circuit", Reason.TARGET_UNREACHABLE)),
        (
            _saying(b"\x08\x01\x12\x28\x0a\x26" + STRANGER),
            204,
            ("circuit", Reason.NO_RESERVATION),
        ),
        (_saying(b""), 400, ("reservation", Reason.MALFORMED_MESSAGE)),
        (_saying(b"\xff" * 40), 400, ("reservation", Reason.MALFORMED_MESSAGE)),
        (_saying(b"\x08\x01"), 400, ("reservation", Reason.MALFORMED_MESSAGE)),
        (_saying(b"\x08\x01\x12\x04\x0a\x02hi"), 400, ("reservation", Reason.MALFORMED_MESSAGE)),
        (_saying(b"\x08\x00" + bytes(5000)), 400, ("reservation", Reason.MESSAGE_TOO_LARGE)),
        (_saying(encode_hop_status(OK)), 401, ("reservation", Reason.UNEXPECTED_MESSAGE)),
    ],
    ids=lambda value: getattr(value, "__name__", "").strip("_") or None,
)
async def test_each_refusal_has_its_status(
    world: World, make: Refusal, wire: int, counted: tuple[str, Reason]
) -> None:
    relay, conn, message = await make(world)
    before = relay.service.table.circuits
    assert await status(conn, message) == wire
    assert relay.telemetry.refusals == {counted: 1}
    await until(lambda: relay.service.table.circuits == before)
    # The stream was refused, not the peer.
    assert await ping(conn)


async def test_connecting_to_oneself_is_refused(world: World) -> None:
    relay = await world.relay()
    target = await target_of(world, relay)
    conn = target.host.direct_to(relay.peer_id)
    assert conn is not None
    assert await status(conn, encode_connect(target.host.peer_id)) == 400
    assert relay.telemetry.refusals == {("circuit", Reason.CONNECT_TO_SELF): 1}


async def test_a_target_that_never_answers_costs_a_deadline(fast_clock: MockClock) -> None:
    async with small_world(float("inf")) as world:
        asked = trio.Event()

        async def silence(stream: NegotiatedStream, conn: Connection) -> None:
            await stream.receive_message()
            asked.set()
            with pytest.raises(StreamReset):
                await stream.receive_some()
            cut.set()

        cut = trio.Event()
        relay, conn, message = await _with_stop(world, silence)
        started = trio.current_time()
        assert await status(conn, message) == 203
        assert STOP_DEADLINE <= trio.current_time() - started < STOP_DEADLINE + 1
        assert asked.is_set()
        await cut.wait()
        assert relay.service.table.circuits == 0


async def test_a_caller_that_leaves_while_we_knock_frees_its_circuit(world: World) -> None:
    asked = trio.Event()
    cut = trio.Event()

    async def silence(stream: NegotiatedStream, conn: Connection) -> None:
        await stream.receive_message()
        asked.set()
        with pytest.raises(StreamReset):
            await stream.receive_some()
        cut.set()

    relay, conn, message = await _with_stop(world, silence)
    await conn.open(HOP).send_message(message)
    await asked.wait()
    assert relay.service.table.circuits == 1
    conn.session.abort(Reason.CONNECTION_LOST)
    await cut.wait()
    await until(lambda: relay.service.table.circuits == 0)


async def test_refusals_are_logged_as_a_sample(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    relay, conn, message = await _reservations_full(world)
    for _ in range(30):
        assert await status(conn, message) == 200
    assert relay.telemetry.refusals["reservation", Reason.RESERVATIONS_FULL] == 30
    assert 1 <= len(logged(caplog, "refused")) <= 5


async def test_a_relay_switched_off_serves_no_hop_and_keeps_its_circuits(world: World) -> None:
    relay = await world.relay()
    target = await target_of(world, relay)
    ends = await circuit(world, relay, target)
    relay.service.stop()
    with pytest.raises(Fault) as caught:
        await ends.connection.open(HOP).confirmed()
    assert caught.value.reason is Reason.UNSUPPORTED_PROTOCOL
    await ends.source.send_all(b"still here")
    assert await ends.target.receive_exactly(10) == b"still here"
