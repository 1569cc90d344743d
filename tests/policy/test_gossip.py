"""Manners of gossip: budgets that nothing exceeds, turns that come, diverse choices."""

from __future__ import annotations

import itertools
import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from appliance.policy.gossip import (
    CALM,
    FAILED_CEILING,
    HUNGRY_FIRST,
    AnswerBudget,
    AskBudget,
    Pace,
    diverse,
)
from appliance.units import HOUR, MINUTE

INTERVAL = 5 * MINUTE
STEPS = st.lists(
    st.tuples(
        st.floats(0, 2000),  # seconds until the next event
        st.integers(0, 9),  # who
        st.sampled_from(["answered", "too soon", "silent", "news"]),
        st.booleans(),  # hungry
    ),
    max_size=200,
)


@given(STEPS, st.integers(0, 40), st.integers())
def test_no_hour_has_more_questions_than_its_budget(
    steps: list[tuple[float, int, str, bool]], per_hour: int, seed: int
) -> None:
    budget, rng, now = AskBudget(per_hour, INTERVAL), random.Random(seed), 0.0
    asked: list[float] = []
    barred: dict[str, float] = {}
    for pause, number, fate, hungry in steps:
        now, who = now + pause, f"peer{number}"
        if fate == "news":
            budget.bring_forward(who)
        if not budget.may_ask(who, now):
            continue
        assert now >= barred.get(who, 0.0), "a peer that asked for silence was asked"
        asked.append(now)
        budget.asked(who, now, rng)
        if fate != "silent":
            wait = 600.0 if fate == "too soon" else 0.0
            budget.answered(who, now, rng, hungry=hungry, wait=wait)
            barred[who] = now + wait
    for start in asked:
        assert sum(start <= at < start + HOUR for at in asked) <= per_hour


def test_a_peer_that_never_answers_is_left_alone_for_longer_and_longer() -> None:
    budget, rng = AskBudget(10**6, INTERVAL), random.Random(1)
    now, asked = 0.0, []
    while now < 100 * HOUR:
        if budget.may_ask("dead", now):
            budget.asked("dead", now, rng)
            budget.bring_forward("dead")  # news are no reason
            asked.append(now)
        now += 5
    gaps = [later - before for before, later in itertools.pairwise(asked)]
    assert len(asked) < 70
    assert all(gap >= 0.75 * 15 for gap in gaps)
    assert FAILED_CEILING * 0.75 <= gaps[-1] <= FAILED_CEILING * 1.25 + 5


def test_one_peer_is_asked_in_haste_only_while_we_are_hungry() -> None:
    def questions(*, hungry: bool) -> int:
        budget, rng, count, now = AskBudget(10**6, INTERVAL), random.Random(2), 0, 0.0
        while now < HOUR:
            if budget.may_ask("peer", now):
                budget.asked("peer", now, rng)
                budget.answered("peer", now, rng, hungry=hungry)
                count += 1
            now += 1
        return count

    assert 9 <= questions(hungry=False) <= 16
    assert 13 <= questions(hungry=True) <= 22  # a few at first, then as everybody


def test_the_turns_of_strangers_take_bounded_memory() -> None:
    asks, answers = AskBudget(10**6, INTERVAL, 50), AnswerBudget(MINUTE, 3, 50)
    for number in range(1000):
        asks.asked(str(number), float(number), random.Random(number))
        answers.take(str(number), float(number))
    assert len(asks) == len(answers) == 50


@given(st.lists(st.floats(0, 200), max_size=200), st.integers(1, 5))
def test_nobody_is_answered_more_often_than_was_earned(pauses: list[float], burst: int) -> None:
    budget, now, answered = AnswerBudget(MINUTE, burst), 0.0, []
    for pause in pauses:
        now += pause
        wait = budget.take("peer", now)
        assert 0 <= wait <= MINUTE
        if not wait:
            answered.append(now)
    for index, start in enumerate(answered):
        for later in range(index, len(answered)):
            earned = burst + (answered[later] - start) / MINUTE
            assert later - index + 1 <= earned + 1e-3


def test_a_peer_that_waits_as_told_is_answered() -> None:
    budget, now = AnswerBudget(MINUTE, 2), 0.0
    for _ in range(20):
        if wait := budget.take("peer", now):
            now += wait
            assert budget.take("peer", now) == 0
    assert budget.take("another", now) == 0


def test_hunger_looks_often_and_calms_down_by_itself() -> None:
    pace, rng = Pace(), random.Random(3)
    pauses = [pace.pause(rng, hungry=True) for _ in range(30)]
    assert sum(pauses[:6]) < MINUTE
    assert pauses[0] <= HUNGRY_FIRST * 1.25
    assert pauses[-1] >= CALM * 0.75
    pace.hurry()
    assert pace.pause(rng, hungry=True) <= HUNGRY_FIRST * 1.25
    assert pace.pause(rng, hungry=False) >= CALM * 0.75


def test_a_choice_has_one_of_each_network_before_a_second_of_any() -> None:
    items = [("flood", number) for number in range(500)] + [(f"net{n}", n) for n in range(9)]
    rng = random.Random(4)
    for _ in range(20):
        chosen = diverse(items, 12, lambda item: item[0], rng)
        assert len(set(chosen)) == 12
        assert Counter(group for group, _ in chosen)["flood"] == 3
    assert diverse(items, 0, lambda item: item[0], rng) == []
    assert len(diverse(items, 1000, lambda item: item[0], rng)) == len(items)
