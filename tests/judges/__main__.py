"""Lets the judges look at a machine before and after the roles, and compares with the register.

    python -m tests.judges [--json]

Exit code 1 when something fails that is not in `roles/hardening/deviations.yaml`, when an entry
there no longer fails, or when Lynis's index is below 85. Root; about five minutes.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from datetime import UTC, datetime
from typing import Final

from appliance.errors import ApplianceError
from tests.judges.machine import untouched
from tests.judges.register import faults, register
from tests.judges.verdicts import Verdict, verdicts

LEAST_INDEX: Final = 85
NAMES: Final = {
    "cis": "OpenSCAP, CIS level 1 server",
    "anssi": "OpenSCAP, ANSSI BP-028 intermediary",
    "lynis": "Lynis",
}


def judge() -> tuple[list[Verdict], list[Verdict]]:
    """The verdicts before and after. Errors: ApplianceError when there is none."""
    with untouched() as machine:
        before = verdicts(machine)
        machine.provision()
        return before, verdicts(machine)


def table(before: list[Verdict], after: list[Verdict]) -> str:
    """Both, as Markdown."""
    rows = ["| judge | before | after | fails before | fails after |", "|---|---|---|---|---|"]
    for first, second in zip(before, after, strict=True):
        rows.append(
            f"| {NAMES[first.judge]} | {_score(first)} | {_score(second)} "
            f"| {len(first.failed)} | {len(second.failed)} |"
        )
    return "\n".join(rows)


def _score(verdict: Verdict) -> str:
    if verdict.index is not None:
        return f"index {verdict.index}"
    return f"{verdict.passed} of {verdict.judged}"


def shortcomings(after: list[Verdict]) -> list[str]:
    """What is wrong with a machine's verdicts, one sentence each."""
    found = faults(after, register())
    for verdict in after:
        if verdict.index is not None and verdict.index < LEAST_INDEX:
            found.append(f"Lynis's index is {verdict.index}, and should be at least {LEAST_INDEX}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print every verdict as JSON")
    given = parser.parse_args()
    try:
        before, after = judge()
        wrong = shortcomings(after)
    except ApplianceError as error:
        print(f"error: {error.message}", file=sys.stderr)
        return 1
    if given.json:
        told = {"before": before, "after": after}
        print(json.dumps(told, default=dataclasses.asdict, indent=1))
    else:
        print(table(before, after))
    today = datetime.now(tz=UTC).date()
    for entry in register():
        if entry.review <= today:
            print(f"its review is due: {entry.id} ({entry.review})", file=sys.stderr)
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
