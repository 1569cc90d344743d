"""`appliance addresses`: the address book, and `addresses import`: a kaspad's own database."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from appliance.addresses.listing import Listed
from appliance.errors import ApplianceError
from appliance.network import Network
from appliance.units import human_seconds

HELP = "The address book with capabilities and where each claim came from."

BOOK_DIR: Final = "addresses"  # as in `appliance.app`
SHOWN: Final = 100  # lines, unless --all or --json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = (
        "appliance addresses [FILE | --state DIR] [--relays] [--all] [--json]\n"
        "       appliance addresses import --kaspad DIR [FILE | --state DIR] [--network NAME]"
    )
    parser.add_argument("words", nargs="*", metavar="FILE", help="the declaration it runs from")
    parser.add_argument("--state", type=Path, metavar="DIR", help="the state directory instead")
    parser.add_argument("--relays", action="store_true", help="only those that say they relay")
    parser.add_argument("--all", action="store_true", help=f"more than the first {SHOWN}")
    parser.add_argument("--json", action="store_true", help="one JSON document")
    parser.add_argument(
        "--kaspad", type=Path, metavar="DIR", help="import: kaspad's --appdir, or its meta database"
    )
    parser.add_argument(
        "--network",
        choices=[network.value for network in Network],
        help="import: of a new book; otherwise the book or the declaration says it",
    )


def run(args: argparse.Namespace) -> int:
    words: list[str] = args.words
    importing = words[:1] == ["import"]
    if importing:
        words = words[1:]
    if len(words) > 1 or (words and args.state is not None):
        raise ApplianceError("one FILE, or --state DIR, and not more")
    if importing != (args.kaspad is not None):
        raise ApplianceError(
            "an import names a kaspad's directory",
            hint="appliance addresses import --kaspad DIR [FILE | --state DIR]",
        )
    directory, network, table = _place(words[0] if words else None, args.state)
    if importing:
        named = Network(args.network) if args.network else network
        return _import(directory, named, table, args.kaspad, as_json=args.json)
    return _show(directory, relays=args.relays, everything=args.all, as_json=args.json)


def _place(file: str | None, state: Path | None) -> tuple[Path, Network | None, Path | None]:
    """The book's directory; where a declaration says them, its network and table of systems."""
    if file is not None:
        from appliance.declaration import load

        declaration = load(file)
        book = declaration.state.dir / BOOK_DIR
        return book, declaration.network, declaration.discovery.as_table
    if state is None:
        raise ApplianceError(
            "whose address book?", hint="name the declaration, or its state.dir with --state DIR"
        )
    return state / BOOK_DIR, None, None


def _show(directory: Path, *, relays: bool, everything: bool, as_json: bool) -> int:
    from appliance.addresses.listing import read

    now = time.time()
    network, rows = read(directory, now)
    if relays:
        rows = [row for row in rows if row.relays or row.private]
    rows.sort(key=lambda row: (not row.candidate, -row.weight, row.address))
    if as_json:
        document = {
            "schema": "appliance.addresses/v1",
            "network": network.value,
            "at": int(now),
            "addresses": [_as_dict(row) for row in rows],
        }
        print(json.dumps(document, indent=2))
        return 0
    shown = rows if everything else rows[:SHOWN]
    for line in _lines(shown, now):
        print(line)
    if len(shown) < len(rows):
        print(f"… and {len(rows) - len(shown)} more: --all shows them", file=sys.stderr)
    return 0


def _as_dict(row: Listed) -> dict[str, object]:
    document = dataclasses.asdict(row)
    found = row.capability
    if found is not None:
        document["capability"] = {
            "peer_id": found.peer_id,
            "relay_port": found.relay_port,
            "capacity": found.capacity,
            "role": found.role.name.lower(),
            "signed": found.signed,
            "seq": found.seq,
            "who": found.who,
            "heard": found.heard,
            "expires": found.expires,
            "confirmed": found.confirmed,
            "hint": found.hint,
        }
    return document


def _lines(rows: Iterable[Listed], now: float) -> Iterable[str]:
    for row in rows:
        reached = f"reached {_ago(row.success, now)}" if row.success else "never reached"
        failed = f", {row.failures} failures since" if row.failures else ""
        yield f"{row.address}  {reached}{failed}, weight {row.weight:g}"
        yield f"  told by {row.who} ({row.source}) {_ago(row.first_heard, now)}"
        if (found := row.capability) is not None:
            kind = "signed" if found.signed else "unsigned"
            parts = [f"{kind}, by {found.who} {_ago(found.heard, now)}"]
            if found.relay_port:
                parts.append(f"relay port {found.relay_port}")
            if found.capacity:
                parts.append(f"for {found.capacity} peers")
            if found.hint:
                parts.append(f"through {found.hint}")
            if found.peer_id:
                parts.append(found.peer_id)
            parts.append(
                f"proven {_ago(found.confirmed, now)}" if found.confirmed else "not proven"
            )
            yield "  claim: " + ", ".join(parts)
        yield f"  {'candidate' if row.candidate else 'no candidate'}: {row.because}"


def _ago(moment: int, now: float) -> str:
    if not moment:
        return "at no known time"
    return f"{human_seconds(now - moment)} ago" if moment <= now else "just now"


def _import(
    directory: Path, network: Network | None, table: Path | None, source: Path, *, as_json: bool
) -> int:
    from appliance.addresses.compiled import SYSTEMS_CACHE, compiled_systems
    from appliance.addresses.examining import identity_of
    from appliance.addresses.kaspad_db import find_meta, import_kaspad
    from appliance.addresses.options import StoreOptions
    from appliance.addresses.store import AddressBook

    identity = identity_of(directory)
    # As large as it is: the plan's figure is the daemon's to apply.
    options = None if identity is None else StoreOptions(entries=identity.entries)
    if network is None and identity is not None:
        network = identity.network
    if network is None:
        raise ApplianceError(
            f"there is no address book at {directory} yet, and no network was named",
            hint="add --network mainnet, or name the declaration",
        )
    meta = find_meta(source, network)
    cache = directory.with_name(SYSTEMS_CACHE)
    systems = None if table is None else compiled_systems(table, cache)
    with AddressBook.open(directory, network, options, systems=systems) as book:
        report = import_kaspad(book, meta, time.time())
        size = len(book)
    if as_json:
        document = dataclasses.asdict(report)
        print(json.dumps(document | {"source": str(report.source), "entries": size}, indent=2))
        return 0
    print(f"{meta}: {sum(report.layouts.values())} addresses", end="")
    print("".join(f", {count} {layout}" for layout, count in sorted(report.layouts.items())))
    print(f"{report.added} are new, {report.known} were known; the book has {size}")
    for reason, count in sorted(report.refused.items()):
        print(f"{count} not taken: {reason}")
    if report.undecodable:
        print(f"{report.undecodable} rows could not be decoded and were left out")
    if report.bans or report.bans_lapsed:
        print(f"{report.bans} bans taken over, {report.bans_lapsed} had lapsed")
    return 0
