"""The solver's promises, on machines of every size."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import event, given

from appliance.sizing import Budget, Infeasible, Plan, Profile, Wishes
from tests.sizing.machines import (
    OPENING,
    SAYABLE,
    attempt,
    caps_of,
    impossible_profiles,
    modest_wishes,
    profiles,
    saying,
    wishes,
)

RESOURCES = (
    "nofile",
    "memory_bytes",
    "conntrack_max",
    "cores",
    "link_bytes_per_second",
    "new_connections_per_second",
)


def check_budget(budget: Budget, caps: dict[str, int]) -> None:
    """What the caps can open at most fits, and the limit is the sum of its parts."""
    assert budget.limit == sum(budget.reserved.values()) + budget.available
    assert budget.used == sum(caps[name] * budget.per_unit[name] for name in OPENING)
    assert budget.used <= budget.available


@given(profiles | impossible_profiles, modest_wishes | wishes)
def test_a_plan_keeps_every_budget_or_names_what_binds(profile: Profile, asked: Wishes) -> None:
    found = attempt(profile, asked)
    event("infeasible" if isinstance(found, Infeasible) else "planned")
    if isinstance(found, Infeasible):
        assert found.message
        assert found.constraint
        assert found.nearest >= 0
        assert found.wish is None or found.message.startswith(found.wish)
        return
    caps = caps_of(found)
    for budget in (found.fds, found.memory, found.conntrack):
        check_budget(budget, caps)
    assert all(value >= 0 for value in caps.values())
    assert found.fds.limit <= profile.nofile
    assert found.conntrack.limit <= profile.conntrack_max
    assert sum(found.machine.owners.values()) + found.machine.free == profile.memory_bytes
    assert found.machine.free >= 0
    assert {name: caps[name] for name in asked.caps} == asked.caps


@given(profiles, modest_wishes | wishes)
def test_the_caps_agree_with_each_other(profile: Profile, asked: Wishes) -> None:
    found = attempt(profile, asked)
    if isinstance(found, Infeasible):
        return
    caps = found.caps
    assert max(caps.per_relay_inbound, caps.unknown_relay_inbound) <= caps.inbound_private
    assert caps.relay_circuits_per_peer <= caps.relay_circuits
    assert caps.relay_reservations_per_ip <= caps.relay_reservations
    rates = (caps.relay_circuit_bytes_per_second, caps.relay_bytes_per_second)
    assert rates == tuple(sorted(rates))
    assert caps.relay_bytes_per_second <= profile.link_bytes_per_second
    assert caps.outbound_private >= asked.peers
    assert caps.outbound_direct >= asked.dials
    opened = caps.inbound_private + caps.outbound_private
    assert caps.connections > opened + caps.relay_reservations + caps.relay_circuits
    assert max(caps.handshakes, caps.connections_per_ip) <= caps.connections
    assert caps.unread_bytes <= found.memory.limit
    if not asked.relay:
        assert caps.relay_reservations == caps.relay_circuits == caps.relay_bytes_per_second == 0


@given(profiles, modest_wishes | wishes)
def test_the_limits_of_the_units_are_those_of_the_budgets(profile: Profile, asked: Wishes) -> None:
    found = attempt(profile, asked)
    if isinstance(found, Infeasible):
        return
    assert found.unit["LimitNOFILE"] == found.fds.limit
    assert found.unit["MemoryHigh"] <= found.unit["MemoryMax"] == found.memory.limit
    assert found.alerts["fds"] <= found.unit["LimitNOFILE"]
    assert found.alerts["memory_bytes"] <= found.unit["MemoryMax"]
    assert found.store["entries"] >= 4096
    if asked.node == "embedded":
        assert found.kaspad is None
        return
    assert found.kaspad is not None
    caps = found.caps
    assert found.kaspad.flags[:2] == (
        f"--maxinpeers={caps.inbound_direct + caps.inbound_private}",
        f"--outpeers={caps.outbound_direct + caps.outbound_private}",
    )
    assert bool(found.kaspad.unit) == (asked.node == "kaspad")
    if found.kaspad.fds is not None:
        check_budget(found.kaspad.fds, caps_of(found))
        assert found.kaspad.fds.limit <= profile.nofile
        assert 0.2 <= float(found.kaspad.flags[2].removeprefix("--ram-scale=")) <= 4
        assert found.machine.owners["kaspad"] == found.kaspad.unit["MemoryMax"]


@pytest.mark.parametrize("resource", RESOURCES)
@given(profile=profiles | impossible_profiles, asked=modest_wishes | wishes, more=profiles)
def test_more_of_a_resource_never_makes_a_cap_smaller(
    resource: str, profile: Profile, asked: Wishes, more: Profile
) -> None:
    less = attempt(profile, asked)
    if isinstance(less, Infeasible):
        return
    amount = max(getattr(profile, resource) + 1, getattr(more, resource))
    greater = attempt(dataclasses.replace(profile, **{resource: amount}), asked)
    assert isinstance(greater, Plan), greater
    small, large = caps_of(less), caps_of(greater)
    assert all(small[name] <= large[name] for name in small), {
        name: (small[name], large[name]) for name in small if small[name] > large[name]
    }


@pytest.mark.parametrize("resource", RESOURCES)
@given(profile=profiles | impossible_profiles, asked=modest_wishes | wishes)
def test_one_more_of_a_resource_never_makes_a_cap_smaller(
    resource: str, profile: Profile, asked: Wishes
) -> None:
    """The same at the steps where a division rounds."""
    less = attempt(profile, asked)
    if isinstance(less, Infeasible):
        return
    one_more = dataclasses.replace(profile, **{resource: getattr(profile, resource) + 1})
    greater = attempt(one_more, asked)
    assert isinstance(greater, Plan), greater
    small, large = caps_of(less), caps_of(greater)
    assert all(small[name] <= large[name] for name in small)


def wish(asked: Wishes, field: str, value: int) -> Wishes | None:
    """`asked` with what `field` says changed; None where it says no number."""
    cap = {"bridge.private_inbound_target": "inbound_private"}.get(field, field.rpartition(".")[2])
    match field:
        case "bridge.peers":
            return dataclasses.replace(asked, peers=value)
        case "node.addpeer and node.connect":
            return dataclasses.replace(asked, dials=value)
        case "node.kind":
            return None
    assert cap in SAYABLE
    return saying(asked, **{cap: value})


@given(profiles | impossible_profiles, wishes)
def test_the_nearest_feasible_value_is_feasible(profile: Profile, asked: Wishes) -> None:
    verdict = attempt(profile, asked)
    if isinstance(verdict, Plan) or verdict.wish is None:
        return
    nearest = wish(asked, verdict.wish, verdict.nearest)
    if nearest is None:
        return
    event(verdict.constraint)
    settled = attempt(profile, nearest)
    # Another wish may be infeasible as well; this one no longer is for the same reason.
    assert isinstance(settled, Plan) or (settled.wish, settled.constraint) != (
        verdict.wish,
        verdict.constraint,
    )


@given(profiles, wishes)
def test_the_same_input_gives_the_same_plan(profile: Profile, asked: Wishes) -> None:
    first, second = attempt(profile, asked), attempt(profile, asked)
    if isinstance(first, Plan):
        assert first == second
    else:
        assert str(first) == str(second)
