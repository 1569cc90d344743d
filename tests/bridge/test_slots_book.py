"""Slots of the address book: the node dials, and somebody is found to stand behind."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest
import trio

from appliance.bridge import book_slots, slots
from appliance.bridge.book_slots import BookSlot, Matchmaker
from appliance.bridge.host import Host
from appliance.bridge.identity import Identity
from appliance.bridge.kaspa import KaspaStreams
from appliance.bridge.puncher import Puncher
from appliance.bridge.slots import Relay
from appliance.policy.admission import InboundLimits
from appliance.policy.peer_choice import PeerCandidate, PeerChoice
from appliance.reasons import Reason
from tests.bridge.test_slots import (
    LIMITS,
    Home,
    dialled,
    echo,
    echoed,
    home,
    hung_up,
    slot_to,
    turned_away,
    way,
)
from tests.bridge.world import LOOPBACK, RelayHost, World, logged, small_world, until


class Chooser:
    """A private host with slots, a node, and what it knows of others."""

    def __init__(self, host: Host, streams: KaspaStreams, declared: Iterable[str]) -> None:
        self.host = host
        self.streams = streams
        self.known: list[PeerCandidate] = []
        self.tried: list[tuple[str, bool]] = []
        self.choice = PeerChoice(host.peer_id, declared)
        self.slots: list[BookSlot] = []
        self.matchmaker = Matchmaker(
            self.choice, host, streams, random.Random(6), lambda: self.known
        )
        self.matchmaker.on_tried.append(
            lambda peer, reached: self.tried.append((peer.peer_id, reached))
        )

    def knows(self, peer: Home | Host | Identity, *relays: RelayHost | Relay) -> None:
        who = peer.host if isinstance(peer, Home) else peer
        ways = tuple(one if isinstance(one, Relay) else way(one) for one in relays)
        self.known.append(PeerCandidate(who.peer_id, ways, signed=True, known_as=b"key"))

    def forget(self, peer: Home) -> None:
        self.known = [one for one in self.known if one.peer_id != peer.host.peer_id]


async def chooser(
    world: World, *, count: int = 1, deadline: float = 5.0, declared: Iterable[str] = ()
) -> Chooser:
    host = await world.host()
    await world.nursery.start(Puncher(host, random.Random(4)).run)
    node = await world.tcp(echo)
    made = Chooser(host, KaspaStreams(host, node, LIMITS), declared)
    for number in range(count):
        slot = BookSlot(
            number,
            LOOPBACK,
            host,
            made.streams,
            random.Random(5),
            made.matchmaker,
            direct_deadline=deadline,
        )
        await world.nursery.start(slot.run)
        made.slots.append(slot)
    return made


async def test_a_dial_finds_a_peer_that_nobody_wrote_down(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with small_world() as world:
        relay = await world.relay()
        peer = await home(world, relay)
        mine = await chooser(world)
        [slot] = mine.slots
        mine.knows(peer, relay)
        # Nobody is disturbed before our node asks.
        assert (slot.state, slot.peer_id, slot.origin) == ("vacant", None, "book")
        assert not mine.host.connections()
        async with dialled(slot) as node:
            await echoed(node)
            [entry] = mine.streams.open
            assert (entry.peer_id, entry.path) == (peer.host.peer_id, "direct")
            assert (slot.state, slot.peer_id) == ("open", peer.host.peer_id)
            assert slot.way is not None and slot.way.relay == way(relay)
        [event] = logged(caplog, "slot_assigned")
        assert event["peer"] == peer.host.peer_id and event["signed"] is True
        # It stays, and the node's next dial finds the path warm.
        async with dialled(slot) as node:
            await echoed(node)


async def test_a_relay_whose_id_nobody_told_is_met_where_it_is() -> None:
    async with small_world() as world:
        relay = await world.relay()
        peer = await home(world, relay)
        mine = await chooser(world)
        mine.knows(peer, Relay(relay.endpoint))
        for _ in range(2):
            async with dialled(mine.slots[0]) as node:
                await echoed(node)


async def test_a_vacant_slot_hangs_up_counts_and_says_so_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    async with small_world() as world:
        mine = await chooser(world)
        [slot] = mine.slots
        for _ in range(5):
            await turned_away(slot)
        assert mine.host.telemetry.refusals == {("slot", Reason.NO_CANDIDATE): 5}
        assert [entry["reason"] for entry in logged(caplog, "slot_vacant")] == ["no-candidate"]
        assert slot.state == "vacant"
        assert slot.failure is not None and slot.failure.reason is Reason.NO_CANDIDATE

        # Somebody becomes known: the next dial gets there.
        relay = await world.relay()
        mine.knows(await home(world, relay), relay)
        async with dialled(slot) as node:
            await echoed(node)
        assert not mine.host.telemetry.faults


async def test_each_slot_has_its_own_peer_and_its_own_relay() -> None:
    async with small_world() as world:
        relays = [await world.relay() for _ in range(2)]
        peers = [await home(world, *relays) for _ in range(3)]
        mine = await chooser(world, count=3)
        for peer in peers:
            mine.knows(peer, *relays)
        first, second, third = mine.slots
        async with dialled(first) as one, dialled(second) as two:
            await echoed(one)
            await echoed(two)
            assert len({slot.peer_id for slot in (first, second)}) == 2
            ways = {slot.way.relay for slot in (first, second) if slot.way is not None}
            assert ways == {way(relay) for relay in relays}
            # Two relays are known, so there is no third one.
            await turned_away(third)
            assert third.failure is not None
            assert third.failure.reason is Reason.RELAYS_IN_USE


async def test_the_relay_of_a_declared_slot_is_taken_too() -> None:
    async with small_world() as world:
        relay = await world.relay()
        declared, other = await home(world, relay), await home(world, relay)
        mine = await chooser(world, declared=[declared.host.peer_id])
        slot, _ = await slot_to(world, declared.host.peer_id, [way(relay)], host=mine.host)
        mine.matchmaker._declared = (slot,)
        await until(lambda: slot.state == "open")
        mine.knows(other, relay)
        await turned_away(mine.slots[0])
        assert mine.host.telemetry.refusals == {("slot", Reason.RELAYS_IN_USE): 1}


async def test_a_peer_that_is_gone_gives_way_to_another_one_while_the_node_waits() -> None:
    async with small_world() as world:
        relay = await world.relay()
        mine = await chooser(world)
        [slot] = mine.slots
        gone = Identity.generate()
        mine.knows(gone, relay)
        peer = await home(world, relay)
        async with dialled(slot) as node:
            await until(lambda: slot.peer_id == gone.peer_id)
            mine.knows(peer, relay)
            await echoed(node)
            assert slot.peer_id == peer.host.peer_id
        assert mine.tried == [(gone.peer_id, False)]


async def test_a_dead_relay_is_no_fault_of_its_peer() -> None:
    async with small_world() as world:
        dead, relay = await world.relay(), await world.relay()
        peer = await home(world, relay)
        mine = await chooser(world)
        [slot] = mine.slots
        await world.stop(dead.host)
        mine.knows(peer, dead)
        async with dialled(slot) as node:
            await until(lambda: slot.failure is not None)
            mine.known.clear()
            mine.knows(peer, dead, relay)
            await echoed(node)
        assert slot.way is not None and slot.way.relay == way(relay)
        assert not mine.tried


async def test_the_node_is_not_kept_waiting_for_nobody() -> None:
    async with small_world() as world:
        relay = await world.relay()
        mine = await chooser(world, deadline=30.0)
        mine.knows(Identity.generate(), relay)
        async with dialled(mine.slots[0]) as node:
            await hung_up(node)
        await turned_away(mine.slots[0])
        assert mine.host.telemetry.refusals["slot", Reason.BACKING_OFF] == 2


async def test_without_a_punch_a_small_relay_is_not_tried_twice() -> None:
    async with small_world() as world:
        relay = await world.relay()
        peer = await home(world, relay, punches=False)
        mine = await chooser(world, deadline=0.2)
        [slot] = mine.slots
        mine.knows(peer, relay)
        async with dialled(slot) as node:
            await hung_up(node)
        assert mine.tried == [(peer.host.peer_id, False)]
        assert relay.telemetry.circuits_opened == 1


async def test_a_peer_that_is_full_is_left_after_two_tries() -> None:
    """Its bridge takes us in, and its node has no place: the stream ends at once."""
    async with small_world() as world:
        relay, other_relay = await world.relay(), await world.relay()
        full = await home(world, relay)
        full.streams.budget.limits = InboundLimits(0, 0, 0)
        mine = await chooser(world)
        [slot] = mine.slots
        mine.knows(full, relay)
        for _ in range(2):
            async with dialled(slot) as node:
                await node.send_all(b"hello")
                await hung_up(node)
        assert mine.tried == [(full.host.peer_id, False)]
        mine.knows(await home(world, other_relay), other_relay)
        async with dialled(slot) as node:
            await echoed(node)
            assert slot.peer_id != full.host.peer_id


async def test_a_stream_that_lasted_speaks_for_its_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(book_slots, "USEFUL_AFTER", 0.05)
    async with small_world() as world:
        relay = await world.relay()
        peer = await home(world, relay)
        mine = await chooser(world)
        [slot] = mine.slots
        mine.knows(peer, relay)
        for _ in range(3):
            async with dialled(slot) as node:
                await echoed(node)
                await trio.sleep(0.1)
            await until(lambda: not mine.streams.open)
        assert mine.tried == [(peer.host.peer_id, True)] * 3
        assert slot.peer_id == peer.host.peer_id


async def test_a_peer_that_dialled_us_is_not_dialled_back() -> None:
    async with small_world() as world:
        relay = await world.relay()
        peer = await home(world, relay)
        mine = await chooser(world)
        await world.reserve(mine.host, relay)
        theirs, _ = await slot_to(world, mine.host.peer_id, [way(relay)], host=peer.host)
        mine.knows(peer, relay)
        async with dialled(theirs) as node:
            await echoed(node)
            assert mine.streams.budget.used == 1
            await turned_away(mine.slots[0])
        assert mine.host.telemetry.refusals == {("slot", Reason.NO_CANDIDATE): 1}


async def test_a_peer_is_let_go_once_the_node_wants_it_no_more(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(book_slots, "UNUSED_AFTER", 0.5)
    async with small_world() as world:
        relay = await world.relay()
        peer = await home(world, relay)
        mine = await chooser(world)
        [slot] = mine.slots
        mine.knows(peer, relay)
        async with dialled(slot) as node:
            await echoed(node)
            await trio.sleep(1.5)
            await echoed(node, b"in use")
        await until(lambda: slot.state == "vacant")
        [event] = logged(caplog, "slot_released")
        assert event["reason"] == Reason.PEER_UNUSED.value
        await until(lambda: all(not conn.holds for conn in mine.host.connections()))
        # Nobody was to blame: the same peer is there again for the next dial.
        async with dialled(slot) as node:
            await echoed(node)
        assert not mine.host.telemetry.faults


async def test_a_waiting_node_is_told_in_time_when_nothing_works(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(slots, "PATIENCE_BEYOND_DEADLINE", 0.3)
    async with small_world() as world:
        relay = await world.relay()
        peer = await home(world, relay, punches=False)
        mine = await chooser(world, deadline=0.5)
        mine.knows(peer, relay)
        with trio.fail_after(5):
            async with dialled(mine.slots[0]) as node:
                await hung_up(node)
        mine.forget(peer)
        await turned_away(mine.slots[0])


@pytest.mark.parametrize("first", [0, 1])
async def test_two_homes_that_dial_each_other_at_once_keep_one_stream(first: int) -> None:
    async with small_world() as world:
        relay = await world.relay()
        pair = [await chooser(world) for _ in range(2)]
        for one, other in (pair, pair[::-1]):
            await world.reserve(one.host, relay)
            one.knows(other.host, relay)
        pair = [pair[first], pair[1 - first]]
        async with dialled(pair[0].slots[0]) as here, dialled(pair[1].slots[0]) as there:
            nodes, lost = [here, there], list[int]()

            async def wait(number: int) -> None:
                await hung_up(nodes[number])
                lost.append(number)
                nursery.cancel_scope.cancel()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait, 0)
                nursery.start_soon(wait, 1)
            loser, winner = pair[lost[0]], pair[1 - lost[0]]
            await echoed(nodes[1 - lost[0]])
            # The node comes back, as every Kaspa node does: the slot is free for somebody else.
            await turned_away(loser.slots[0])
            assert loser.slots[0].peer_id is None
            assert winner.slots[0].peer_id == loser.host.peer_id
            assert [stream.direction for stream in winner.streams.open] == ["outbound"]
            assert [stream.direction for stream in loser.streams.open] == ["inbound"]
        assert not loser.tried, "nobody is to blame"
        assert not any(one.host.telemetry.faults for one in pair)
