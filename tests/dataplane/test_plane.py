"""What connections share: who is pumped when, and what all of them hold together."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest
import trio
from trio.testing import MockClock

from appliance.dataplane.plane import Plane, PlaneLimits
from appliance.dataplane.session import MuxStream
from appliance.dataplane.streams import BATCH
from appliance.dataplane.unread import STALL_PATIENCE
from appliance.errors import StreamReset
from appliance.reasons import Reason
from appliance.units import KIB, MIB
from tests.dataplane.sessions import (
    assert_accounted,
    assert_over,
    assert_settled,
    connected,
    settle,
    stream_pair,
)


class Pumped:
    """A connection that writes down when it is pumped, and does `then` each time."""

    def __init__(self, name: str, order: list[str], then: Callable[[], None] | None = None) -> None:
        self.name = name
        self.order = order
        self.then = then

    def pump(self) -> None:
        self.order.append(self.name)
        if self.then is not None:
            self.then()

    def resume(self) -> None:
        self.order.append(f"resume {self.name}")


class Borrower:
    def __init__(self, order: list[str]) -> None:
        self.order = order

    def settle(self) -> None:
        self.order.append("settle")


def test_connections_are_pumped_in_the_order_in_which_they_were_touched() -> None:
    plane, order = Plane(), list[str]()
    for name in "abc":
        plane.touch(Pumped(name, order))
    plane.flush()
    plane.flush()
    assert order == ["a", "b", "c"]


def test_what_is_touched_by_pumping_is_pumped_too_and_flushes_do_not_nest() -> None:
    plane, order = Plane(), list[str]()
    inner = Pumped("inner", order)

    def touch_inner() -> None:
        plane.touch(inner)
        plane.flush()
        order.append("back in outer")

    plane.touch(Pumped("outer", order, touch_inner))
    plane.touch(Pumped("next", order))
    plane.flush()
    assert order == ["outer", "back in outer", "next", "inner"]


def test_borrowers_settle_behind_the_flush_and_once() -> None:
    plane, order = Plane(), list[str]()
    plane.touch(Pumped("a", order))
    plane.borrow(Borrower(order))
    plane.settle()
    plane.settle()
    assert order == ["a", "settle"]


def test_a_pump_that_fails_does_not_close_the_flush_for_ever() -> None:
    plane, order = Plane(), list[str]()

    def fail() -> None:
        raise LookupError

    plane.touch(Pumped("broken", order, fail))
    plane.touch(Pumped("whole", order))
    with pytest.raises(LookupError):
        plane.flush()
    plane.flush()
    assert order == ["broken", "whole"]


def test_only_below_the_total_those_who_wait_look_again() -> None:
    plane, order = Plane(PlaneLimits(total_unread=100)), list[str]()
    one, other = Pumped("one", order), Pumped("other", order)
    plane.add_unread(300)
    plane.pause(one)
    plane.pause(other)
    plane.forget(other)
    plane.add_unread(-199)
    assert order == []
    plane.add_unread(-1)
    plane.add_unread(-100)
    assert order == ["resume one"] and plane.unread == 0


CONNECTIONS = 200
LIMITS = PlaneLimits(
    connection_unread=MIB, total_unread=8 * MIB, assured=64 * KIB, total_growth=8 * MIB
)


async def test_stalled_readers_on_200_connections_hold_what_the_limits_say(
    autojump_clock: MockClock,
) -> None:
    plane = Plane(LIMITS)
    payload = bytes(2 * MIB)
    held_most = 0
    finished: list[MuxStream] = []

    async def read_all(stream: MuxStream, size: int) -> None:
        while size:
            size -= len(await stream.receive_some())
        finished.append(stream)

    async with trio.open_nursery() as nursery:

        async def send(ours: MuxStream) -> None:
            with suppress(StreamReset):
                await ours.send_all(payload)

        pairs = [connected(nursery, plane=plane, capacity=64 * KIB) for _ in range(CONNECTIONS)]
        sessions = [end.session for pair in pairs for end in pair]
        stalled = []
        for one, other in pairs:
            for _ in range(2):
                ours, theirs = await stream_pair(one, other)
                nursery.start_soon(send, ours)
                stalled.append(theirs)

        def check() -> None:
            nonlocal held_most
            assert_settled(plane, paused=True)
            assert_accounted(plane, *sessions)
            held = sum(len(piece) for theirs in stalled for piece in theirs._inbox or ())
            assert held == plane.unread
            held_most = max(held_most, held)

        for _ in range(30):
            await settle(20)
            check()
        for _ in range(3):
            await trio.sleep(STALL_PATIENCE + 1)
            check()
        bound = LIMITS.total_unread + CONNECTIONS * (LIMITS.assured + BATCH)
        assert LIMITS.total_unread < held_most <= bound
        # Patience made room, and no connection was in danger for it.
        assert plane.unread <= max(LIMITS.total_unread, CONNECTIONS * LIMITS.assured)
        assert not any(session.closed.is_set() for session in sessions)
        # Whoever reads now gets all that was promised to it.
        (theirs, *_) = [theirs for theirs in stalled if theirs.unread]
        nursery.start_soon(read_all, theirs, len(payload))
        await trio.sleep(1)
        assert finished == [theirs]
        for session in sessions:
            session.abort(Reason.IDLE)
    assert_over(*sessions)
