"""The budget of new connections: nobody's router is overrun, and no punch is late."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.policy.dialling import BURST_SECONDS, DialBudget


def dials_within(budget: DialBudget, start: float, seconds: float) -> int:
    """How many ordinary dials begin when somebody dials as often as is allowed."""
    now, count = start, 0
    while (wait := budget.wait(now)) + now < start + seconds:
        now += wait
        budget.spend(1, now)
        count += 1
    return count


@given(st.integers(1, 40), st.floats(1, 30))
def test_over_a_while_no_more_than_the_rate_begins(rate: int, seconds: float) -> None:
    begun = dials_within(DialBudget(rate, 0.0), 0.0, seconds)
    assert begun <= rate * (BURST_SECONDS + seconds) + 1
    assert begun >= int(rate * seconds) - 1


def test_a_pause_saves_up_one_burst_and_no_more() -> None:
    budget = DialBudget(10, 0.0)
    assert dials_within(budget, 0.0, 0.001) == 40
    assert dials_within(budget, 3600.0, 0.001) == 40


def test_punches_go_at_once_and_ordinary_dials_pay_for_them() -> None:
    budget = DialBudget(10, 0.0)
    budget.spend(60, 0.0)
    assert budget.wait(0.0) == pytest.approx(2.1)  # 20 too many, and one for this dial
    assert budget.wait(2.1) == 0.0


def test_the_debt_of_a_storm_of_punches_is_bounded() -> None:
    budget = DialBudget(10, 0.0)
    budget.spend(10_000, 0.0)
    assert budget.wait(0.0) <= BURST_SECONDS + 0.1
