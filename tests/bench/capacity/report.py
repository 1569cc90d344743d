"""Outcomes for people: lines for the terminal, and the sections of docs/capacity.md."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from appliance.sizing.cost import Cost
from tests.bench.capacity import table as costs
from tests.bench.capacity.costs import Measured
from tests.bench.capacity.limited import ROOT
from tests.bench.capacity.outcome import Outcome

DOCUMENT: Final = ROOT / "docs" / "capacity.md"
PREFACE: Final = "preface.txt"
AT_CAPS: Final = "The daemon at its caps"
UNITS: Final = "What one unit costs"


def mb(count: int) -> str:
    return f"{count / 1e6:.1f} MB"


def lines(outcome: Outcome) -> Iterator[str]:
    """One profile's outcome as plain text."""
    plan, full = outcome.plan, outcome.full
    yield f"{outcome.profile}: {outcome.seconds:.0f} s"
    yield "  loaded     " + ", ".join(f"{name} {n}" for name, n in outcome.loaded.items())
    if outcome.idle is not None and full is not None:
        yield f"  open files {full.fds} of {plan['unit']['LimitNOFILE']}"
        for owner, count in full.owners.items():
            yield f"    {count:6} {owner} (idle: {outcome.idle.owners.get(owner, 0)})"
        yield f"  resident   {mb(full.rss)} (idle: {mb(outcome.idle.rss)}), share {mb(full.pss)}"
        yield f"  threads    {full.threads} (idle: {outcome.idle.threads})"
    if (usage := outcome.usage) is not None:
        yield f"  group      peak {mb(usage.peak)}, kernel {mb(usage.kernel)}"
    for claim in outcome.claims:
        yield f"  {'yes' if claim.holds else 'NO '}  {claim.text}: {claim.seen}"
    for note in outcome.notes:
        yield f"  note: {note}"


def _row(name: str, cells: Iterable[object]) -> str:
    return "| " + " | ".join([name, *map(str, cells)]) + " |"


def at_caps(outcomes: Sequence[Outcome], command: str) -> Iterator[str]:
    """The section of the profiles: caps, files by owner, memory, claims."""
    yield from _head(command)
    names = [outcome.profile for outcome in outcomes]
    loaded = dict.fromkeys(name for outcome in outcomes for name in outcome.loaded)
    yield _row("loaded", names)
    yield "|---" * (len(names) + 1) + "|"
    for name in loaded:
        yield _row(name.replace("_", " "), (outcome.loaded.get(name, 0) for outcome in outcomes))
    full = [outcome.full for outcome in outcomes if outcome.full is not None]
    yield ""
    yield _row("open files, by owner", names)
    yield "|---" * (len(names) + 1) + "|"
    for owner in sorted({owner for reading in full for owner in reading.owners}):
        yield _row(owner, (reading.owners.get(owner, 0) for reading in full))
    yield _row("**all**", (f"**{reading.fds}**" for reading in full))
    units = [outcome.plan["unit"] for outcome in outcomes]
    yield _row("`LimitNOFILE`", (unit["LimitNOFILE"] for unit in units))
    yield ""
    yield _row("memory", names)
    yield "|---" * (len(names) + 1) + "|"
    yield _row("resident, idle", (mb(o.idle.rss) for o in outcomes if o.idle is not None))
    yield _row("resident, full", (mb(reading.rss) for reading in full))
    yield _row("resident, after the flood", (mb(o.after.rss) for o in outcomes if o.after))
    yield _row("kernel, after the flood", (mb(o.usage.kernel) for o in outcomes if o.usage))
    yield _row("control group, peak", (mb(o.usage.peak) for o in outcomes if o.usage))
    yield _row("`MemoryMax`", (mb(unit["MemoryMax"]) for unit in units))
    for outcome in outcomes:
        yield ""
        yield f"{outcome.profile}, in {outcome.seconds:.0f} s:"
        yield ""
        for claim in outcome.claims:
            word = "holds" if claim.holds else "**does not hold**"
            yield f"- {word}: {claim.text} – {claim.seen}"
        yield from (f"- note: {note}" for note in outcome.notes)


def unit_costs(
    rounds: Sequence[Mapping[str, Measured]], table: Mapping[str, Cost], command: str
) -> Iterator[str]:
    """The section of the unit costs."""
    yield from _head(command)
    yield f"Bytes, smallest and largest of {len(rounds)} rounds, and what the table makes of them:"
    yield ""
    yield from costs.rows(rounds, table)


def _head(command: str) -> Iterator[str]:
    yield f"    {command}"
    yield ""
    yield f"{time.strftime('%Y-%m-%d')}, {costs.machine()}."
    yield ""


def put(title: str, lines: Iterable[str], document: Path = DOCUMENT) -> None:
    """Write the section into the document in place of the one of that title, if there is one."""
    sections: dict[str, str] = {}
    if document.exists():
        for part in document.read_text(encoding="utf-8").split("\n## ")[1:]:
            name, _, body = part.partition("\n")
            sections[name] = body.strip("\n")
    sections[title] = "\n".join(lines)
    preface = (Path(__file__).parent / PREFACE).read_text(encoding="utf-8").strip()
    order = (name for name in (AT_CAPS, UNITS) if name in sections)
    parts = [preface, *(f"## {name}\n\n{sections[name]}" for name in order)]
    document.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
