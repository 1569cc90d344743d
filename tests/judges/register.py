"""The register of deviations: where a judge wishes something and we do otherwise, and why."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Final

import yaml

from appliance.errors import ApplianceError
from tests.judges.verdicts import Verdict
from tests.roles.root import PROJECT

REGISTER: Final = PROJECT / "roles/hardening/deviations.yaml"
FIELDS: Final = frozenset({"id", "judge", "wish", "ours", "reason", "review", "where"})
JUDGES: Final = frozenset({"cis", "anssi", "lynis"})
WHERE: Final = frozenset({"server", "image", "both", "bench"})


@dataclass(frozen=True, slots=True)
class Deviation:
    """One wish that we do not fulfil. `where`: which profile of the machine deviates."""

    id: str
    judge: tuple[str, ...]
    wish: str
    ours: str
    reason: str
    review: date
    where: str


def register(path: Path = REGISTER) -> list[Deviation]:
    """Errors: ApplianceError naming the entry that is not complete."""
    found = []
    for entry in yaml.safe_load(path.read_text()):
        judges = entry.get("judge", [])
        if set(entry) != FIELDS or not set(judges) <= JUDGES or entry["where"] not in WHERE:
            raise ApplianceError(f"{path.name}: {entry.get('id', entry)}: not a whole entry")
        ids = entry["id"] if isinstance(entry["id"], list) else [entry["id"]]
        found += [Deviation(**(entry | {"id": name, "judge": tuple(judges)})) for name in ids]
    return found


def faults(after: Iterable[Verdict], deviations: Iterable[Deviation]) -> list[str]:
    """What fails and is not in the register, and what is in it and no longer fails on a server.

    What a bench lacks depends on the bench: its entries may come and go.
    """
    after, deviations = list(after), list(deviations)
    # An entry names the judges of all its rules together: one that still fails somewhere is alive.
    failing_anywhere = {rule for verdict in after for rule in verdict.failed}
    stale = {
        found.id
        for found in deviations
        if found.where not in {"image", "bench"} and found.id not in failing_anywhere
    }
    return [
        *unregistered(after, deviations),
        *(f"{rule} no longer fails: take it out of the register" for rule in sorted(stale)),
    ]


def unregistered(after: Iterable[Verdict], deviations: Iterable[Deviation]) -> list[str]:
    """What fails and is not in the register."""
    known = {(judge, found.id) for found in deviations for judge in found.judge}
    return [
        f"{verdict.judge}: {rule} fails: {title}"
        for verdict in after
        for rule, title in sorted(verdict.failed.items())
        if (verdict.judge, rule) not in known
    ]
