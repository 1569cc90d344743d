"""DCUtR between real hosts through a real relay."""

from __future__ import annotations

import random

import pytest
import trio

from appliance.bridge import puncher
from appliance.bridge.kaspa import PROTOCOL as KASPA
from appliance.bridge.kaspa import KaspaStreams
from appliance.bridge.puncher import Puncher
from appliance.dataplane.session import MuxStream
from appliance.policy.admission import InboundLimits
from tests.bridge.punching import (
    EVERYWHERE,
    at,
    closed_port,
    endpoint_of,
    failed,
    punching,
    relayed,
    silent_relay,
)
from tests.bridge.world import small_world, until

# --- two peers that do it right


@pytest.mark.parametrize("known_by", ["declared", "observed"])
async def test_both_sides_get_one_direct_connection(known_by: str) -> None:
    async with small_world() as world:
        relay = await (silent_relay(world) if known_by == "declared" else world.relay())
        a, b = await world.host(listen=EVERYWHERE), await world.host(listen=EVERYWHERE)
        if known_by == "declared":
            a.external, b.external = (at(a),), (at(b),)
        await world.reserve(b, relay)
        await world.connect(a, relay.host)
        await until(lambda: a.announced() and b.announced())
        assert a.announced() == (at(a),)
        await punching(world, a, b)
        await world.circuit(a, relay, b)
        await until(lambda: a.telemetry.punch.succeeded and b.telemetry.punch.succeeded)

        # Both know who introduced them: the relay's share of the inbound budget is charged.
        for host, peer in ((a, b), (b, a)):
            direct = host.direct_to(peer.peer_id)
            assert direct is not None
            assert direct.introduced_by == relay.peer_id
        assert a.telemetry.punch.outcomes == {("initiator", 1, "success"): 1}
        assert b.telemetry.punch.outcomes == {("receiver", 1, "success"): 1}
        assert not failed(a) and not failed(b)


@pytest.mark.parametrize("winner", ["dialled by the initiator", "dialled by the receiver"])
async def test_the_initiator_is_the_security_client_whoever_dialled(winner: str) -> None:
    """The spec's roles: on an accepted socket as on a dialled one."""
    async with small_world() as world:
        relay = await silent_relay(world)
        a, b = await world.host(listen=EVERYWHERE), await world.host(listen=EVERYWHERE)
        with await closed_port() as closed:
            a_dials = winner == "dialled by the initiator"
            a.external = (endpoint_of(closed) if a_dials else at(a),)
            b.external = (at(b) if a_dials else endpoint_of(closed),)
            await world.reserve(b, relay)
            await punching(world, a, b)
            await world.circuit(a, relay, b)
            await until(lambda: a.telemetry.punch.succeeded and b.telemetry.punch.succeeded)

        at_a, at_b = a.direct_to(b.peer_id), b.direct_to(a.peer_id)
        assert at_a is not None and at_b is not None
        assert at_a.direction == ("outbound" if a_dials else "inbound")
        assert at_b.direction == ("inbound" if a_dials else "outbound")
        # The security client opens yamux streams with odd numbers.
        for conn, parity in ((at_a, 1), (at_b, 0)):
            stream = conn.session.open_stream()
            assert isinstance(stream, MuxStream)
            assert stream.stream_id % 2 == parity
        assert await at_a.session.ping() < 5
        assert await at_b.session.ping() < 5


async def test_a_receiver_without_a_target_is_still_reached_by_the_other_side() -> None:
    async with small_world() as world:
        relay = await silent_relay(world)
        a, b = await world.host(listen=EVERYWHERE), await world.host(listen=EVERYWHERE)
        b.external = (at(b),)
        await world.reserve(b, relay)
        await punching(world, a, b)
        await world.circuit(a, relay, b)
        await until(lambda: a.telemetry.punch.succeeded and b.telemetry.punch.succeeded)
        assert not failed(b)


async def test_the_relayed_connection_goes_after_the_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(puncher, "RELAYED_GRACE", 0.4)
    async with small_world() as world:
        relay = await world.relay()
        a, b = await world.host(), await world.host()
        await world.reserve(b, relay)
        await punching(world, a, b)
        conn = await world.circuit(a, relay, b)
        await until(lambda: a.direct_to(b.peer_id) and b.direct_to(a.peer_id))
        upgraded = trio.current_time()
        assert not conn.closed
        await until(lambda: conn.closed and relayed(b, a) is None)
        assert 0.2 < trio.current_time() - upgraded < 3
        assert a.direct_to(b.peer_id) and b.direct_to(a.peer_id)
        await until(lambda: relay.service.table.circuits == 0)


async def test_a_stream_on_the_relayed_connection_lives_to_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(puncher, "RELAYED_GRACE", 0.2)
    async with small_world() as world:
        relay = await world.relay(circuit_seconds=0, circuit_bytes=0)
        a, b = await world.host(), await world.host()
        await world.reserve(b, relay)
        served = KaspaStreams(b, await world.echo_node(), InboundLimits(8, 8, 8))
        conn = await world.circuit(a, relay, b)
        stream = conn.open(KASPA)
        with conn.held():
            await stream.send_all(b"early")
            assert await stream.receive_some() == b"early"
            # Only now do they begin to punch: a second circuit makes them.
            await punching(world, a, b)
            await world.circuit(a, relay, b)
            await until(lambda: a.telemetry.punch.succeeded)
            at_b = b.connections(a.peer_id)
            await until(lambda: sum(c.relayed for c in b.connections(a.peer_id)) == 1)
            await trio.sleep(0.5)
            await stream.send_all(b"late")
            assert await stream.receive_some() == b"late"
            assert {s.path for s in served.open} == {"relayed"}
            await stream.send_eof()
            assert await stream.receive_some() == b""
        assert len(at_b) == 3


async def test_a_held_relayed_connection_goes_once_it_is_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(puncher, "RELAYED_GRACE", 0.2)
    async with small_world() as world:
        relay = await world.relay()
        a, b = await world.host(), await world.host()
        await world.reserve(b, relay)
        await punching(world, a, b)
        conn = await world.circuit(a, relay, b)
        at_b = relayed(b, a)
        assert at_b is not None
        with conn.held(), at_b.held():
            await until(lambda: a.telemetry.punch.succeeded and b.telemetry.punch.succeeded)
            await trio.sleep(0.7)
            assert not conn.closed
        await until(lambda: conn.closed)


async def test_the_hosts_live_on_when_punching_has_stopped() -> None:
    """At a shutdown the puncher goes first; a circuit that comes then is no accident."""
    async with small_world() as world:
        relay = await world.relay()
        a, b = await world.host(), await world.host()
        await world.reserve(b, relay)
        async with trio.open_nursery() as nursery:
            await nursery.start(Puncher(b, random.Random(7)).run)
            nursery.cancel_scope.cancel()
        conn = await world.circuit(a, relay, b)
        await conn.session.ping()
        assert b.telemetry.punch.attempts == 0
        assert not b.telemetry.faults
