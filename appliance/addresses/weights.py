"""What an entry is worth: its chance to be chosen, and when it may be thrown away."""

from __future__ import annotations

from typing import Final

from appliance.addresses.model import Source
from appliance.units import HOUR, MINUTE

DAY: Final = 24 * HOUR

JUST_TRIED: Final = 10 * MINUTE
"""After an attempt in vain an address is hardly chosen for so long (Bitcoin Core: 10 min)."""
JUST_TRIED_FACTOR: Final = 0.01  # Bitcoin Core
FAILURE_FACTOR: Final = 0.4  # of the chance, for each failure (Bitcoin Core: 0.66)
FAILURE_HALF_LIFE: Final = 12 * HOUR
"""Failures are forgiven: half of them after so long."""
SUCCESS_BONUS: Final = 4.0  # times, at once after a connection
SUCCESS_HALF_LIFE: Final = 3 * DAY
MOST_FAILURES: Final = 8  # counted no further (Bitcoin Core: 8)

RETRIES: Final = 3  # of what never answered (kaspad: dropped after more than 3 failures)
GIVE_UP_FAILURES: Final = 10  # of what answered once, a week ago (Bitcoin Core)
GIVE_UP_AFTER: Final = 7 * DAY
HORIZON: Final = 30 * DAY  # unheard of and unreached for so long (Bitcoin Core: 30 days)

SIGNED_FACTOR: Final = 0.5  # of a relay whose claim is signed but not yet proven
OWN_WORD: Final = 8.0  # the operator's choice, against a stranger's


def chance(success: int, attempt: int, failures: int, rank: int, now: float) -> float:
    """How likely an entry is chosen, in arbitrary units; always more than 0.

    Times are Unix seconds, 0 for never: the last success, the last attempt in vain. `failures`
    since the last success; `rank` of the best source.
    """
    weight = OWN_WORD if rank == _DECLARED else 1.0
    if success:
        weight *= 1 + SUCCESS_BONUS * 0.5 ** (max(0.0, now - success) / SUCCESS_HALF_LIFE)
    if failures:
        age = max(0.0, now - attempt)
        left = min(failures, MOST_FAILURES) * 0.5 ** (age / FAILURE_HALF_LIFE)
        weight *= FAILURE_FACTOR**left
        if age < JUST_TRIED:
            weight *= JUST_TRIED_FACTOR
    return weight


def is_terrible(
    heard: int, success: int, attempt: int, failures: int, rank: int, now: float
) -> bool:
    """Whether it may go at once when somebody else needs the place."""
    if rank == _DECLARED or (attempt and now - attempt < MINUTE):
        return False  # ours to keep, or just being tried
    if not success and failures >= RETRIES:
        return True
    if failures >= GIVE_UP_FAILURES and now - success > GIVE_UP_AFTER:
        return True
    return now - max(heard, success) > HORIZON


_DECLARED: Final = Source.DECLARED.rank
