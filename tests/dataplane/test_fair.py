"""Turns: whoever has something to send gets its share, whatever the others do."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.dataplane.fair import QUANTUM, Turns


@dataclass(eq=False)
class Sender:
    """Has `waiting` bytes, and sends at most `window` of them."""

    weight: int = 1
    waiting: int = 0
    window: int = 1 << 60
    sent: int = 0
    place: int = 0
    deficit: int = 0

    @property
    def sendable(self) -> int:
        return min(self.waiting, self.window)

    @property
    def share(self) -> float:
        return self.sent / self.weight


def turn(turns: Turns[Sender], most: int) -> Sender | None:
    """One turn, cut short after `most` bytes like at the end of a batch."""
    sender = turns.next()
    if sender is not None:
        size = min(sender.sendable, sender.deficit, most)
        assert size > 0, "a turn is worth something"
        sender.deficit -= size
        sender.waiting -= size
        sender.window -= size
        sender.sent += size
    return sender


def offer(turns: Turns[Sender], sender: Sender, size: int) -> None:
    sender.waiting += size
    turns.join(sender)


SIZES = st.one_of(st.integers(1, 200), st.integers(1, 3 * QUANTUM))
ACTS = st.lists(
    st.one_of(
        st.tuples(st.just("offer"), st.integers(0, 5), SIZES),
        st.tuples(st.just("window"), st.integers(0, 5), SIZES),
        st.tuples(st.just("turn"), st.just(0), SIZES),
    ),
    max_size=150,
)


@settings(max_examples=300)
@given(weights=st.lists(st.integers(1, 4), min_size=6, max_size=6), acts=ACTS)
def test_nobody_is_lost_and_everything_is_sent(
    weights: list[int], acts: list[tuple[str, int, int]]
) -> None:
    turns: Turns[Sender] = Turns()
    senders = [Sender(weight, window=QUANTUM) for weight in weights]
    for kind, number, size in acts:
        match kind:
            case "offer":
                offer(turns, senders[number], size)
            case "window":
                senders[number].window += size
                if senders[number].waiting:
                    turns.join(senders[number])
            case _:
                if turn(turns, size) is None:
                    assert not turns
                    assert all(sender.sendable <= 0 for sender in senders)
    while turn(turns, 1 << 60) is not None:
        pass
    assert all(sender.sendable <= 0 for sender in senders) and not turns


@settings(max_examples=300)
@given(
    weights=st.lists(st.integers(1, 4), min_size=2, max_size=8),
    cuts=st.lists(st.integers(1, 2 * QUANTUM), min_size=1, max_size=60),
)
def test_shares_of_busy_senders_differ_by_one_quantum_at_most(
    weights: list[int], cuts: list[int]
) -> None:
    turns: Turns[Sender] = Turns()
    senders = [Sender(weight) for weight in weights]
    for sender in senders:
        offer(turns, sender, 1 << 40)
    for cut in cuts * 4:
        turn(turns, cut)
        shares = [sender.share for sender in senders]
        assert max(shares) - min(shares) <= QUANTUM


@settings(max_examples=300)
@given(
    weights=st.lists(st.integers(1, 4), min_size=6, max_size=6),
    acts=ACTS,
    cut=st.integers(QUANTUM, 4 * QUANTUM),
)
def test_no_pattern_of_sending_gains_over_a_busy_sender(
    weights: list[int], acts: list[tuple[str, int, int]], cut: int
) -> None:
    """Of whatever others do, the one that always has more gets as much, but for two quanta."""
    turns: Turns[Sender] = Turns()
    senders = [Sender(weight) for weight in weights]
    busy = senders[0]
    offer(turns, busy, 1 << 40)
    for kind, number, size in acts * 3:
        if kind == "offer" and number:
            offer(turns, senders[number], size)
        else:
            turn(turns, cut)
        for other in senders[1:]:
            assert other.share <= busy.share + 2 * QUANTUM


@pytest.mark.parametrize("piece", [1, 100, QUANTUM - 1, QUANTUM, QUANTUM + 1])
def test_who_sends_a_little_at_a_time_gains_nothing(piece: int) -> None:
    """It has the next piece ready as soon as the busy one was served, so it is always new."""
    turns: Turns[Sender] = Turns()
    busy, nibbler = Sender(waiting=1 << 40), Sender()
    turns.join(busy)
    for _ in range(3000):
        if turn(turns, QUANTUM) is busy:
            offer(turns, nibbler, piece)
        assert nibbler.sent <= busy.sent + 2 * QUANTUM
    assert busy.sent > 1000 * QUANTUM and nibbler.sent > 500 * piece


@settings(max_examples=200)
@given(
    weights=st.lists(st.integers(1, 4), min_size=1, max_size=20),
    before=st.integers(0, 60),
    newcomers=st.integers(0, 5),
)
def test_a_newcomer_waits_for_one_turn_and_other_newcomers(
    weights: list[int], before: int, newcomers: int
) -> None:
    turns: Turns[Sender] = Turns()
    senders = [Sender(weight, waiting=1 << 40) for weight in weights]
    for sender in senders:
        turns.join(sender)
    for _ in range(len(senders) + before):  # nobody is new any more
        turn(turns, 1 << 60)
    others = [Sender() for _ in range(newcomers)]
    late = Sender()
    for sender in (*others, late):
        offer(turns, sender, 64)
    served = 0
    while not late.sent:
        turn(turns, 1 << 60)
        served += 1
    assert served <= newcomers + 1, "ahead of all who are always busy"


def test_a_sender_whose_window_closes_does_not_stop_the_others() -> None:
    turns: Turns[Sender] = Turns()
    closed, free = Sender(window=100), Sender()
    for sender in (closed, free):
        offer(turns, sender, 10 * QUANTUM)
    while turn(turns, 1 << 60) is not None:
        pass
    assert (closed.sent, free.sent) == (100, 10 * QUANTUM)
    closed.window += 50
    turns.join(closed)
    assert turn(turns, 1 << 60) is closed and closed.sent == 150


@pytest.mark.parametrize("turns_before", range(6))
@pytest.mark.parametrize("leaver", range(3))
def test_who_leaves_is_in_line_no_more_and_the_others_stay(leaver: int, turns_before: int) -> None:
    turns: Turns[Sender] = Turns()
    senders = [Sender(), Sender(), Sender()]
    for sender in senders:
        offer(turns, sender, 10 * QUANTUM)
    for _ in range(turns_before):
        turn(turns, 1 << 60)
    gone = senders.pop(leaver)
    turns.leave(gone)
    turns.leave(gone)
    sent = gone.sent
    while turn(turns, 1 << 60) is not None:
        pass
    assert gone.sent == sent and [sender.waiting for sender in senders] == [0, 0]
    turns.join(gone)
    assert turn(turns, 1 << 60) is gone


def test_who_is_alone_is_told_so() -> None:
    turns: Turns[Sender] = Turns()
    assert not turns and turns.next() is None
    one, other = Sender(), Sender()
    offer(turns, one, 1)
    turns.join(one)
    assert turns.alone
    offer(turns, other, 1)
    assert not turns.alone
