"""Our reservations: how they are made, renewed, lost and made again, and that nothing spins."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from itertools import pairwise

import pytest
import trio
from trio.testing import MockClock

from appliance.bridge import reservations
from appliance.bridge.circuits import CircuitAcceptor
from appliance.bridge.connection import Connection, Direct
from appliance.bridge.envelope import Voucher, seal_voucher
from appliance.bridge.host import Host
from appliance.bridge.identity import Identity
from appliance.bridge.messages import encode_hop_status, encode_reserve
from appliance.bridge.negotiate import NegotiatedStream
from appliance.bridge.reservations import MAX_LIFETIME, RelayState, ReservationKeeper
from appliance.network import Endpoint
from appliance.reasons import Reason
from appliance.units import MINUTE
from appliance.wire.circuit import HOP, OK, Granted, Limit
from tests.bridge.strangers import ping
from tests.bridge.world import World, endpoint_of, logged, small_world, taken_between, until

EVER = 600 * MINUTE


class Outcomes:
    """What the keeper tells of each attempt, and when."""

    def __init__(self, keeper: ReservationKeeper) -> None:
        self.seen: list[tuple[float, bool]] = []
        self._more = trio.Event()
        keeper.on_outcome.append(self._note)

    def _note(self, state: RelayState, succeeded: bool) -> None:
        self.seen.append((trio.current_time(), succeeded))
        self._more.set()
        self._more = trio.Event()

    async def wait(self, *, succeeded: bool, beyond: int = 0) -> None:
        """Until there is such an outcome behind the first `beyond`."""
        while not any(well is succeeded for _, well in self.seen[beyond:]):
            await self._more.wait()

    @property
    def failures(self) -> list[float]:
        return [when for when, well in self.seen if not well]


def keeping(world: World, host: Host, endpoint: Endpoint, peer_id: str) -> ReservationKeeper:
    keeper = ReservationKeeper(host, random.Random(1))
    world.nursery.start_soon(keeper.keep, endpoint, peer_id)
    return keeper


async def test_is_made_from_the_listen_port_and_says_so(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    relay, host = await world.relay(reservation_seconds=600), await world.host()
    keeper = await world.reserve(host, relay)
    [seen] = relay.host.connections(host.peer_id)
    assert isinstance(seen.path, Direct) and seen.path.remote == endpoint_of(host)
    state = keeper.relays[relay.peer_id]
    assert state.endpoint == relay.endpoint
    assert state.expires is not None and abs(state.expires - (time.time() + 600)) < 5
    assert state.limit == Limit(120, 128 * 1024)
    assert keeper.is_ours(relay.peer_id) and not keeper.is_ours(host.peer_id)
    [event] = logged(caplog, "reservation_made")
    assert event["relay"] == relay.peer_id


async def test_is_renewed_before_it_expires(fast_clock: MockClock) -> None:
    async with small_world(EVER) as world:
        relay, host = await world.relay(reservation_seconds=100), await world.host()
        keeper = keeping(world, host, relay.endpoint, relay.peer_id)
        outcomes = Outcomes(keeper)
        await outcomes.wait(succeeded=True)
        await trio.sleep(1000)
        times = [when for when, _ in outcomes.seen]
        gaps = [after - before for before, after in pairwise(times)]
        assert all(60 < gap < 90 for gap in gaps) and len(gaps) >= 11
        assert not outcomes.failures
        telemetry = relay.telemetry
        assert telemetry.reservations_granted == 1
        assert telemetry.reservations_renewed == len(gaps)
        assert telemetry.reservations_ended == 0


async def test_the_shortest_reservation_does_not_make_us_spin(world: World) -> None:
    relay = await world.relay(reservation_seconds=2)
    await world.reserve(await world.host(), relay)
    with trio.fail_after(5):
        await until(lambda: relay.telemetry.reservations_renewed == 1)
    assert relay.telemetry.reservations_granted == 1


async def test_is_made_again_after_the_relay_restarts(fast_clock: MockClock) -> None:
    async with small_world(EVER) as world:
        relay, host = await world.relay(), await world.host()
        keeper = keeping(world, host, relay.endpoint, relay.peer_id)
        outcomes = Outcomes(keeper)
        await outcomes.wait(succeeded=True)
        where = relay.endpoint
        await world.stop(relay.host)
        await outcomes.wait(succeeded=False)
        assert keeper.relays[relay.peer_id].state == "failed"
        await trio.sleep(7)
        count = len(outcomes.seen)
        again = await world.relay(identity=relay.host.identity, listen=[where])
        await outcomes.wait(succeeded=True, beyond=count)
        state = keeper.relays[relay.peer_id]
        assert state.state == "active" and state.failure is None
        assert again.service.table.reservations == 1
        [seen] = again.host.connections(host.peer_id)
        assert isinstance(seen.path, Direct) and seen.path.remote == endpoint_of(host)


async def test_defect_7_nothing_spins_while_the_relay_is_gone(fast_clock: MockClock) -> None:
    async with small_world(EVER) as world:
        relay, host = await world.relay(), await world.host()
        keeper = keeping(world, host, relay.endpoint, relay.peer_id)
        outcomes = Outcomes(keeper)
        await outcomes.wait(succeeded=True)
        await world.stop(relay.host)
        await trio.sleep(20 * MINUTE)
        # 2, 4, 8 … 256 s, then every 5 min.
        assert 8 <= len(outcomes.failures) <= 14
        gaps = [after - before for before, after in pairwise(outcomes.failures)]
        assert gaps[0] < 4 and max(gaps) <= 300 * 1.25 + 1
        assert not host.connections()


async def test_defect_7_nothing_spins_while_the_relay_answers_nothing(
    fast_clock: MockClock,
) -> None:
    async with small_world(EVER) as world:
        asked = 0

        async def silence(stream: NegotiatedStream, conn: Connection) -> None:
            nonlocal asked
            asked += 1
            await trio.sleep_forever()

        relay, host = await world.host(), await world.host()
        relay.handle(HOP, silence)
        keeper = keeping(world, host, endpoint_of(relay), relay.peer_id)
        outcomes = Outcomes(keeper)
        await trio.sleep(20 * MINUTE)
        assert 7 <= asked == len(outcomes.failures) <= 14
        # No question that was given up stays open.
        assert sum(conn.session.open_streams for conn in host.connections()) <= 1


async def test_a_refusal_is_shown_and_asked_again_later(fast_clock: MockClock) -> None:
    async with small_world(EVER) as world:
        relay = await world.relay(reservations=1)
        holder, host = await world.host(), await world.host()
        to_relay = await world.connect(holder, relay.host)
        stream = to_relay.open(HOP)
        await stream.send_message(encode_reserve())
        await stream.receive_message()
        keeper = keeping(world, host, relay.endpoint, relay.peer_id)
        outcomes = Outcomes(keeper)
        await outcomes.wait(succeeded=False)
        state = keeper.relays[relay.peer_id]
        assert state.state == "failed" and state.expires is None
        assert state.failure is not None
        assert state.failure.reason is Reason.RESERVATION_REFUSED
        assert "RESERVATION_REFUSED" in state.failure.detail
        await trio.sleep(5 * MINUTE)
        assert len(outcomes.failures) <= 9
        refused = relay.telemetry.refusals
        assert refused == {("reservation", Reason.RESERVATIONS_FULL): len(outcomes.failures)}

        to_relay.session.abort(Reason.IDLE)
        await outcomes.wait(succeeded=True)
        assert keeper.relays[relay.peer_id].state == "active"


Lie = Callable[[Host, str], bytes]


def _granted(relay: Host, expires: float, voucher: bytes) -> bytes:
    return encode_hop_status(OK, granted=Granted(int(expires), (), voucher), relay_id=relay.peer_id)


def _for_somebody_else(relay: Host, peer_id: str) -> bytes:
    other = Identity.generate().peer_id
    soon = int(time.time()) + 600
    return _granted(relay, soon, seal_voucher(relay.identity, Voucher(relay.peer_id, other, soon)))


def _by_somebody_else(relay: Host, peer_id: str) -> bytes:
    other = Identity.generate()
    soon = int(time.time()) + 600
    return _granted(relay, soon, seal_voucher(other, Voucher(other.peer_id, peer_id, soon)))


def _forged(relay: Host, peer_id: str) -> bytes:
    soon = int(time.time()) + 600
    voucher = seal_voucher(Identity.generate(), Voucher(relay.peer_id, peer_id, soon))
    return _granted(relay, soon, voucher)


def _garbage(relay: Host, peer_id: str) -> bytes:
    return _granted(relay, time.time() + 600, b"no envelope")


def _over(relay: Host, peer_id: str) -> bytes:
    return _granted(relay, time.time() - 1, b"")


def _nothing(relay: Host, peer_id: str) -> bytes:
    return encode_hop_status(OK)


@pytest.mark.parametrize(
    "lie",
    [_for_somebody_else, _by_somebody_else, _forged, _garbage, _over, _nothing],
    ids=lambda value: value.__name__.strip("_"),
)
async def test_an_ok_that_is_none_is_not_believed(world: World, lie: Lie) -> None:
    relay, host = await world.host(), await world.host()

    async def serve(stream: NegotiatedStream, conn: Connection) -> None:
        await stream.send_message(lie(relay, conn.peer_id))
        await stream.aclose()

    relay.handle(HOP, serve)
    keeper = keeping(world, host, endpoint_of(relay), relay.peer_id)
    outcomes = Outcomes(keeper)
    await outcomes.wait(succeeded=False)
    state = keeper.relays[relay.peer_id]
    assert state.state == "failed"
    assert state.failure is not None and state.failure.reason is Reason.MALFORMED_MESSAGE
    assert all(not well for _, well in outcomes.seen)


async def test_a_voucher_is_not_required(world: World) -> None:
    """The spec calls them advisory; some relays send none."""
    relay, host = await world.host(), await world.host()

    async def serve(stream: NegotiatedStream, conn: Connection) -> None:
        await stream.send_message(_granted(relay, time.time() + 600, b""))
        await stream.aclose()

    relay.handle(HOP, serve)
    keeper = keeping(world, host, endpoint_of(relay), relay.peer_id)
    await Outcomes(keeper).wait(succeeded=True)


async def test_a_promise_of_years_is_asked_again_within_the_hour(fast_clock: MockClock) -> None:
    async with small_world(EVER) as world:
        relay, host = await world.host(), await world.host()

        async def serve(stream: NegotiatedStream, conn: Connection) -> None:
            await stream.send_message(_granted(relay, time.time() + 1e9, b""))
            await stream.aclose()

        relay.handle(HOP, serve)
        keeper = keeping(world, host, endpoint_of(relay), relay.peer_id)
        outcomes = Outcomes(keeper)
        await outcomes.wait(succeeded=True)
        await outcomes.wait(succeeded=True, beyond=1)
        (first, _), (second, _) = outcomes.seen[:2]
        assert second - first <= MAX_LIFETIME


async def test_a_relay_that_speaks_no_hop_is_a_failure(world: World) -> None:
    other, host = await world.host(), await world.host()
    keeper = keeping(world, host, endpoint_of(other), other.peer_id)
    await Outcomes(keeper).wait(succeeded=False)
    state = keeper.relays[other.peer_id]
    assert state.state == "failed"
    assert state.failure is not None and state.failure.reason is Reason.UNSUPPORTED_PROTOCOL
    assert await ping(await world.connect(host, other))


async def test_another_peer_at_the_relays_address_is_not_the_relay(world: World) -> None:
    relay, host = await world.relay(), await world.host()
    nobody = Identity.generate().peer_id
    keeper = keeping(world, host, relay.endpoint, nobody)
    await Outcomes(keeper).wait(succeeded=False)
    failure = keeper.relays[nobody].failure
    assert failure is not None and failure.reason is Reason.WRONG_PEER
    assert relay.service.table.reservations == 0


async def test_one_lost_relay_leaves_the_other_alone(world: World) -> None:
    first, second, host = await world.relay(), await world.relay(), await world.host()
    keeper = await world.reserve(host, first, second)
    await world.stop(first.host)
    await until(lambda: keeper.relays[first.peer_id].state == "failed")
    assert keeper.relays[second.peer_id].state == "active"
    assert second.service.table.reservations == 1


async def test_giving_up_a_reservation_forgets_the_relay(world: World) -> None:
    relay, host = await world.relay(), await world.host()
    keeper = ReservationKeeper(host, random.Random(1))
    CircuitAcceptor(host, keeper.is_ours)
    outcomes = Outcomes(keeper)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keeper.keep, relay.endpoint, relay.peer_id)
        # Declared twice, say: the second one must not trip over the first.
        nursery.start_soon(keeper.keep, relay.endpoint, relay.peer_id)
        await outcomes.wait(succeeded=True, beyond=1)
        assert keeper.is_ours(relay.peer_id)
        nursery.cancel_scope.cancel()
    assert not keeper.relays
    [conn] = host.connections(relay.peer_id)
    assert conn.holds == 0


# --- from the listen port


async def test_a_relay_met_from_another_port_is_met_again_from_the_listen_port(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else nobody could punch us for as long as that reservation lives."""
    monkeypatch.setattr(reservations, "PORT_IS_FREE_AFTER", 0.05)

    def met(host: Host, peer_id: str, *, from_listen_port: bool) -> bool:
        conn = host.direct_to(peer_id)
        path = conn.path if conn is not None else None
        return isinstance(path, Direct) and path.from_listen_port is from_listen_port

    async with small_world() as world:
        relay, host = await world.relay(), await world.host()
        with taken_between(host, relay.host):
            keeper = keeping(world, host, relay.endpoint, relay.peer_id)
            await until(lambda: met(host, relay.peer_id, from_listen_port=False))
        await until(lambda: met(host, relay.peer_id, from_listen_port=True))
        await until(lambda: keeper.relays[relay.peer_id].state == "active")
