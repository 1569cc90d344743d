"""`appliance plan FILE`: every budget and cap with its derivation."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import textwrap
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from appliance.cli.declared import load
from appliance.declaration import Declaration
from appliance.declaration.hardware import DETECT
from appliance.declaration.listeners import exposed
from appliance.declaration.wishes import wishes
from appliance.sizing import CATALOGUE, Budget, Machine, Plan, Profile, Step, plan
from appliance.sizing.traced import NAME
from appliance.units import human_bytes

HELP = "Show every budget and cap with its derivation; say what is infeasible and why."

_WIDTH = 80
_BETWEEN = "how the budgets come about"
_COLUMN = 46
"""Where the reasons begin."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="the declaration, a YAML file; - reads one")
    parser.add_argument(
        "--profile",
        metavar="NAME",
        choices=(DETECT, *CATALOGUE),
        help="plan for this profile instead of the declaration's",
    )
    parser.add_argument(
        "--steps", action="store_true", help="show the steps between the budgets and the caps, too"
    )
    parser.add_argument("--json", action="store_true", help="one JSON document, all steps in it")


def run(args: argparse.Namespace) -> int:
    declaration = load(args.file)
    profile, notes = choose_profile(declaration, args.profile)
    found = plan(profile, wishes(declaration))
    if args.json:
        print(json.dumps(document(declaration, found), indent=2, ensure_ascii=False))
        return 0
    for line in render(declaration.name, found, steps=args.steps):
        print(line)
    for note in notes:
        print(textwrap.fill(f"note: {note}", _WIDTH, subsequent_indent="  "))
    return 0


def document(declaration: Declaration, found: Plan) -> dict[str, Any]:
    """The plan, and the sockets that a packet filter has to know."""
    sockets = exposed(declaration, found.caps.outbound_private)
    return {**found.as_json(), "listeners": [dataclasses.asdict(each) for each in sockets]}


def choose_profile(
    declaration: Declaration, name: str | None = None
) -> tuple[Profile, tuple[str, ...]]:
    """The profile to plan for, and what was assumed about it: `name`, else the declaration's with
    what it overrides.

    Looks at the machine only for `detect`, and not even then where $APPLIANCE_HARDWARE names what
    was found before.
    """
    wanted = name or declaration.hardware.profile
    notes: tuple[str, ...] = ()
    if isinstance(wanted, Profile):
        profile = wanted
    elif wanted != DETECT:
        profile = CATALOGUE[wanted]
    else:
        from appliance.sizing.detect import RECORD, detect, recorded

        # Asked for by name, it is this machine as it is now.
        record = None if name else os.environ.get(RECORD)
        detected = recorded(Path(record)) if record else detect()
        profile, notes = detected.profile, detected.notes
    return (profile if name else declaration.hardware.apply(profile)), notes


def render(name: str, found: Plan, *, steps: bool = False) -> Iterator[str]:
    """The plan as lines of at most 80 columns; with `steps` those of the whole derivation."""
    profile = found.profile
    yield from textwrap.wrap(f"{name} on {profile.name}: {profile.description}", _WIDTH)
    yield ""
    yield "budgets"
    yield from _machine(found.machine)
    yield from _budget("open files", found.fds, str)
    yield from _budget("memory", found.memory, human_bytes)
    yield from _budget("tracked connections", found.conntrack, str)
    if found.kaspad is not None and found.kaspad.fds is not None:
        yield from _budget("kaspad's open files", found.kaspad.fds, str)
    bandwidth = found.bandwidth
    line = human_bytes(bandwidth.link_bytes_per_second)
    relay = human_bytes(bandwidth.relay_bytes_per_second)
    circuit = human_bytes(bandwidth.per_circuit_bytes_per_second)
    yield f"  bandwidth: {line}/s line, {relay}/s for relaying, {circuit}/s a circuit"
    if found.kaspad is not None:
        yield ""
        yield "kaspad is to be started with"
        yield from _wrap(" ".join(found.kaspad.flags), 2)
    values = {step.name: step.value for step in found.derivation}
    values |= {
        f"profile.{field}": value
        for field, value in dataclasses.asdict(profile).items()
        if isinstance(value, int)
    }
    for title, members in _sections(found).items():
        if title == _BETWEEN and not steps:
            continue
        yield ""
        yield title
        for step in members:
            yield from _step(step, values)
    if not steps:
        yield ""
        yield "The steps in between are shown by --steps, and by --json."


def _sections(found: Plan) -> dict[str, list[Step]]:
    """Every step of the derivation under its title; what leads to the others comes last."""
    told = found.kaspad.unit if found.kaspad else {}
    groups: tuple[tuple[str, Collection[str]], ...] = (
        ("caps (÷ rounds down)", [field.name for field in dataclasses.fields(found.caps)]),
        ("limits of the daemon's unit", found.unit),
        (
            "kaspad",
            ["kaspad.maxinpeers", "kaspad.outpeers", "kaspad.ram_scale_percent"]
            + [f"kaspad.{name}" for name in told],
        ),
        ("kernel settings", found.sysctl),
        ("packet filter", found.firewall),
        ("address book", [f"store.{name}" for name in found.store]),
        ("alerts, at or above", [f"alert.{name}" for name in found.alerts]),
    )
    steps = {step.name: step for step in found.derivation}
    sections = {
        title: [steps.pop(name) for name in names if name in steps] for title, names in groups
    }
    sections[_BETWEEN] = list(steps.values())
    return {title: members for title, members in sections.items() if members}


def _machine(machine: Machine) -> Iterator[str]:
    yield f"  the machine's memory: {human_bytes(machine.memory)}, of which"
    owners = [f"{owner} {human_bytes(amount)}" for owner, amount in machine.owners.items()]
    if machine.free:
        owners.append(f"free {human_bytes(machine.free)}")
    yield from _wrap(", ".join(owners), 4)


def _budget(title: str, budget: Budget, show: Callable[[int], str]) -> Iterator[str]:
    yield f"  {title}: {show(budget.limit)}, of which {show(budget.available)} for the caps,"
    yield f"    which take at most {show(budget.used)}; reserved for"
    owners = ", ".join(f"{owner} {show(amount)}" for owner, amount in budget.reserved.items())
    yield from _wrap(owners, 4)


def _step(step: Step, values: Mapping[str, int]) -> Iterator[str]:
    show = human_bytes if _is_bytes(step.name) else str
    shown = show(step.value)
    head = f"  {step.name:<32}{shown:>10}  "
    because, *more = _wrap(step.because, _COLUMN)
    yield head.rstrip() if len(head) > _COLUMN else head + because.strip()
    yield from [because, *more] if len(head) > _COLUMN else more
    if step.formula not in (shown, str(step.value)):
        formula = NAME.sub(lambda match: _named(match.group(), values), step.formula)
        yield from _wrap(f"= {formula}", 4)


def _named(name: str, values: Mapping[str, int]) -> str:
    return f"{name} {values[name]}" if name in values else name


def _wrap(text: str, column: int) -> list[str]:
    indent = " " * column
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _is_bytes(name: str) -> bool:
    """Whether a step's value is an amount of bytes, or of them per second."""
    return (
        name.startswith(("memory.", "machine.", "Memory"))
        or "bytes" in name
        or name.endswith("MemoryMax")
    )
