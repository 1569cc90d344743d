"""`appliance diff OLD NEW`: what a change of declaration changes, and what it takes to apply it."""

from __future__ import annotations

import argparse
import dataclasses
import json
import textwrap
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from appliance.cli.declared import load
from appliance.cli.plan import choose_profile
from appliance.declaration import Declaration
from appliance.declaration.difference import SCHEMA, Difference, Number, difference
from appliance.declaration.hardware import DETECT
from appliance.declaration.listeners import Listener
from appliance.declaration.wishes import wishes
from appliance.errors import ApplianceError
from appliance.sizing import CATALOGUE, Infeasible, Plan, plan
from appliance.units import human_bytes

HELP = "Show what a change of declaration would change in settings, ports, peers and budgets."

_WIDTH = 80


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("old", metavar="OLD", help="the declaration as it is")
    parser.add_argument("new", metavar="NEW", help="the declaration as it would be")
    parser.add_argument(
        "--profile",
        metavar="NAME",
        choices=(DETECT, *CATALOGUE),
        help="plan both for this profile instead of their own",
    )
    parser.add_argument("--json", action="store_true", help="one JSON document")


def run(args: argparse.Namespace) -> int:
    old, new = load(args.old), load(args.new)
    plans = _planned(old, args.profile), _planned(new, args.profile)
    feasible = [found if isinstance(found, Plan) else None for found in plans]
    found = difference(old, new, *feasible)
    refusals = [found if isinstance(found, Infeasible) else None for found in plans]
    if args.json:
        print(json.dumps(_document(found, *refusals), indent=2, ensure_ascii=False))
    else:
        for line in render(found):
            print(line)
        if refusals[0] is not None:
            print(textwrap.fill(f"note: {args.old} is not feasible: {refusals[0].message}", _WIDTH))
    if refusals[1] is not None:
        sentence = f"{args.new} is not feasible: {refusals[1].message}"
        raise ApplianceError(sentence, hint=refusals[1].hint)
    return 0


def _planned(declaration: Declaration, profile: str | None) -> Plan | Infeasible:
    try:
        return plan(choose_profile(declaration, profile)[0], wishes(declaration))
    except Infeasible as refusal:
        return refusal


def _document(found: Difference, old: Infeasible | None, new: Infeasible | None) -> dict[str, Any]:
    document = dataclasses.asdict(found)
    document["ports"] = {
        "opened": [_socket_document(listener) for listener in found.ports.opened],
        "closed": [_socket_document(listener) for listener in found.ports.closed],
    }
    return {
        "schema": SCHEMA,
        "equal": not found,
        **document,
        "infeasible": {"old": _refusal(old), "new": _refusal(new)},
    }


def _socket_document(listener: Listener) -> dict[str, str]:
    return {**dataclasses.asdict(listener), "endpoint": str(listener.endpoint)}


def _refusal(refusal: Infeasible | None) -> dict[str, Any] | None:
    if refusal is None:
        return None
    return {
        "message": refusal.message,
        "constraint": refusal.constraint,
        "wish": refusal.wish,
        "nearest": refusal.nearest,
    }


def render(found: Difference) -> Iterator[str]:
    """The difference as lines; numbers in columns, reasons wrapped to 80 columns."""
    if not found:
        yield "no difference"
        return
    if found.settings:
        yield "settings"
        for setting in found.settings:
            yield f"  {setting.path}: {setting.old} → {setting.new}"
    if found.ports.opened or found.ports.closed:
        yield "ports"
        yield from (f"  opened  {_socket(listener)}" for listener in found.ports.opened)
        yield from (f"  closed  {_socket(listener)}" for listener in found.ports.closed)
    if found.peers:
        yield "peers and relays"
        for peers in found.peers:
            yield f"  {peers.path}" + ("" if peers.added or peers.removed else ": another order")
            yield from (f"    + {peer}" for peer in peers.added)
            yield from (f"    - {peer}" for peer in peers.removed)
    for group, numbers in groupby(found.budgets, lambda number: number.group):
        yield f"budgets: {group}"
        for number in numbers:
            yield from _number(number)
    yield "to apply it"
    for task in found.apply:
        yield from _wrapped(f"- {task.what}", 2, 4)
    if not found.apply:
        yield "  nothing"


def _socket(listener: Listener) -> str:
    port = "a free port of " + listener.endpoint.host if not listener.endpoint.port else ""
    return f"{port or listener.endpoint}  {listener.owner} ({listener.path})"


def _number(number: Number) -> Iterator[str]:
    old, new = (_shown(number, value) for value in (number.old, number.new))
    yield f"  {number.name:<34}{old:>12} → {new}"
    if number.because is not None:
        yield from _wrapped(number.because, 6, 6)


def _shown(number: Number, value: int | None) -> str:
    if value is None:
        return "none"
    in_bytes = number.group in ("memory", "machine") or "bytes" in number.name
    if in_bytes or number.name.rpartition(".")[2].startswith("Memory"):
        return human_bytes(value)
    return str(value)


def _wrapped(text: str, first: int, rest: int) -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=" " * first,
        subsequent_indent=" " * rest,
        break_long_words=False,
        break_on_hyphens=False,
    )
