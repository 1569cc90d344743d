"""Whom to ask for others, when, and how often; and whom to answer. Manners, as decisions.

Times are seconds of one clock that never goes back; who somebody is, is any text that names them.
"""

from __future__ import annotations

import random
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Final, TypeVar

from appliance.units import HOUR, MINUTE

HUNGRY_FIRST: Final = 2.0
"""Seconds between two looks at whom to ask, while too little is known."""
HUNGRY_GROWTH: Final = 1.5
"""And by how much it grows with each look: what was not found at once comes slowly or never."""
CALM: Final = 5 * MINUTE
"""The same once enough is known: as often as one peer may be asked."""
PATIENCE_FIRST: Final = 8.0
"""Seconds until a hungry asker may ask the same peer a second time; then twice that, and so on."""
FAILED_FIRST: Final = 15.0
"""Seconds after which a peer that did not answer is tried again; doubles each time."""
FAILED_CEILING: Final = 2 * HOUR
"""A record's life: by then everything that we knew of the peer is stale."""
REMEMBERED: Final = 1024
"""Peers whose turns are remembered; beyond, who was asked longest ago is forgotten."""
FEELER: Final = 2 * MINUTE
"""Seconds between two tests of an address of the book (Bitcoin Core's feelers)."""

T = TypeVar("T")
G = TypeVar("G", bound=Hashable)


def jittered(seconds: float, rng: random.Random) -> float:
    """`seconds`, a quarter more or less: two that started together do not stay in step."""
    return seconds * rng.uniform(0.75, 1.25)


class Pace:
    """How long to wait between two looks at whom to ask."""

    def __init__(self) -> None:
        self._next = HUNGRY_FIRST

    def pause(self, rng: random.Random, *, hungry: bool) -> float:
        """Seconds until the next look. Hunger begins in haste and calms down by itself."""
        if not hungry:
            self._next = HUNGRY_FIRST
            return jittered(CALM, rng)
        seconds, self._next = self._next, min(CALM, self._next * HUNGRY_GROWTH)
        return jittered(seconds, rng)

    def hurry(self) -> None:
        """Something changed, such as a relay that was lost."""
        self._next = HUNGRY_FIRST


@dataclass(slots=True)
class _Turn:
    next_at: float
    not_before: float = 0.0  # said by the peer
    answers: int = 0
    failures: int = 0


class AskBudget:
    """Who may be asked now: at most `per_hour` questions in any hour, each peer in its own time.

    `may_ask`, `asked`, then `answered`; a question that is not answered counts as failed.
    """

    def __init__(self, per_hour: int, interval: float, remembered: int = REMEMBERED) -> None:
        self._interval = interval
        self._remembered = remembered
        self._recent: deque[float] = deque(maxlen=per_hour)
        self._turns: OrderedDict[str, _Turn] = OrderedDict()

    def __len__(self) -> int:
        return len(self._turns)

    def has_room(self, now: float) -> bool:
        """Whether anybody at all may be asked."""
        full = len(self._recent) == self._recent.maxlen
        return self._recent.maxlen != 0 and not (full and now - self._recent[0] < HOUR)

    def may_ask(self, who: str, now: float) -> bool:
        turn = self._turns.get(who)
        return self.has_room(now) and (turn is None or now >= turn.next_at)

    def asked(self, who: str, now: float, rng: random.Random) -> None:
        """The question goes out."""
        self._recent.append(now)
        turn = self._turns.pop(who, None) or _Turn(now)
        turn.failures += 1
        wait = min(FAILED_CEILING, FAILED_FIRST * 2.0 ** min(turn.failures - 1, 32))
        turn.next_at = now + jittered(wait, rng)
        self._turns[who] = turn
        if len(self._turns) > self._remembered:
            self._turns.popitem(last=False)

    def answered(
        self, who: str, now: float, rng: random.Random, *, hungry: bool, wait: float = 0
    ) -> None:
        """`wait`: what the peer asks for, at least; bound it before."""
        turn = self._turns.get(who)
        if turn is None:
            return
        patience = self._interval
        if hungry:
            patience = min(patience, PATIENCE_FIRST * 2.0 ** min(turn.answers, 32))
        turn.answers += 1
        turn.failures = 0
        turn.not_before = now + wait
        turn.next_at = now + max(wait, jittered(patience, rng))

    def bring_forward(self, who: str) -> None:
        """There is something to tell: do not wait, unless the peer failed or said until when."""
        turn = self._turns.get(who)
        if turn is not None and not turn.failures:
            turn.next_at = turn.not_before


@dataclass(slots=True)
class _Bucket:
    level: float
    at: float


class AnswerBudget:
    """Whom to answer: everybody once in `interval`, and `burst` times after a silence.

    Of at most `remembered` peers it is known; whoever was silent longest is forgotten, and starts
    with a full burst again. What that costs us is bounded by the exchanges served at once.
    """

    def __init__(self, interval: float, burst: int, remembered: int = REMEMBERED) -> None:
        self._interval = interval
        self._burst = burst
        self._remembered = remembered
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, who: str, now: float) -> float:
        """0 if it may have an answer now, else the seconds until it may."""
        bucket = self._buckets.pop(who, None) or _Bucket(float(self._burst), now)
        self._buckets[who] = bucket
        if len(self._buckets) > self._remembered:
            self._buckets.popitem(last=False)
        earned = max(0.0, now - bucket.at) / self._interval
        bucket.level, bucket.at = min(float(self._burst), bucket.level + earned), now
        lacking = 1.0 - bucket.level
        if lacking > 1e-6:  # a rounding error is no reason to wait
            return lacking * self._interval
        bucket.level = max(0.0, bucket.level - 1.0)
        return 0.0


def diverse(items: Iterable[T], count: int, group: Callable[[T], G], rng: random.Random) -> list[T]:
    """At most `count`, drawn at random, one of each group before a second of any."""
    groups: dict[G, list[T]] = {}
    for item in items:
        groups.setdefault(group(item), []).append(item)
    rows = list(groups.values())
    rng.shuffle(rows)
    for row in rows:
        rng.shuffle(row)
    chosen: list[T] = []
    while rows and len(chosen) < count:
        chosen += [row.pop() for row in rows[: count - len(chosen)]]
        rows = [row for row in rows if row]
    return chosen
