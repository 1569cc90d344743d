"""Who says what, who dials when and in which role; and how long a SYNC makes us dial."""

from __future__ import annotations

import random

import pytest

from appliance.errors import LocalProtocolError, RemoteProtocolError
from appliance.network import Endpoint
from appliance.reasons import Reason
from appliance.wire.dcutr import (
    MAX_ROUND_TRIP,
    Answerer,
    Connect,
    DialPlan,
    Message,
    Starter,
    State,
    Sync,
)
from appliance.wire.redial import MAX_SPREAD, MIN_SPREAD, WINDOW, RedialWindow

OURS = (Endpoint("203.0.113.7", 16112),)
THEIRS = (Endpoint("198.51.100.9", 40001), Endpoint("2001:db8::9", 16112))


def test_a_round() -> None:
    starter, answerer = Starter(OURS), Answerer(THEIRS)
    hello = starter.begin(100.0)
    assert hello == Connect(OURS)
    reply = answerer.receive(hello)
    assert isinstance(reply, Connect) and reply.addresses == THEIRS
    sync, plan = starter.receive(reply, 100.08)
    assert sync == Sync()
    assert plan.addresses == THEIRS and plan.after == pytest.approx(0.04)
    assert answerer.receive(sync) == DialPlan(OURS, 0.0, client=True)
    assert plan.client is False, "who received SYNC is the client"
    assert starter.state is answerer.state is State.DONE


def test_begin_only_once() -> None:
    starter = Starter(OURS)
    starter.begin(0.0)
    with pytest.raises(LocalProtocolError):
        starter.begin(1.0)


@pytest.mark.parametrize("begun", [True, False])
@pytest.mark.parametrize("message", [Sync(), Connect(THEIRS)])
def test_what_a_starter_may_hear(begun: bool, message: Message) -> None:
    starter = Starter(OURS)
    if begun:
        starter.begin(0.0)
    if begun and isinstance(message, Connect):
        starter.receive(message, 1.0)
        with pytest.raises(RemoteProtocolError):
            starter.receive(message, 1.0)
        return
    with pytest.raises(RemoteProtocolError) as caught:
        starter.receive(message, 1.0)
    assert caught.value.reason is Reason.PUNCH_PROTOCOL


def test_an_answer_that_took_too_long_measures_nothing() -> None:
    starter = Starter(OURS)
    starter.begin(5.0)
    with pytest.raises(RemoteProtocolError):
        starter.receive(Connect(THEIRS), 5.0 + MAX_ROUND_TRIP + 0.001)


@pytest.mark.parametrize(
    "messages",
    [[Sync()], [Connect(OURS), Connect(OURS)], [Connect(OURS), Sync(), Sync()],
     [Connect(OURS), Sync(), Connect(OURS)]],
)  # fmt: skip
def test_what_an_answerer_may_not_hear(messages: list[Message]) -> None:
    answerer = Answerer(THEIRS)
    for message in messages[:-1]:
        answerer.receive(message)
    with pytest.raises(RemoteProtocolError):
        answerer.receive(messages[-1])


@pytest.mark.parametrize(
    ("round_trip", "spread"),
    [(0.0005, MIN_SPREAD), (0.010, 0.040), (0.200, MAX_SPREAD)],
    ids=["neighbours", "10-ms", "far"],
)
def test_the_window_gives_random_gaps_until_it_is_over(round_trip: float, spread: float) -> None:
    window, rng = RedialWindow(50.0), random.Random(1)
    now, gaps = 50.0, []
    while (gap := window.gap(now, round_trip, rng)) is not None:
        gaps.append(gap)
        now += gap
    assert 0.9 * spread < max(gaps) <= spread
    assert 50.0 + WINDOW - spread <= now < window.closes == 50.0 + WINDOW
    assert WINDOW / spread < len(gaps) < 4 * WINDOW / spread
    assert len(set(gaps)) == len(gaps), "a fixed gap can lock two dialers out of phase"
    assert window.gap(window.closes, round_trip, rng) is None


def test_two_windows_do_not_walk_in_step() -> None:
    window = RedialWindow(0.0)
    one, other = random.Random(1), random.Random(2)
    first, second = ([window.gap(0.0, 0.01, rng) for _ in range(5)] for rng in (one, other))
    assert first != second
