"""The inbound budget: one stream a peer, the private cap, each relay's quota."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import Refused
from appliance.policy.admission import Admission, InboundBudget, InboundLimits
from appliance.reasons import Reason

LIMITS = InboundLimits(private=4, per_relay=2, unknown_relay=1)


def refusal(budget: InboundBudget, peer: str, relay: str | None) -> Reason:
    with pytest.raises(Refused) as caught:
        budget.admit(peer, relay)
    return caught.value.reason


def test_each_limit_binds_in_its_turn() -> None:
    budget = InboundBudget(LIMITS)
    first = budget.admit("a", "r1")
    assert refusal(budget, "a", "r1") is Reason.PEER_HAS_STREAM
    assert refusal(budget, "a", "r2") is Reason.PEER_HAS_STREAM
    budget.admit("b", "r1")
    assert refusal(budget, "c", "r1") is Reason.PER_RELAY_FULL
    budget.admit("c", None)
    assert refusal(budget, "d", None) is Reason.UNKNOWN_RELAY_FULL
    budget.admit("d", "r2")
    assert refusal(budget, "e", "r2") is Reason.INBOUND_PRIVATE_FULL
    assert budget.used == 4 and budget.per_relay() == {"r1": 2, "r2": 1}
    budget.leave(first)
    budget.leave(first)
    assert budget.used == 3 and budget.per_relay() == {"r1": 1, "r2": 1}
    budget.admit("a", "r1")


def test_leaving_twice_does_not_take_a_later_admission_away() -> None:
    budget = InboundBudget(LIMITS)
    old = budget.admit("a", "r1")
    budget.leave(old)
    budget.admit("a", "r1")
    budget.leave(old)
    assert budget.used == 1 and budget.per_relay() == {"r1": 1}


def test_a_refusal_takes_nothing() -> None:
    budget = InboundBudget(InboundLimits(private=10, per_relay=0, unknown_relay=0))
    assert refusal(budget, "a", "r") is Reason.PER_RELAY_FULL
    assert refusal(budget, "a", None) is Reason.UNKNOWN_RELAY_FULL
    assert budget.used == 0 and budget.per_relay() == {}


@given(
    st.lists(
        st.tuples(st.booleans(), st.sampled_from("abcdefgh"), st.sampled_from(["r", "s", None])),
        max_size=60,
    )
)
def test_caps_hold_and_counters_return_to_zero(
    steps: list[tuple[bool, str, str | None]],
) -> None:
    budget = InboundBudget(LIMITS)
    inside: dict[str, Admission] = {}
    for enter, peer, relay in steps:
        if enter:
            try:
                inside[peer] = budget.admit(peer, relay)
            except Refused:
                continue
        elif peer in inside:
            budget.leave(inside.pop(peer))
        assert budget.used == len(inside) <= LIMITS.private
        per_relay = budget.per_relay()
        assert all(0 < count <= LIMITS.per_relay for count in per_relay.values())
        unknown = sum(admission.relay is None for admission in inside.values())
        assert unknown <= LIMITS.unknown_relay
        assert sum(per_relay.values()) + unknown == budget.used
    for admission in inside.values():
        budget.leave(admission)
    assert budget.used == 0 and budget.per_relay() == {}
