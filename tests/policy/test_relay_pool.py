"""The relay pool: which relays are kept, replaced and rotated, and that nothing is lost by it."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from appliance.network import Endpoint
from appliance.policy.netgroup import by_network
from appliance.policy.relay_pool import (
    BACKOFF_CEILING,
    BACKOFF_FIRST,
    LOSSES,
    ROTATE_EVERY,
    ROTATE_JITTER,
    RelayPool,
)
from appliance.policy.relays import Decision, Drop, Keep, Relay, RelayCandidate, Wait
from appliance.reasons import Reason
from appliance.units import HOUR, MINUTE

YEAR = 365 * 24 * HOUR


def relay(network: int, host: int = 1) -> Relay:
    return Relay(Endpoint(f"60.{network}.0.{host}", 16112), f"relay-{network}-{host}")


def candidate(network: int, host: int = 1, *, proven: bool = True) -> RelayCandidate:
    return RelayCandidate(relay(network, host), proven=proven, known_as=b"key")


class Shell:
    """Performs what the pool decides, as the bridge would; relays in `dead` never answer."""

    def __init__(self, declared: Iterable[Relay] = (), *, most: int = 4, wanted: int = 3) -> None:
        self.rng = random.Random(7)
        self.now = 1000.0
        self.pool = RelayPool(declared, own_id="us", most=most, wanted=wanted)
        self.known: list[RelayCandidate] = []
        self.dead: set[Endpoint] = set()
        self.kept: dict[Endpoint, Reason] = {}
        self.log: list[Decision] = []

    def decide(self) -> list[Decision]:
        decisions = self.pool.decide(self.now, self.known, self.rng)
        for decision in decisions:
            if isinstance(decision, Keep):
                assert decision.candidate.relay.endpoint not in self.kept
                self.kept[decision.candidate.relay.endpoint] = decision.because
            elif isinstance(decision, Drop):
                del self.kept[decision.endpoint]
        assert [isinstance(one, Wait) for one in decisions].count(True) == 1
        assert isinstance(decisions[-1], Wait) and decisions[-1].seconds > 0
        self.log += decisions
        return decisions

    def answer(self) -> None:
        """Everybody who is asked answers, or does not."""
        for endpoint, member in list(self.pool.members.items()):
            if member.held_since is None:
                if endpoint in self.dead:
                    self.pool.failed(endpoint, Reason.DIAL_FAILED, self.now, self.rng)
                else:
                    self.pool.reserved(endpoint, self.now)

    def settle(self) -> None:
        """Until nothing changes any more."""
        for _ in range(50):
            before = (dict(self.kept), self.held)
            self.decide()
            self.answer()
            if (self.kept, self.held) == before:
                return
        pytest.fail("the pool does not come to rest")

    def run(self, seconds: float, step: float = 30.0) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now += step
            self.settle()

    @property
    def held(self) -> set[Endpoint]:
        return {at for at, m in self.pool.members.items() if m.held_since is not None}

    def drops(self) -> list[Drop]:
        return [one for one in self.log if isinstance(one, Drop)]


def endpoints(relays: Sequence[Relay]) -> set[Endpoint]:
    return {one.endpoint for one in relays}


def test_three_relays_of_three_networks_are_found_and_kept() -> None:
    shell = Shell()
    shell.known = [candidate(network, host) for network in range(4) for host in range(1, 9)]
    shell.settle()
    assert len(shell.held) == 3
    assert len({by_network(endpoint) for endpoint in shell.held}) == 3


def test_a_network_serves_twice_only_while_there_is_no_other() -> None:
    shell = Shell()
    shell.known = [candidate(1, host) for host in range(1, 9)]
    shell.settle()
    assert len(shell.held) == 3
    shell.known += [candidate(2), candidate(3)]
    before = len(shell.held)
    shell.run(10 * MINUTE)
    assert len(shell.held) >= before
    assert len({by_network(endpoint) for endpoint in shell.held}) == 3
    assert {drop.because for drop in shell.drops()} == {Reason.RELAY_ROTATION}


def test_declared_relays_come_first_and_are_never_given_up() -> None:
    declared = [relay(1), relay(1, 2)]
    shell = Shell(declared)
    shell.known = [candidate(network) for network in range(2, 30)]
    shell.dead = endpoints(declared)
    shell.run(3 * HOUR)
    assert endpoints(declared) <= set(shell.kept)
    assert len(shell.kept) <= 4
    assert not any(drop.endpoint in endpoints(declared) for drop in shell.drops())
    # Two others stand in for them, and go when they are back.
    assert len(shell.held) == 2
    shell.dead.clear()
    shell.settle()
    assert endpoints(declared) <= shell.held
    assert len(shell.held) == 3
    assert shell.drops()[-1].because is Reason.RELAYS_ENOUGH


def test_with_enough_declared_relays_nothing_else_is_kept() -> None:
    shell = Shell([relay(network) for network in range(6)], most=6)
    shell.known = [candidate(network) for network in range(10, 20)]
    shell.run(3 * HOUR)
    assert len(shell.kept) == 6
    assert not shell.drops()


def test_a_relay_that_refuses_is_replaced_and_left_alone_for_a_while() -> None:
    shell = Shell(wanted=1)
    shell.known = [candidate(1)]
    shell.dead = {relay(1).endpoint}
    shell.settle()
    shell.known.append(candidate(2))
    shell.settle()
    assert shell.held == {relay(2).endpoint}
    [drop] = shell.drops()
    assert drop == Drop(relay(1).endpoint, Reason.DIAL_FAILED)

    # Now the second one is gone for good, but the first one has to wait for its turn.
    shell.known = [candidate(1)]
    shell.dead = {relay(2).endpoint}
    for _ in range(2):
        shell.pool.failed(relay(2).endpoint, Reason.CONNECTION_LOST, shell.now, shell.rng)
    shell.settle()
    assert set(shell.kept) == {relay(2).endpoint}
    shell.now += BACKOFF_FIRST * 4
    shell.settle()
    assert shell.held == {relay(1).endpoint}


def test_one_lost_connection_is_forgiven_and_two_failures_in_a_row_are_not() -> None:
    shell = Shell(wanted=1)
    shell.known = [candidate(1), candidate(2)]
    shell.settle()
    [first] = shell.held
    shell.pool.failed(first, Reason.CONNECTION_LOST, shell.now, shell.rng)
    shell.decide()
    assert set(shell.kept) == {first}
    shell.pool.failed(first, Reason.DIAL_FAILED, shell.now, shell.rng)
    shell.settle()
    assert len(shell.held) == 1 and first not in shell.kept


def test_a_relay_that_is_lost_again_and_again_goes_once_another_one_stands() -> None:
    shell = Shell(wanted=1)
    shell.known = [candidate(1)]
    shell.settle()
    [first] = shell.held
    for _ in range(LOSSES):
        shell.pool.failed(first, Reason.CONNECTION_LOST, shell.now, shell.rng)
        shell.settle()
        assert shell.held == {first}
    shell.known.append(candidate(2))
    kept = [one.because for one in shell.decide() if isinstance(one, Keep)]
    assert kept == [Reason.RELAY_UNSTABLE]
    assert first in shell.kept
    shell.settle()
    assert shell.held == {relay(2).endpoint}


def test_hearsay_is_tried_last_and_counts_once_it_served() -> None:
    shell = Shell(wanted=2)
    shell.known = [candidate(1, proven=False), candidate(2)]
    decisions = shell.decide()
    kept = [one.candidate for one in decisions if isinstance(one, Keep)]
    assert kept == [candidate(2), candidate(1, proven=False)]
    hearsay = candidate(1, proven=False)
    assert shell.pool.score(hearsay, shell.now) < shell.pool.score(candidate(2), shell.now)
    shell.answer()
    assert shell.pool.score(hearsay, shell.now) == shell.pool.score(candidate(2), shell.now)


def test_one_relay_is_rotated_every_three_quarters_of_an_hour() -> None:
    shell = Shell()
    shell.known = [candidate(network) for network in range(20)]
    shell.settle()
    shell.run(24 * HOUR)
    turns = len(shell.drops())
    least = 24 * HOUR / (ROTATE_EVERY * (1 + ROTATE_JITTER) + 2 * MINUTE) - 1
    most = 24 * HOUR / (ROTATE_EVERY * (1 - ROTATE_JITTER)) + 1
    assert least <= turns <= most
    assert {drop.because for drop in shell.drops()} == {Reason.RELAY_ROTATION}
    # Whoever served longest goes: in a day everybody had a turn of a few hours.
    assert len({drop.endpoint for drop in shell.drops()}) > 10


def test_long_service_makes_no_relay_better_than_a_newcomer() -> None:
    shell = Shell(wanted=1)
    shell.known = [candidate(1)]
    shell.settle()
    shell.now += YEAR
    old, new = shell.pool.members[relay(1).endpoint].candidate, candidate(2)
    assert shell.pool.score(old, shell.now) == shell.pool.score(new, shell.now) == 1.0
    shell.known.append(new)
    shell.run(2 * HOUR)
    assert relay(2).endpoint in {drop.endpoint for drop in shell.drops()} | shell.held


def test_nobody_is_rotated_for_hearsay() -> None:
    shell = Shell()
    shell.known = [candidate(network) for network in range(3)]
    shell.settle()
    shell.known += [candidate(network, proven=False) for network in range(3, 50)]
    shell.run(6 * HOUR)
    assert not shell.drops()


def test_a_newcomer_that_refuses_costs_us_nothing() -> None:
    shell = Shell()
    shell.known = [candidate(network) for network in range(3)]
    shell.settle()
    before = shell.held
    shell.known += [candidate(network) for network in range(3, 9)]
    shell.dead = {relay(network).endpoint for network in range(3, 9)}
    shell.run(3 * HOUR)
    assert shell.held == before
    assert {drop.endpoint for drop in shell.drops()} <= shell.dead


def test_ourselves_and_relays_under_a_second_address_are_no_relays() -> None:
    shell = Shell()
    elsewhere = Endpoint("61.9.0.1", 1)
    shell.known = [
        RelayCandidate(Relay(Endpoint("61.0.0.1", 1), "us"), proven=True),
        candidate(1),
        RelayCandidate(Relay(elsewhere, relay(1).peer_id), proven=True),
    ]
    shell.settle()
    assert len(shell.held) == 1
    # One whose id is not known is found out when it is met.
    shell.known = [RelayCandidate(Relay(Endpoint("61.1.0.1", 1)), proven=False)]
    shell.decide()
    assert not shell.pool.met(Endpoint("61.1.0.1", 1), "us")
    [held] = shell.held
    known = shell.pool.members[held].relay.peer_id
    assert known is not None
    assert not shell.pool.met(Endpoint("61.1.0.1", 1), known)
    assert shell.pool.met(Endpoint("61.1.0.1", 1), "somebody")


def test_a_relay_that_moved_is_kept_where_it_is_now() -> None:
    shell = Shell(wanted=1)
    shell.known = [candidate(1)]
    shell.settle()
    shell.dead = {relay(1).endpoint}
    moved = Relay(Endpoint("62.0.0.1", 1), relay(1).peer_id)
    shell.known = [RelayCandidate(moved, proven=True)]
    for _ in range(2):
        shell.pool.failed(relay(1).endpoint, Reason.CONNECTION_LOST, shell.now, shell.rng)
    shell.settle()
    assert shell.held == {moved.endpoint}


class Life(RuleBasedStateMachine):
    """Whatever happens, in whatever order."""

    @initialize(declared=st.integers(0, 5), most=st.integers(1, 6), seed=st.integers(0, 1000))
    def begin(self, declared: int, most: int, seed: int) -> None:
        self.declared = [relay(200 + number) for number in range(declared)]
        self.shell = Shell(self.declared, most=max(most, declared), wanted=3)
        self.shell.rng = random.Random(seed)
        self.failed_at: dict[Endpoint, float] = {}

    @rule(network=st.integers(0, 5), host=st.integers(1, 4), proven=st.booleans())
    def is_heard_of(self, network: int, host: int, proven: bool) -> None:
        self.shell.known = [
            *(one for one in self.shell.known[-30:] if one.relay != relay(network, host)),
            candidate(network, host, proven=proven),
        ]

    @rule(count=st.integers(0, 40))
    def is_forgotten(self, count: int) -> None:
        self.shell.known = self.shell.known[count:]

    @rule(seconds=st.sampled_from([0.5, 10.0, 70.0, 600.0, 2700.0, 4000.0]))
    def passes(self, seconds: float) -> None:
        self.shell.now += seconds

    @rule(number=st.integers(0, 9), reason=st.sampled_from([Reason.DIAL_FAILED, Reason.IDLE]))
    def fails(self, number: int, reason: Reason) -> None:
        members = list(self.shell.pool.members)
        if number < len(members):
            self.shell.pool.failed(members[number], reason, self.shell.now, self.shell.rng)
            self.failed_at[members[number]] = self.shell.now

    @rule(number=st.integers(0, 9))
    def grants(self, number: int) -> None:
        members = list(self.shell.pool.members)
        if number < len(members):
            self.shell.pool.reserved(members[number], self.shell.now)
            self.failed_at.pop(members[number], None)

    @rule()
    def decides(self) -> None:
        shell, pool = self.shell, self.shell.pool
        before = {at: by_network(at) for at in pool.members}
        held, least = shell.held, min(len(shell.held), pool.wanted)
        for decision in shell.decide():
            if isinstance(decision, Keep) and decision.because is not Reason.DECLARED:
                at = decision.candidate.relay.endpoint
                # Whoever failed waits.
                failed = self.failed_at.get(at)
                assert failed is None or shell.now - failed >= 0.75 * BACKOFF_FIRST
        # What we had, we have, unless there was more than is wanted.
        assert len(held & set(shell.kept)) >= least
        free = {by_network(one.relay.endpoint) for one in shell.known if self._is_free(one)}
        taken = [
            by_network(at)
            for at, member in pool.members.items()
            if not member.unhealthy and member.replaces is None
        ]
        fresh = [by_network(at) for at in pool.members if at not in before]
        for network in fresh:
            # A second one of a network is taken only if no other network was left.
            assert taken.count(network) < 2 or not free - set(taken)

    def _is_free(self, one: RelayCandidate) -> bool:
        at = one.relay.endpoint
        failed = self.failed_at.get(at)
        waits = failed is not None and self.shell.now - failed < 2 * BACKOFF_CEILING
        return at not in self.shell.pool.members and not waits

    @invariant()
    def is_sane(self) -> None:
        if not hasattr(self, "shell"):
            return
        pool, shell = self.shell.pool, self.shell
        assert set(pool.members) == set(shell.kept)
        others = [at for at, member in pool.members.items() if not member.declared]
        assert len(pool.members) <= max(len(self.declared), pool._most)
        assert len(others) <= pool.wanted + 1
        for one in [*shell.known, *(member.candidate for member in pool.members.values())]:
            assert 0.0 < pool.score(one, shell.now) <= 1.0
        assert not any(drop.endpoint in endpoints(self.declared) for drop in shell.drops())


Life.TestCase.settings = settings(max_examples=60, stateful_step_count=50)
TestLife = Life.TestCase
