"""Arrays of numbers: filled, gathered from, and kept in order as lists of rows."""

from __future__ import annotations

from array import array
from bisect import bisect_left, insort
from operator import itemgetter
from typing import Any, Final

_ZEROS: Final = bytes(1 << 16)


def zeros(kind: str, count: int) -> array[int]:
    made: array[int] = array(kind)
    left = count * made.itemsize
    while left:
        made.frombytes(_ZEROS[: min(left, len(_ZEROS))])
        left -= min(left, len(_ZEROS))
    return made


def gather(column: array[int], at: array[int]) -> tuple[int, ...]:
    """`column[i]` for each of `at`, in one call of C."""
    if len(at) == 1:  # for which `itemgetter` gives no tuple
        return (column[at[0]],)
    found: Any = itemgetter(*at)(column) if at else ()
    return tuple(found)


def enter(members: array[int], row: int) -> None:
    """Put a row that is not there into a list in order."""
    if not members or row > members[-1]:
        members.append(row)
    else:
        insort(members, row)


def leave(members: array[int], row: int) -> None:
    """The inverse. ValueError if it is not there."""
    at = bisect_left(members, row)
    if at == len(members) or members[at] != row:
        raise ValueError(f"row {row} is not in the list")
    del members[at]
