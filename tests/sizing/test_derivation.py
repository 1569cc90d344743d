"""Every number of a plan has its derivation, and computing the formula again gives the number."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping

import pytest
from hypothesis import given

from appliance.sizing import CATALOGUE, Plan, Profile, Step, Wishes, plan
from appliance.sizing.traced import NAME
from tests.sizing.machines import attempt, modest_wishes, profiles, wishes


def numbers(found: Plan) -> Iterator[tuple[str, int]]:
    """Every number that the plan gives to somebody, by the name of its step."""
    yield from dataclasses.asdict(found.caps).items()
    for group, prefix in (
        (found.unit, ""),
        (found.sysctl, ""),
        (found.firewall, ""),
        (found.store, "store."),
        (found.alerts, "alert."),
        (found.kaspad.unit if found.kaspad else {}, "kaspad."),
    ):
        for name, value in group.items():
            yield f"{prefix}{name}", value
    for name in ("fds", "memory", "conntrack"):
        budget = getattr(found, name)
        yield f"{name}.limit", budget.limit
        yield f"{name}.used", budget.used
        for owner, value in budget.reserved.items():
            yield ("unread_bytes" if owner == "unread" else f"{name}.{owner}"), value
        for cap, unit in budget.per_unit.items():
            if unit:
                yield f"{name}.per.{cap}", unit
    for owner, value in found.machine.owners.items():
        if owner not in ("appliance", "kaspad"):
            yield f"machine.{owner}", value


def compute(formula: str, known: Mapping[str, int]) -> int:
    """What the formula says, computed by Python itself."""

    def named(match: re.Match[str]) -> str:
        name = match.group()
        return name if name in ("min", "max") else str(known[name])

    text = re.sub(NAME, named, formula)
    assert re.fullmatch(r"(?:min|max|[\d\s(),+×÷-])+", text), formula
    # Nothing but numbers, signs and the two functions: checked just above.
    value = eval(text.replace("×", "*").replace("÷", "//"))
    assert isinstance(value, int)
    return value


def check(found: Plan) -> None:
    known = {f"profile.{name}": value for name, value in dataclasses.asdict(found.profile).items()}
    derived: dict[str, Step] = {}
    for step in found.derivation:
        assert step.because
        assert step.name not in derived
        assert compute(step.formula, known) == step.value, step
        known[step.name] = step.value  # a step uses only those before it
        derived[step.name] = step
    for name, value in numbers(found):
        assert derived[name].value == value, name


@given(profiles, modest_wishes | wishes)
def test_every_formula_gives_its_number(profile: Profile, asked: Wishes) -> None:
    found = attempt(profile, asked)
    if isinstance(found, Plan):
        check(found)


@pytest.mark.parametrize("node", ["kaspad", "embedded", "remote"])
def test_a_large_server_s_plan_is_derived_throughout(node: str) -> None:
    check(plan(CATALOGUE["x86-large"], Wishes(node=node)))  # type: ignore[arg-type] # parameters are str
