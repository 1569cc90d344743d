"""Slots: our node dials a local port, and the private peer's node answers."""

from __future__ import annotations

import random
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import pytest
import trio

from appliance.bridge import slots
from appliance.bridge.host import Host
from appliance.bridge.identity import Identity
from appliance.bridge.kaspa import KaspaStreams
from appliance.bridge.puncher import Puncher
from appliance.bridge.slots import ListeningSlot, Relay, Slot, SlotSpec
from appliance.dataplane.tcp import TcpStream
from appliance.errors import ApplianceError, StreamReset
from appliance.network import Endpoint
from appliance.policy.admission import InboundLimits
from appliance.reasons import Reason
from tests.bridge.world import LOOPBACK, RelayHost, World, logged, small_world, until

LIMITS = InboundLimits(8, 8, 8)
NOBODY = Endpoint("127.0.0.1", 1)
"""A node that is never asked."""


@dataclass(frozen=True, slots=True)
class Home:
    """A private host with a node; `scope` ends all of it but the host."""

    host: Host
    streams: KaspaStreams


async def echo(stream: trio.SocketStream) -> None:
    """A node that sends everything back; peers may go as they like."""
    with suppress(trio.BrokenResourceError):
        async for data in stream:
            await stream.send_all(data)
        await stream.send_eof()


async def home(
    world: World, *relays: RelayHost, identity: Identity | None = None, punches: bool = True
) -> Home:
    """A peer worth reaching: its node echoes."""
    host = await world.host(identity=identity)
    if punches:
        await world.nursery.start(Puncher(host, random.Random(3)).run)
    made = Home(host, KaspaStreams(host, await world.tcp(echo), LIMITS))
    await world.reserve(host, *relays)
    return made


async def slot_to(
    world: World,
    peer_id: str,
    relays: Sequence[Relay],
    *,
    deadline: float = 5.0,
    host: Host | None = None,
) -> tuple[Slot, Home]:
    """A running slot of a new home."""
    host = host or await world.host()
    await world.nursery.start(Puncher(host, random.Random(4)).run)
    mine = Home(host, KaspaStreams(host, NOBODY, LIMITS))
    spec = SlotSpec(LOOPBACK, peer_id, tuple(relays))
    slot = Slot(spec, host, mine.streams, random.Random(5), direct_deadline=deadline)
    await world.nursery.start(slot.run)
    return slot, mine


def way(relay: RelayHost) -> Relay:
    return Relay(relay.endpoint, relay.peer_id)


@asynccontextmanager
async def dialled(slot: ListeningSlot) -> AsyncIterator[TcpStream]:
    """What our node gets when it dials the slot; at the end it goes without a word."""
    connected = await trio.open_tcp_stream(slot.listening.host, slot.listening.port)
    node = TcpStream(connected.socket)
    try:
        yield node
    finally:
        node.reset()


async def echoed(node: TcpStream, data: bytes = b"hello", within: float = 15.0) -> None:
    with trio.fail_after(within):
        await node.send_all(data)
        got = b""
        while len(got) < len(data):
            part = await node.receive_some()
            assert part
            got += part
    assert got == data


async def hung_up(node: TcpStream, within: float = 10.0) -> None:
    with trio.fail_after(within), pytest.raises(StreamReset):
        await node.receive_some()


async def turned_away(slot: ListeningSlot) -> None:
    """A dial is reset at once, perhaps before it knows that it was connected."""
    with pytest.raises((OSError, StreamReset)):
        async with dialled(slot) as node:
            await node.receive_some()


# --- it works


async def test_a_dial_reaches_the_peers_node_over_a_direct_connection() -> None:
    async with small_world() as world:
        relay = await world.relay()
        peer = await home(world, relay)
        slot, mine = await slot_to(world, peer.host.peer_id, [way(relay)])
        async with dialled(slot) as node:
            await echoed(node)
            [entry] = mine.streams.open
            assert (entry.direction, entry.path, entry.peer_id) == (
                "outbound", "direct", peer.host.peer_id
            )  # fmt: skip
            assert entry.local == str(slot.listening)
            assert [(e.direction, e.path) for e in peer.streams.open] == [("inbound", "direct")]
            assert (slot.state, slot.failure) == ("open", None)

            await node.send_eof()
            assert await node.receive_some() == b""
            await until(lambda: not mine.streams.open and not peer.streams.open)
        async with dialled(slot) as node:
            await echoed(node, b"x" * 1_000_000)


async def test_the_node_may_dial_before_the_peer_is_reachable() -> None:
    async with small_world() as world:
        relay = await world.relay()
        late = Identity.generate()
        slot, _ = await slot_to(world, late.peer_id, [way(relay)], deadline=8)
        async with dialled(slot) as node:
            await until(lambda: slot.state == "waiting")
            await home(world, relay, identity=late)
            await echoed(node)


async def test_a_second_dial_at_the_same_time_is_reset() -> None:
    async with small_world() as world:
        relay = await world.relay()
        peer = await home(world, relay)
        slot, mine = await slot_to(world, peer.host.peer_id, [way(relay)])
        async with dialled(slot) as node:
            await echoed(node)
            await turned_away(slot)
            assert mine.host.telemetry.refusals == {("slot", Reason.PEER_HAS_STREAM): 1}
            await echoed(node, b"undisturbed")


async def test_a_node_that_dials_again_has_given_up_its_first_dial() -> None:
    """A node that was restarted does not wait for its predecessor's patience."""
    async with small_world() as world:
        relay = await world.relay()
        late = Identity.generate()
        slot, mine = await slot_to(world, late.peer_id, [way(relay)], deadline=8)
        async with dialled(slot) as first:
            await until(lambda: slot.state == "waiting")
            async with dialled(slot) as second:
                await hung_up(first)
                await home(world, relay, identity=late)
                await echoed(second)
        assert not mine.host.telemetry.refusals


async def test_after_a_restart_of_the_peer_the_next_dial_works_by_itself() -> None:
    async with small_world() as world:
        relay = await world.relay()
        who = Identity.generate()
        first = await home(world, relay, identity=who)
        slot, mine = await slot_to(world, who.peer_id, [way(relay)])
        async with dialled(slot) as node:
            await echoed(node)
            await world.stop(first.host)
            await hung_up(node)
            await until(lambda: relay.service.table.reservations == 0)

            second = await home(world, relay, identity=who)
        async with dialled(slot) as node:
            await echoed(node)
            assert len(second.streams.open) == len(mine.streams.open) == 1


async def test_an_idle_node_costs_nothing_but_the_path() -> None:
    """A node that hangs up leaves the slot ready."""
    async with small_world() as world:
        relay = await world.relay()
        peer = await home(world, relay)
        slot, mine = await slot_to(world, peer.host.peer_id, [way(relay)])
        for _ in range(3):
            async with dialled(slot) as node:
                await echoed(node)
            await until(lambda: not mine.streams.open and not peer.streams.open)
        assert mine.host.telemetry.kaspa_streams == {("outbound", "direct"): 3}
        assert not mine.host.telemetry.faults


# --- without a direct connection


async def test_a_generous_relay_carries_the_stream_after_the_deadline() -> None:
    async with small_world() as world:
        relay = await world.relay(circuit_seconds=0, circuit_bytes=0)
        peer = await home(world, relay, punches=False)
        slot, mine = await slot_to(world, peer.host.peer_id, [way(relay)], deadline=0.3)
        async with dialled(slot) as node:
            await echoed(node)
            [entry] = mine.streams.open
            assert (entry.path, entry.relay) == ("relayed", relay.peer_id)


async def test_a_small_relay_refuses_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(slots, "PATIENCE_BEYOND_DEADLINE", 0.5)
    async with small_world() as world:
        relay = await world.relay()
        peer = await home(world, relay, punches=False)
        slot, mine = await slot_to(world, peer.host.peer_id, [way(relay)], deadline=0.3)
        async with dialled(slot) as node:
            await hung_up(node)
        assert slot.failure is not None
        assert slot.failure.reason is Reason.RELAY_LIMIT_TOO_SMALL
        assert mine.host.telemetry.refusals == {("slot", Reason.RELAY_LIMIT_TOO_SMALL): 1}
        # Said once.
        assert len(logged(caplog, "refused")) == 1
        assert not logged(caplog, "peer_fault")
        assert peer.streams.budget.used == 0


async def test_the_slot_moves_to_a_direct_connection_that_comes_late() -> None:
    async with small_world() as world:
        relay = await world.relay(circuit_seconds=0, circuit_bytes=0)
        peer = await home(world, relay, punches=False)
        slot, mine = await slot_to(world, peer.host.peer_id, [way(relay)], deadline=0.2)
        async with dialled(slot) as node:
            await echoed(node)
            await world.connect(peer.host, mine.host)
            await echoed(node, b"the old stream stays where it is")
            assert [entry.path for entry in mine.streams.open] == ["relayed"]
        await until(lambda: not mine.streams.open and not peer.streams.open)
        async with dialled(slot) as node:
            await echoed(node)
            assert [entry.path for entry in mine.streams.open] == ["direct"]


async def test_a_circuit_that_ends_early_is_not_waited_for() -> None:
    async with small_world() as world:
        relay = await world.relay(circuit_seconds=1)
        peer = await home(world, relay, punches=False)
        slot, _ = await slot_to(world, peer.host.peer_id, [way(relay)], deadline=60)
        started = trio.current_time()
        await until(lambda: slot.failure)
        assert trio.current_time() - started < 5
        assert slot.failure is not None
        assert slot.failure.reason is Reason.CONNECTION_LOST


# --- it does not work, and says why


async def test_the_reason_shows_when_there_is_no_relay() -> None:
    async with small_world() as world:
        slot, _ = await slot_to(world, Identity.generate().peer_id, [])
        await until(lambda: slot.failure)
        assert slot.failure is not None
        assert (slot.state, slot.failure.reason) == ("waiting", Reason.NO_PATH)


async def test_the_second_relay_is_tried_when_the_first_is_dead() -> None:
    async with small_world() as world:
        dead, relay = await world.relay(), await world.relay()
        peer = await home(world, relay)
        relays = [way(dead), way(relay)]
        await world.stop(dead.host)
        slot, _ = await slot_to(world, peer.host.peer_id, relays)
        async with dialled(slot) as node:
            await echoed(node)


async def test_a_dead_relay_is_dialled_with_back_off(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with small_world() as world:
        relay = await world.relay()
        relays = [way(relay)]
        await world.stop(relay.host)
        slot, _ = await slot_to(world, Identity.generate().peer_id, relays)
        await trio.sleep(2.5)
        waits = [entry["retry_in_s"] for entry in logged(caplog, "slot_unreachable")]
        assert 1 <= len(waits) <= 3
        assert waits == sorted(waits)
        assert slot.failure is not None
        assert slot.failure.reason is Reason.DIAL_FAILED


async def test_a_peer_without_a_reservation_is_unreachable() -> None:
    async with small_world() as world:
        relay = await world.relay()
        slot, _ = await slot_to(world, Identity.generate().peer_id, [way(relay)])
        await until(lambda: slot.failure)
        assert slot.failure is not None
        assert slot.failure.reason is Reason.TARGET_UNREACHABLE
        assert "NO_RESERVATION" in slot.failure.detail


async def test_our_own_peer_id_is_no_peer() -> None:
    async with small_world() as world:
        relay = await world.relay()
        me = await world.host()
        slot, _ = await slot_to(world, me.peer_id, [way(relay)], host=me)
        await until(lambda: slot.failure)
        assert slot.failure is not None
        assert slot.failure.reason is Reason.SELF_DIAL


async def test_a_peer_that_speaks_no_kaspa_is_its_own_fault() -> None:
    async with small_world() as world:
        relay = await world.relay()
        peer = await world.host()
        await world.nursery.start(Puncher(peer, random.Random(3)).run)
        await world.reserve(peer, relay)
        slot, mine = await slot_to(world, peer.peer_id, [way(relay)])
        async with dialled(slot) as node:
            await node.send_all(b"hello")
            await hung_up(node)
            assert not mine.host.telemetry.faults
            assert not mine.streams.open


def idle_slot(host: Host, listen: Endpoint) -> Slot:
    spec = SlotSpec(listen, Identity.generate().peer_id, ())
    streams = KaspaStreams(host, NOBODY, LIMITS)
    return Slot(spec, host, streams, random.Random(5), direct_deadline=1)


async def test_a_taken_port_is_said_in_one_sentence() -> None:
    async with small_world() as world:
        host = await world.host()
        with socket.create_server(("127.0.0.1", 0)) as taken:
            where = Endpoint(*taken.getsockname())
            with pytest.raises(ApplianceError) as caught:
                await idle_slot(host, where).listen()
        sentence = f"bridge.slots: cannot listen on {where}: address already in use"
        assert caught.value.message == sentence
        assert caught.value.hint


async def test_a_slot_that_never_ran_gives_its_port_back() -> None:
    async with small_world() as world:
        slot = idle_slot(await world.host(), LOOPBACK)
        where = await slot.listen()
        assert await slot.listen() == where
        slot.close()
        socket.create_server((where.host, where.port)).close()
