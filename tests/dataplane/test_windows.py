"""Receive windows and their budget: any pattern of reading, over any number of streams."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from appliance.dataplane.windows import (
    INITIAL_WINDOW,
    MAX_WINDOW,
    READ_WINDOW,
    ReceiveWindow,
    WindowBudget,
)
from appliance.units import KIB, MIB

SHARED, PER_CONNECTION = 5 * MIB, 3 * MIB
STREAMS = 6


class Peer:
    """A stream as its sender sees it: what it may still send, and what it is ahead by."""

    def __init__(self) -> None:
        self.window = ReceiveWindow()
        self.allowed = INITIAL_WINDOW
        self.unread = 0

    @property
    def ahead(self) -> int:
        return self.allowed + self.unread


class Windows(RuleBasedStateMachine):
    """Two connections with a shared budget; senders use all that they are granted, or less."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = WindowBudget(SHARED)
        self.budgets = [WindowBudget(PER_CONNECTION, shared=self.shared) for _ in range(2)]
        self.peers: list[list[Peer]] = [[], []]
        self.now = 0.0

    def pick(self, connection: int, choice: int) -> Peer | None:
        peers = self.peers[connection]
        return peers[choice % len(peers)] if peers else None

    @rule(connection=st.integers(0, 1))
    def open(self, connection: int) -> None:
        if len(self.peers[connection]) < STREAMS:
            self.peers[connection].append(Peer())

    @rule(connection=st.integers(0, 1), choice=st.integers(0, 9))
    def end(self, connection: int, choice: int) -> None:
        if (peer := self.pick(connection, choice)) is not None:
            self.peers[connection].remove(peer)
            self.budgets[connection].give_back(peer.window)
            self.budgets[connection].give_back(peer.window)  # a second time is nothing

    @rule(
        connection=st.integers(0, 1),
        choice=st.integers(0, 9),
        size=st.one_of(st.integers(0, MAX_WINDOW), st.just(MAX_WINDOW)),
    )
    def send(self, connection: int, choice: int, size: int) -> None:
        if (peer := self.pick(connection, choice)) is not None:
            size = min(size, peer.allowed)
            assert peer.window.received(size), "what was granted is accepted"
            peer.allowed -= size
            peer.unread += size

    @rule(
        connection=st.integers(0, 1),
        choice=st.integers(0, 9),
        size=st.one_of(st.integers(0, MAX_WINDOW), st.just(MAX_WINDOW)),
        seconds=st.sampled_from([0.0, 0.01, 10.0]),
        rtt=st.sampled_from([None, 0.0, 0.05, 1.0]),
    )
    def read(
        self, connection: int, choice: int, size: int, seconds: float, rtt: float | None
    ) -> None:
        if (peer := self.pick(connection, choice)) is None:
            return
        self.now += seconds
        size = min(size, peer.unread)
        peer.unread -= size
        before = peer.window.size
        granted = peer.window.consumed(
            size, self.budgets[connection], len(self.peers[connection]), self.now, rtt
        )
        assert granted >= 0
        if peer.window.size > before > INITIAL_WINDOW:
            assert rtt is not None, "no growth for a reader whose speed is not known"
            assert peer.window.size <= 2 * before
        peer.allowed += granted

    @invariant()
    def what_peers_are_ahead_by_is_within_the_budgets(self) -> None:
        used = []
        for budget, peers in zip(self.budgets, self.peers, strict=True):
            for peer in peers:
                assert peer.ahead <= peer.window.size <= MAX_WINDOW
                # Whoever reads everything has at least half a window to go on with.
                assert peer.unread or peer.allowed > peer.window.size // 2
            used.append(sum(peer.window.size - INITIAL_WINDOW for peer in peers))
            assert 0 <= used[-1] <= PER_CONNECTION
            assert budget.left <= PER_CONNECTION - used[-1]
        assert sum(used) == SHARED - self.shared.left
        assert self.shared.left >= 0

    def teardown(self) -> None:
        for connection in (0, 1):
            while self.peers[connection]:
                self.end(connection, 0)
        assert self.shared.left == SHARED
        assert all(budget.left == PER_CONNECTION for budget in self.budgets)


TestWindows = Windows.TestCase
TestWindows.settings = settings(max_examples=60, stateful_step_count=40)


@given(count=st.integers(1, 40), growth=st.integers(0, 8 * MIB))
def test_all_streams_of_a_connection_get_the_same(count: int, growth: int) -> None:
    budget = WindowBudget(growth)
    windows = [ReceiveWindow() for _ in range(count)]
    for moment in range(6):
        for window in windows:
            assert window.received(window.size // 2)
            window.consumed(window.size // 2, budget, count, moment * 0.001, 1.0)
    sizes = {window.size for window in windows}
    assert len(sizes) == 1 and sizes.pop() <= INITIAL_WINDOW + growth // count


def test_a_peer_that_sends_one_byte_more_than_granted_is_noticed() -> None:
    window, budget = ReceiveWindow(), WindowBudget(0)
    assert window.received(INITIAL_WINDOW)
    assert window.consumed(INITIAL_WINDOW, budget, 1, 0.0, None) == INITIAL_WINDOW
    assert window.received(INITIAL_WINDOW) and not window.received(1)


def grown(seconds_per_half: float, rtt: float | None) -> int:
    """Where the window of a steady reader ends up."""
    window, budget, now = ReceiveWindow(), WindowBudget(100 * MIB), 0.0
    for _ in range(20):
        half = window.size // 2
        assert window.received(half)
        now += seconds_per_half
        window.consumed(half, budget, 1, now, rtt)
    return window.size


def test_windows_grow_for_fast_readers_only() -> None:
    assert grown(seconds_per_half=0.39, rtt=0.1) == MAX_WINDOW
    assert grown(seconds_per_half=0.41, rtt=0.1) == READ_WINDOW
    assert grown(seconds_per_half=0.0001, rtt=None) == READ_WINDOW


def test_a_small_budget_is_shared_and_then_over() -> None:
    budget = WindowBudget(100 * KIB)
    one, other = ReceiveWindow(), ReceiveWindow()
    for window in (one, other):
        window.received(INITIAL_WINDOW)
    assert one.consumed(INITIAL_WINDOW, budget, 1, 0.0, None) == INITIAL_WINDOW + 100 * KIB
    assert other.consumed(INITIAL_WINDOW, budget, 2, 0.0, None) == INITIAL_WINDOW
    budget.give_back(one)
    assert budget.left == 100 * KIB
