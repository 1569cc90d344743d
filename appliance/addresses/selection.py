"""Whom to try next: a tournament of a few random entries, weighted, at a cost that never grows.

An entry's weight is its chance (`weights.py`) divided by how many entries its network has: many
addresses of one network together weigh as much as one of another.
"""

from __future__ import annotations

from collections.abc import Collection
from random import Random
from typing import Final

from appliance.addresses.model import Want
from appliance.addresses.rows import CLAIMED, F_CONFIRMED, F_PRIVATE, PRIVATE, RANK, RELAY
from appliance.addresses.tables import Tables
from appliance.addresses.weights import SIGNED_FACTOR, chance

DRAWS: Final = 10
"""Entries that compete for one place; for a direct connection half of them are tried ones. They
compete with new ones, so that a network which alone answered us cannot have half the choices."""
FEW: Final = 64  # entries that all take part
ROUNDS: Final = 4  # of draws before we say that there is nobody

_ROLE: Final = {Want.RELAY: RELAY, Want.CLAIMED: CLAIMED, Want.PRIVATE: PRIVATE}


def pick(
    tables: Tables,
    now: float,
    rng: Random,
    want: Want,
    *,
    avoid: Collection[int] = (),
    refused: Collection[int] = (),
) -> int:
    """The row to try, or -1. `avoid`: hashes of networks (`tables.group`) that are taken already;
    `refused` rows do not take part."""
    group = tables.group
    for _ in range(ROUNDS):
        rows, weights = [], []
        for row in _drawn(tables, rng, want):
            if row in refused or group[row] in avoid:
                continue
            if (weight := weigh(tables, row, now, want)) > 0:
                rows.append(row)
                weights.append(weight)
        if rows:
            return rng.choices(rows, weights)[0]
    return -1


def weigh(tables: Tables, row: int, now: float, want: Want) -> float:
    """The weight of a row in a choice; 0 if it cannot be chosen for that."""
    flags = tables.flags[row]
    if want is Want.DIRECT:
        if flags & F_PRIVATE:
            return 0.0
    elif tables.expires[row] <= now:
        return 0.0
    weight = chance(
        tables.success[row], tables.attempt[row], tables.failures[row], flags & RANK, now
    ) / tables.group_size(row)
    if want is Want.RELAY and not flags & F_CONFIRMED:
        weight *= SIGNED_FACTOR
    return weight


def _drawn(tables: Tables, rng: Random, want: Want) -> set[int]:
    draw = rng.random
    if want is not Want.DIRECT:
        members = tables.roles[_ROLE[want]]
        count = len(members)
        if count <= FEW:
            return set(members)
        return {members[int(draw() * count)] for _ in range(DRAWS)}
    everybody, tried = len(tables), tables.tried
    if not everybody:
        return set()
    if everybody <= FEW:
        return set(range(everybody))
    among = tried or range(everybody)
    some, most = range(DRAWS // 2), len(among)
    rows = {int(draw() * everybody) for _ in some}
    rows.update([among[int(draw() * most)] for _ in some])
    return rows
