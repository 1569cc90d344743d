"""The new and the tried table: what we learn of an address by dialling it, and who is tested first.

An address that we reached lives in a *tried* bucket chosen by its own network. The key of that
choice is the book's secret, so nobody outside can aim at a bucket. The idea of keyed buckets and
of testing before evicting is Bitcoin Core's (addrman).
"""

from __future__ import annotations

from typing import Final

from appliance.addresses.columns import BUCKET
from appliance.addresses.entering import Entering
from appliance.addresses.rows import F_PRIVATE
from appliance.addresses.systems import AutonomousSystems
from appliance.units import HOUR, MINUTE

MAX_COLLISIONS: Final = 10  # challengers that wait for the test of an incumbent; Bitcoin Core
TEST_WINDOW: Final = 40 * MINUTE  # for that test; then the incumbent goes (Bitcoin Core)
SAFE_FOR: Final = 4 * HOUR  # after a success nobody is challenged (Bitcoin Core)


class Tables(Entering):
    """Every address of the book. What changed is returned: the caller stores `core(row)`."""

    def __init__(
        self,
        entries: int,
        secret: bytes,
        *,
        allow_private: bool = False,
        systems: AutonomousSystems | None = None,
    ) -> None:
        super().__init__(entries, secret, allow_private=allow_private, systems=systems)
        self.collisions: dict[bytes, tuple[bytes, float]] = {}
        """Challenger → incumbent of its tried bucket, and since when."""

    def attempted(self, row: int, now: int) -> None:
        """We tried in vain."""
        self.failures[row] = min(self.failures[row] + 1, 255)
        self.attempt[row] = max(self.attempt[row], now)

    def succeeded(self, row: int, now: int) -> bytes | None:
        """We reached it: it belongs to the tried table, if there is room.

        If its bucket is full, the key of an incumbent that is to be tested first.
        """
        self.failures[row] = 0
        self.success[row] = max(self.success[row], now)
        self.heard[row] = max(self.heard[row], now)
        key = self.key(row)
        if self.flags[row] & F_PRIVATE or self.is_tried(row):
            return None
        bucket = self._tried_bucket(key, self.group[row])
        if self._fill[bucket] < BUCKET and not self._tried_is_full:
            self.move(row, bucket)
            return None
        rows = self.rows_of(bucket)
        if not rows:
            return None
        incumbent = min(rows, key=self.success.__getitem__)
        if now - self.success[incumbent] < SAFE_FOR or len(self.collisions) >= MAX_COLLISIONS:
            return None
        self.collisions.setdefault(key, (self.key(incumbent), now))
        return self.key(incumbent)

    def settle(self, now: float) -> list[bytes]:
        """Decide challenges whose incumbent was tested or not in time; the keys that changed."""
        changed: list[bytes] = []
        for challenger, (incumbent, since) in list(self.collisions.items()):
            row, old = self.find(challenger), self.find(incumbent)
            if row < 0 or self.is_tried(row) or (old >= 0 and self.success[old] >= since):
                del self.collisions[challenger]  # gone, or the incumbent answered
            elif old < 0 or self.attempt[old] >= since or now - since > TEST_WINDOW:
                del self.collisions[challenger]
                if old >= 0 and self.is_tried(old):
                    changed += self._demote(old)
                    row = self.find(challenger)
                bucket = self._tried_bucket(challenger, self.group[row])
                if self._fill[bucket] < BUCKET and not self._tried_is_full:
                    self.move(row, bucket)
                    changed.append(challenger)
        return changed

    def _demote(self, row: int) -> list[bytes]:
        """Back to the new table; out of the book if its bucket there is full."""
        key = self.key(row)
        bucket = self._new_bucket(self.group[row], self.source[row])
        if self._fill[bucket] < BUCKET:
            self.move(row, bucket)
        else:
            self.discard(row)
        return [key]
