"""Who stands behind a slot of the address book, how long those wait who failed, and networks."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.network import Endpoint
from appliance.policy.netgroup import by_network, by_segment
from appliance.policy.peer_choice import (
    PEER_CEILING,
    PEER_FIRST,
    RELAY_FIRST,
    Choice,
    PeerCandidate,
    PeerChoice,
)
from appliance.policy.relays import Relay
from appliance.policy.retries import MAX_SUBJECTS, Retries
from appliance.reasons import Reason


def relay(number: int) -> Relay:
    return Relay(Endpoint(f"60.{number}.0.1", 16112), f"relay{number}")


def peer(name: str, *relays: int, signed: bool = True) -> PeerCandidate:
    return PeerCandidate(name, tuple(relay(number) for number in relays), signed=signed)


def rng() -> random.Random:
    return random.Random(3)


def chosen(choice: Choice | Reason) -> tuple[str, Relay]:
    assert isinstance(choice, Choice)
    return choice.peer.peer_id, choice.relay


@given(
    st.lists(st.tuples(st.integers(0, 30), st.lists(st.integers(0, 6), max_size=4)), max_size=30),
    st.integers(0, 1000),
)
def test_slots_get_distinct_peers_through_distinct_relays(
    known: list[tuple[int, list[int]]], seed: int
) -> None:
    chance = random.Random(seed)
    choice = PeerChoice("peer0", ["peer1"])
    candidates = [peer(f"peer{name}", *relays) for name, relays in known]
    found = [
        choice.choose(slot, 0.0, candidates, chance, connected={"peer2"}, relays_in_use=[relay(6)])
        for slot in range(8)
    ]
    pairs = [chosen(one) for one in found if isinstance(one, Choice)]
    assert len({name for name, _ in pairs}) == len({way for _, way in pairs}) == len(pairs)
    assert {name for name, _ in pairs}.isdisjoint({"peer0", "peer1", "peer2"})
    assert relay(6) not in {way for _, way in pairs}
    # Nobody is left out who has a relay to himself.
    if Reason.NO_CANDIDATE in found:
        names = {one.peer_id for one in candidates if one.relays} - {"peer0", "peer1", "peer2"}
        assert names <= {name for name, _ in pairs}


def test_the_same_relay_under_another_address_is_the_same() -> None:
    choice = PeerChoice("us")
    assert chosen(choice.choose(0, 0.0, [peer("a", 1)], rng()))
    elsewhere = Relay(Endpoint("61.0.0.1", 1), relay(1).peer_id)
    other = PeerCandidate("b", (elsewhere,))
    assert choice.choose(1, 0.0, [other], rng()) is Reason.RELAYS_IN_USE
    choice.release(0)
    assert chosen(choice.choose(1, 0.0, [other], rng())) == ("b", elsewhere)


def test_a_peer_that_failed_waits_longer_each_time_and_others_come_first() -> None:
    choice, now = PeerChoice("us"), 0.0
    waits = []
    for _ in range(9):
        chosen(choice.choose(0, now, [peer("a", 1)], rng()))
        choice.give_up(0, now, rng(), at_relay=False)
        assert choice.choose(0, now, [peer("a", 1)], rng()) is Reason.BACKING_OFF
        assert chosen(choice.choose(0, now, [peer("a", 1), peer("b", 2)], rng()))[0] == "b"
        choice.release(0)
        began = now
        while choice.choose(0, now, [peer("a", 1)], rng()) is Reason.BACKING_OFF:
            now += 10.0
        waits.append(now - began)
        choice.release(0)
    assert waits[0] <= PEER_FIRST * 1.25 + 10
    assert waits == sorted(waits)
    assert max(waits) <= PEER_CEILING * 1.25 + 10


def test_the_fault_of_a_relay_is_not_the_fault_of_its_peer() -> None:
    choice, both = PeerChoice("us"), peer("a", 1, 2)
    _, first = chosen(choice.choose(0, 0.0, [both], rng()))
    choice.give_up(0, 0.0, rng(), at_relay=True)
    for seed in range(10):
        _, second = chosen(choice.choose(0, 1.0, [both], random.Random(seed)))
        assert second != first
        choice.release(0)
    only = PeerCandidate("c", (first,))
    assert choice.choose(0, 1.0, [only], rng()) is Reason.BACKING_OFF
    assert chosen(choice.choose(0, RELAY_FIRST * 1.25 + 1, [only], rng())) == ("c", first)


def test_a_peer_that_answered_starts_anew() -> None:
    choice = PeerChoice("us")
    for now in (0.0, 1000.0):
        choice.choose(0, now, [peer("a", 1)], rng())
        choice.give_up(0, now, rng(), at_relay=False)
    choice.choose(0, 10_000.0, [peer("a", 1)], rng())
    choice.reached(0)
    choice.give_up(0, 20_000.0, rng(), at_relay=False)
    late = 20_000.0 + PEER_FIRST * 1.25 + 1
    assert isinstance(choice.choose(0, late, [peer("a", 1)], rng()), Choice)


def test_signed_peers_are_chosen_before_hearsay() -> None:
    known = [peer("signed", 1), *(peer(f"said{n}", n, signed=False) for n in range(2, 5))]
    picks = Counter(
        chosen(PeerChoice("us").choose(0, 0.0, known, random.Random(seed)))[0]
        for seed in range(300)
    )
    assert picks["signed"] > 200


def test_no_peer_is_reached_through_ourselves_or_itself() -> None:
    choice = PeerChoice("us")
    here = PeerCandidate("a", (Relay(Endpoint("60.0.0.1", 1), "us"),))
    itself = PeerCandidate("b", (Relay(Endpoint("60.0.0.2", 1), "b"),))
    assert isinstance(choice.choose(0, 0.0, [here, itself], rng()), Reason)


# --- retries


def test_failures_are_bounded_and_forgotten() -> None:
    retries: Retries[int] = Retries(10.0, 100.0)
    for number in range(10 * MAX_SUBJECTS):
        retries.failed(number, 0.0, rng())
    assert len(retries) == MAX_SUBJECTS
    assert retries.failures(10 * MAX_SUBJECTS - 1, 0.0) == 1
    assert retries.failures(10 * MAX_SUBJECTS - 1, 1000.0) == 0
    retries.failed(-1, 1000.0, rng())
    assert len(retries) == 1


@given(st.integers(0, 100), st.integers(0, 2000))
def test_a_wait_never_passes_the_ceiling(failures: int, seed: int) -> None:
    retries: Retries[str] = Retries(2.0, 300.0)
    chance = random.Random(seed)
    ready = 0.0
    for _ in range(failures + 1):
        before = ready
        ready = retries.failed("a", before, chance)
        assert 0.75 * 2.0 <= ready - before <= 1.25 * 300.0
        assert not retries.ready("a", before)
    assert retries.ready("a", ready)


# --- networks


@pytest.mark.parametrize(
    ("host", "network", "segment"),
    [
        ("60.1.2.3", "60.1.0.0/16", "60.1.0.0/16"),
        ("203.0.113.7", "203.0.0.0/16", "203.0.113.0/24"),
        ("10.1.2.3", "10.1.0.0/16", "10.1.2.0/24"),
        ("127.0.0.1", "127.0.0.0/16", "127.0.0.1:5"),
        ("::ffff:60.1.2.3", "60.1.0.0/16", "60.1.0.0/16"),
        ("2a00:1:2:3::4", "2a00:1::/32", "2a00:1::/32"),
        ("fd00:1:2:3::4", "fd00:1::/32", "fd00:1:2:3::/64"),
    ],
)
def test_what_counts_as_one_network(host: str, network: str, segment: str) -> None:
    endpoint = Endpoint(host, 5)
    assert by_network(endpoint) == network
    assert by_segment(endpoint) == segment
