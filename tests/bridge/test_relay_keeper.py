"""The relay pool performed: real relays on loopback, found, lost, replaced and rotated."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection

import pytest
import trio
from trio.testing import MockClock

from appliance.bridge.circuits import CircuitAcceptor, dial_through
from appliance.bridge.host import Host
from appliance.bridge.relay_keeper import RelayKeeper
from appliance.bridge.reservations import ReservationKeeper
from appliance.errors import Fault
from appliance.network import Endpoint
from appliance.policy import relay_pool
from appliance.policy.netgroup import by_segment
from appliance.policy.relay_pool import RelayPool
from appliance.policy.relays import Relay, RelayCandidate
from appliance.reasons import Reason
from appliance.units import HOUR, MINUTE
from tests.bridge.world import RelayHost, World, endpoint_of, logged, small_world, until

EVER = 100 * HOUR


def where(relay: RelayHost) -> Relay:
    return Relay(relay.endpoint, relay.peer_id)


def signed(relay: RelayHost) -> RelayCandidate:
    return RelayCandidate(where(relay), proven=True, known_as=b"key")


def hearsay(relay: RelayHost) -> RelayCandidate:
    """As relay-capable kaspads gossip: no peer id, and no proof."""
    return RelayCandidate(Relay(relay.endpoint), known_as=b"key")


async def eventually(what: Callable[[], object]) -> None:
    """The same in virtual time, which has to jump for each look."""
    while not what():  # noqa: ASYNC110 - the pool has no event for every state
        await trio.sleep(1)


class Home:
    """A private host and what it knows of relays."""

    def __init__(self, host: Host, declared: Collection[Relay], *, wanted: int, most: int) -> None:
        self.host = host
        self.known: list[RelayCandidate] = []
        self.tried: list[tuple[RelayCandidate, Fault | None]] = []
        self.changes = 0
        self.keeper = ReservationKeeper(host, random.Random(1))
        CircuitAcceptor(host, self.keeper.is_ours)
        pool = RelayPool(declared, own_id=host.peer_id, most=most, wanted=wanted, group=by_segment)
        self.relays = RelayKeeper(host, self.keeper, pool, random.Random(2), lambda _: self.known)
        self.relays.on_tried.append(lambda candidate, fault: self.tried.append((candidate, fault)))
        self.relays.on_changed.append(self._changed)

    def _changed(self) -> None:
        self.changes += 1

    def reached_through(self) -> set[str | None]:
        return {relay.peer_id for relay in self.relays.ways()}


async def home(
    world: World, declared: Collection[Relay] = (), *, wanted: int = 3, most: int = 4
) -> Home:
    made = Home(await world.host(), declared, wanted=wanted, most=most)
    world.nursery.start_soon(made.relays.run)
    return made


async def test_relays_are_found_without_anybody_writing_them_down(world: World) -> None:
    relays = [await world.relay() for _ in range(5)]
    mine = await home(world)
    await trio.testing.wait_all_tasks_blocked()
    assert not mine.relays.ways()
    mine.known = [signed(relay) for relay in relays]
    mine.relays.look_again()
    await until(lambda: len(mine.relays.ways()) == 3)
    assert sum(relay.service.table.reservations for relay in relays) == 3
    # A stranger reaches us through each of them.
    for way in mine.relays.ways():
        assert way.peer_id is not None
        stranger = await world.host()
        conn = await dial_through(
            stranger, await stranger.connect(way.endpoint, way.peer_id), mine.host.peer_id
        )
        assert conn.peer_id == mine.host.peer_id


async def test_hearsay_is_confirmed_by_the_reservation(world: World) -> None:
    relay, nothing = await world.relay(), await world.host()
    mine = await home(world, wanted=2)
    no_relay = RelayCandidate(Relay(endpoint_of(nothing)), known_as=b"nothing")
    mine.known = [hearsay(relay), no_relay]
    mine.relays.look_again()
    await until(lambda: len(mine.tried) >= 2)
    outcomes = {candidate.known_as: (candidate, fault) for candidate, fault in mine.tried}
    found, fault = outcomes[b"key"]
    assert (found.relay, fault) == (where(relay), None)
    found, fault = outcomes[b"nothing"]
    assert found.relay.peer_id == nothing.peer_id
    assert fault is not None and fault.reason is Reason.UNSUPPORTED_PROTOCOL
    assert mine.reached_through() == {relay.peer_id}
    assert mine.changes >= 1


async def test_a_relay_known_by_two_addresses_is_kept_once(world: World) -> None:
    relay = await world.relay(listen=[Endpoint("127.0.0.1", 0), Endpoint("127.0.0.2", 0)])
    mine = await home(world)
    mine.known = [RelayCandidate(Relay(endpoint)) for endpoint in relay.host.listening]
    mine.relays.look_again()
    await until(lambda: any(fault is not None for _, fault in mine.tried))
    reasons = {fault.reason for _, fault in mine.tried if fault is not None}
    assert reasons == {Reason.SAME_RELAY}
    await until(lambda: mine.reached_through() == {relay.peer_id})


async def test_a_dead_relay_is_replaced(fast_clock: MockClock) -> None:
    async with small_world(EVER) as world:
        first, second = await world.relay(), await world.relay()
        mine = await home(world, wanted=1, most=2)
        mine.known = [signed(first)]
        mine.relays.look_again()
        await eventually(mine.relays.ways)
        mine.known.append(signed(second))
        await world.stop(first.host)
        await eventually(lambda: mine.reached_through() == {second.peer_id})
        assert set(mine.relays.pool.members) == {second.endpoint}
        assert not mine.keeper.is_ours(first.peer_id)


async def test_rotation_reserves_before_it_gives_up(
    fast_clock: MockClock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(relay_pool, "ROTATE_EVERY", 5 * MINUTE)
    async with small_world(EVER) as world:
        relays = [await world.relay() for _ in range(4)]
        mine = await home(world)
        mine.known = [signed(relay) for relay in relays]
        mine.relays.look_again()
        fewest = [3]

        def watch() -> None:
            fewest.append(len(mine.relays.ways()))

        await eventually(lambda: len(mine.relays.ways()) == 3)
        mine.relays.on_changed.append(watch)
        await trio.sleep(20 * MINUTE)
        assert min(fewest) == 3
        rotated = logged(caplog, "relay_dropped")
        assert 2 <= len(rotated) <= 5
        assert {entry["reason"] for entry in rotated} == {Reason.RELAY_ROTATION.value}
        assert not mine.host.telemetry.faults


async def test_declared_relays_stay_whatever_happens(fast_clock: MockClock) -> None:
    async with small_world(EVER) as world:
        declared, other = await world.relay(), await world.relay()
        mine = await home(world, [where(declared)], wanted=1, most=2)
        mine.known = [signed(other)]
        await eventually(lambda: mine.reached_through() == {declared.peer_id})
        at = declared.endpoint
        await world.stop(declared.host)
        # Another one stands in, and goes when the declared one is back.
        await eventually(lambda: mine.reached_through() == {other.peer_id})
        assert at in mine.relays.pool.members
        await world.relay(identity=declared.host.identity, listen=[at])
        await eventually(lambda: mine.reached_through() == {declared.peer_id})
        assert set(mine.relays.pool.members) == {at}


async def test_nothing_spins_while_nobody_is_known(fast_clock: MockClock) -> None:
    async with small_world(EVER) as world:
        asked = 0
        mine = await home(world)

        def nobody(_kept: Collection[Endpoint]) -> list[RelayCandidate]:
            nonlocal asked
            asked += 1
            return []

        mine.relays._candidates = nobody
        await trio.sleep(HOUR / 4)
        assert 75 <= asked <= 95


async def test_it_goes_on_after_it_was_ended(world: World) -> None:
    """As `supervised` does with whatever failed by a fault of ours."""
    relay = await world.relay()
    mine = Home(await world.host(), [where(relay)], wanted=1, most=2)
    for _ in range(2):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(mine.relays.run)
            await until(mine.relays.ways)
            nursery.cancel_scope.cancel()
        assert not mine.keeper.relays
