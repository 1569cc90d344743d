"""The solver's promises, on the catalogue and on machines that nobody sells."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.sizing import CATALOGUE, Budget, Infeasible, Plan, Profile, Wishes, plan
from appliance.units import GIB, MIB

profiles = st.builds(
    Profile,
    name=st.just("any"),
    description=st.just("any"),
    source=st.just("drawn"),
    architecture=st.just("x86_64"),
    cores=st.integers(1, 256),
    memory_bytes=st.integers(1, 2**44),
    nofile=st.integers(1, 2**30),
    link_bytes_per_second=st.integers(1, 2**37),
    conntrack_max=st.integers(1, 2**30),
    storage=st.just("ssd"),
)
small_profiles = st.builds(
    dataclasses.replace,
    profiles,
    nofile=st.integers(100, 3000),
    memory_bytes=st.integers(200 * MIB, 2 * GIB),
    conntrack_max=st.integers(64, 8192),
)
roomy_profiles = st.builds(
    dataclasses.replace,
    profiles,
    nofile=st.integers(2000, 2**20),
    memory_bytes=st.integers(GIB, 64 * GIB),
    conntrack_max=st.integers(8192, 2**20),
)
wishes = st.builds(
    Wishes,
    relay=st.booleans(),
    embedded=st.booleans(),
    peers=st.integers(0, 256),
    relays=st.integers(0, 64),
    listeners=st.integers(1, 16),
    dials=st.integers(0, 256),
    private_inbound_target=st.none() | st.integers(0, 1024),
    per_relay_inbound=st.none() | st.integers(1, 1024),
)
modest_wishes = st.builds(
    Wishes,
    relay=st.booleans(),
    embedded=st.booleans(),
    peers=st.integers(0, 16),
    private_inbound_target=st.none() | st.integers(1, 16),
)

OPENING = (
    "inbound_direct",
    "inbound_private",
    "outbound_direct",
    "outbound_private",
    "relay_reservations",
    "relay_circuits",
)


def attempt(profile: Profile, asked: Wishes) -> Plan | Infeasible:
    try:
        return plan(profile, asked)
    except Infeasible as verdict:
        return verdict


def caps_of(found: Plan) -> dict[str, int]:
    return dataclasses.asdict(found.caps)


def check_budget(budget: Budget, caps: dict[str, int]) -> None:
    assert budget.limit == sum(budget.reserved.values()) + budget.available
    assert budget.used == sum(caps[name] * budget.per_unit[name] for name in OPENING)
    assert budget.used <= budget.available


@given(profiles | small_profiles, wishes)
def test_a_plan_keeps_every_budget_or_names_what_binds(profile: Profile, asked: Wishes) -> None:
    found = attempt(profile, asked)
    if isinstance(found, Infeasible):
        assert found.message
        assert found.constraint in {"fds", "memory", "conntrack", "inbound_private"}
        assert found.nearest >= 0
        return
    caps = caps_of(found)
    for budget in (found.fds, found.memory, found.conntrack):
        check_budget(budget, caps)
    assert all(value >= 0 for value in caps.values())
    assert {step.name: step.value for step in found.derivation if step.name in caps} == caps
    assert all(step.formula and step.because for step in found.derivation)
    assert caps["per_relay_inbound"] <= caps["inbound_private"]
    assert caps["relay_circuits_per_peer"] <= caps["relay_circuits"]
    assert caps["outbound_private"] >= asked.peers
    assert found.unit["LimitNOFILE"] == found.fds.limit <= profile.nofile
    assert found.unit["MemoryHigh"] <= found.unit["MemoryMax"] <= profile.memory_bytes
    if asked.private_inbound_target is not None:
        assert caps["inbound_private"] == asked.private_inbound_target
    if asked.per_relay_inbound is not None:
        assert caps["per_relay_inbound"] == asked.per_relay_inbound
    if not asked.relay:
        assert caps["relay_reservations"] == caps["relay_circuits"] == 0


@pytest.mark.parametrize(
    "resource", ["nofile", "memory_bytes", "conntrack_max", "cores", "link_bytes_per_second"]
)
@given(profile=roomy_profiles | small_profiles, asked=modest_wishes, more=st.integers(1, 5000))
def test_more_of_a_resource_never_makes_a_cap_smaller(
    resource: str, profile: Profile, asked: Wishes, more: int
) -> None:
    less = attempt(profile, asked)
    if isinstance(less, Infeasible):
        return
    factor = MIB if resource == "memory_bytes" else 1
    amount = getattr(profile, resource) + more * factor
    greater = plan(dataclasses.replace(profile, **{resource: amount}), asked)
    small, large = caps_of(less), caps_of(greater)
    assert all(small[name] <= large[name] for name in small)


def wish(asked: Wishes, field: str, value: int) -> Wishes:
    match field:
        case "bridge.private_inbound_target":
            return dataclasses.replace(asked, private_inbound_target=value)
        case "bridge.per_relay_inbound":
            return dataclasses.replace(asked, per_relay_inbound=value)
        case "bridge.peers":
            return dataclasses.replace(asked, peers=value)
    assert field == "node.addpeer and node.connect"
    return dataclasses.replace(asked, dials=value)


@given(small_profiles, wishes)
def test_the_nearest_feasible_value_is_feasible_and_the_next_is_not(
    profile: Profile, asked: Wishes
) -> None:
    verdict = attempt(profile, asked)
    if isinstance(verdict, Plan) or verdict.wish is None:
        return
    settled = attempt(profile, wish(asked, verdict.wish, verdict.nearest))
    # Another wish may be infeasible as well; this one no longer is.
    assert isinstance(settled, Plan) or settled.wish != verdict.wish
    worse = attempt(profile, wish(asked, verdict.wish, verdict.nearest + 1))
    assert isinstance(worse, Infeasible)


@given(profiles, wishes)
def test_the_same_input_gives_the_same_plan(profile: Profile, asked: Wishes) -> None:
    first, second = attempt(profile, asked), attempt(profile, asked)
    if isinstance(first, Plan):
        assert first == second
    else:
        assert str(first) == str(second)


@pytest.mark.parametrize("name", CATALOGUE)
@pytest.mark.parametrize("embedded", [False, True])
def test_every_profile_of_the_catalogue_runs_a_home_node(name: str, embedded: bool) -> None:
    caps = plan(CATALOGUE[name], Wishes(embedded=embedded)).caps
    assert (caps.inbound_private, caps.per_relay_inbound) == (8, 4)
    assert (caps.unknown_relay_inbound, caps.outbound_direct) == (8, 8)
    assert caps.outbound_private == 8
    assert caps.relay_reservations >= 64
    assert caps.relay_reservations_per_ip == 8


def test_a_pi_4_serves_what_the_others_serve() -> None:
    caps = plan(CATALOGUE["raspberry-pi-4-4g"], Wishes()).caps
    assert caps.inbound_direct == 128
    assert caps.relay_reservations == 128
    assert caps.relay_circuits_per_peer == 16


def test_a_file_limit_of_1024_shrinks_what_is_dispensable_first() -> None:
    narrow = dataclasses.replace(CATALOGUE["raspberry-pi-4-4g"], nofile=1024)
    caps = plan(narrow, Wishes()).caps
    assert caps.inbound_private == 8
    assert caps.inbound_direct < 128


def test_a_wish_that_breaks_a_budget_names_the_field_and_the_nearest_value() -> None:
    narrow = dataclasses.replace(CATALOGUE["raspberry-pi-4-4g"], nofile=512)
    with pytest.raises(Infeasible) as caught:
        plan(narrow, Wishes(private_inbound_target=500))
    verdict = caught.value
    assert (verdict.constraint, verdict.wish) == ("fds", "bridge.private_inbound_target")
    assert verdict.message == (
        "bridge.private_inbound_target: 500 would take 1000 open files, and 338 are free; "
        "at most 169 fit"
    )
    assert plan(narrow, Wishes(private_inbound_target=169)).caps.inbound_private == 169


def test_a_machine_that_is_too_small_is_told_what_it_lacks() -> None:
    tiny = dataclasses.replace(CATALOGUE["router-512m"], memory_bytes=128 * MIB)
    with pytest.raises(Infeasible) as caught:
        plan(tiny, Wishes())
    assert caught.value.constraint == "memory"
    assert caught.value.message.startswith("this machine is too small: the appliance needs ")


def test_one_relay_cannot_be_granted_more_than_all() -> None:
    with pytest.raises(Infeasible) as caught:
        plan(CATALOGUE["x86-small"], Wishes(per_relay_inbound=9))
    assert caught.value.nearest == 8
    assert caught.value.wish == "bridge.per_relay_inbound"


def test_an_embedded_node_s_end_of_each_pipe_is_counted() -> None:
    beside = plan(CATALOGUE["x86-medium"], Wishes()).fds
    within = plan(CATALOGUE["x86-medium"], Wishes(embedded=True)).fds
    assert within.per_unit["inbound_private"] == beside.per_unit["inbound_private"] + 1
