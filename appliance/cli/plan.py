"""`appliance plan FILE`: every budget and cap with its derivation."""

from __future__ import annotations

import argparse
import dataclasses
import json
import textwrap
from collections.abc import Callable, Iterator

from appliance.declaration import Declaration, load
from appliance.declaration.hardware import DETECT
from appliance.declaration.wishes import wishes
from appliance.sizing import CATALOGUE, Budget, Plan, Profile, Step, plan
from appliance.units import human_bytes

HELP = "Show every budget and cap with its derivation; say what is infeasible and why."

_WIDTH = 80


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="the declaration, a YAML file")
    parser.add_argument(
        "--profile",
        metavar="NAME",
        choices=(DETECT, *CATALOGUE),
        help="plan for this profile instead of the declaration's",
    )
    parser.add_argument("--json", action="store_true", help="one JSON document")


def run(args: argparse.Namespace) -> int:
    declaration = load(args.file)
    profile, notes = choose_profile(declaration, args.profile)
    found = plan(profile, wishes(declaration))
    if args.json:
        print(json.dumps(found.as_json(), indent=2, ensure_ascii=False))
        return 0
    for line in render(declaration.name, found):
        print(line)
    for note in notes:
        print(textwrap.fill(f"note: {note}", _WIDTH, subsequent_indent="  "))
    return 0


def choose_profile(
    declaration: Declaration, name: str | None = None
) -> tuple[Profile, tuple[str, ...]]:
    """The profile to plan for, and what was assumed about it: `name`, else the declaration's.

    Looks at the machine only for `detect`.
    """
    wanted = name or declaration.hardware.profile
    if isinstance(wanted, Profile):
        return wanted, ()
    if wanted != DETECT:
        return CATALOGUE[wanted], ()
    from appliance.sizing.detect import detect

    detected = detect()
    return detected.profile, detected.notes


def render(name: str, found: Plan) -> Iterator[str]:
    """The plan as lines of at most 80 columns."""
    profile = found.profile
    yield from textwrap.wrap(f"{name} on {profile.name}: {profile.description}", _WIDTH)
    yield ""
    yield "budgets"
    yield from _budget("open files", found.fds, str)
    yield from _budget("memory", found.memory, human_bytes)
    yield from _budget("tracked connections", found.conntrack, str)
    bandwidth = found.bandwidth
    line = human_bytes(bandwidth.link_bytes_per_second)
    relay = human_bytes(bandwidth.relay_bytes_per_second)
    circuit = human_bytes(bandwidth.per_circuit_bytes_per_second)
    yield f"  bandwidth: {line}/s line, {relay}/s for relaying, {circuit}/s a circuit"
    caps = {field.name for field in dataclasses.fields(found.caps)}
    for title, wanted in (("caps (divisions round down)", True), ("limits", False)):
        yield ""
        yield title
        for step in found.derivation:
            if (step.name in caps) == wanted:
                yield from _step(step)


def _budget(title: str, budget: Budget, show: Callable[[int], str]) -> Iterator[str]:
    yield f"  {title}: {show(budget.limit)}, of which {show(budget.available)} for the caps,"
    yield f"    which take at most {show(budget.used)}; reserved for"
    owners = ", ".join(f"{owner} {show(amount)}" for owner, amount in budget.reserved.items())
    yield from _wrap(owners, 4)


def _step(step: Step) -> Iterator[str]:
    shown = human_bytes(step.value) if _is_bytes(step.name) else str(step.value)
    head = f"  {step.name:<26}{shown:>10}  "
    because, *more = _wrap(step.because, len(head))
    yield head + because.strip()
    yield from more
    if step.formula != shown:
        yield from _wrap(f"= {step.formula}", len(head))


def _wrap(text: str, column: int) -> list[str]:
    indent = " " * column
    return textwrap.wrap(text, _WIDTH, initial_indent=indent, subsequent_indent=indent)


def _is_bytes(name: str) -> bool:
    return name.startswith(("memory.", "Memory")) or "bytes" in name
