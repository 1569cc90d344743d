"""Who failed, and when each may be tried again."""

from __future__ import annotations

import random
from collections.abc import Hashable
from typing import Final, Generic, TypeVar

MAX_SUBJECTS: Final = 256
"""Remembered failures: more relays or peers than anybody tries within the hour of a ceiling."""

Subject = TypeVar("Subject", bound=Hashable)


class Retries(Generic[Subject]):
    """Doubling waits with jitter in [0.75, 1.25) for each subject, at most `MAX_SUBJECTS` of them.

    Times are seconds on any clock that does not go back. A failure is forgotten once its subject
    could have been tried again for `ceiling` seconds.
    """

    def __init__(self, first: float, ceiling: float) -> None:
        self._first = first
        self._ceiling = ceiling
        self._failed: dict[Subject, tuple[int, float]] = {}

    def __len__(self) -> int:
        return len(self._failed)

    def failed(self, subject: Subject, now: float, rng: random.Random) -> float:
        """When it may be tried again."""
        self._forget(now)
        failures, _ = self._failed.pop(subject, (0, 0.0))
        wait = min(self._ceiling, self._first * float(2 ** min(failures, 32)))
        ready = now + wait * rng.uniform(0.75, 1.25)
        while len(self._failed) >= MAX_SUBJECTS:
            # Who is to wait the shortest loses the least by being forgotten.
            del self._failed[min(self._failed, key=lambda key: self._failed[key][1])]
        self._failed[subject] = (failures + 1, ready)
        return ready

    def succeeded(self, subject: Subject) -> None:
        self._failed.pop(subject, None)

    def ready(self, subject: Subject, now: float) -> bool:
        """Whether it may be tried now."""
        return self._failed.get(subject, (0, now))[1] <= now

    def failures(self, subject: Subject, now: float) -> int:
        """In a row, as far as they are not forgotten."""
        failures, ready = self._failed.get(subject, (0, now))
        return 0 if now - ready > self._ceiling else failures

    def _forget(self, now: float) -> None:
        old = [key for key, (_, ready) in self._failed.items() if now - ready > self._ceiling]
        for key in old:
            del self._failed[key]
