"""`appliance profiles`: the hardware catalogue, and this machine as a profile."""

from __future__ import annotations

import argparse
import dataclasses
import json
import textwrap

from appliance.sizing import CATALOGUE, Profile
from appliance.units import human_bytes

HELP = "Show the hardware catalogue, or with --detect this machine as a profile."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--detect", action="store_true", help="describe this machine instead")
    parser.add_argument("--json", action="store_true", help="one JSON document")


def run(args: argparse.Namespace) -> int:
    notes: tuple[str, ...] = ()
    profiles = list(CATALOGUE.values())
    if args.detect:
        from appliance.sizing.detect import detect

        detected = detect()
        profiles, notes = [detected.profile], detected.notes
    if args.json:
        documents = [dataclasses.asdict(profile) for profile in profiles]
        shown = {"profile": documents[0], "notes": notes} if args.detect else documents
        print(json.dumps(shown, indent=2, ensure_ascii=False))
        return 0
    print("\n\n".join(describe(profile) for profile in profiles))
    for note in notes:
        print(textwrap.fill(f"note: {note}", 80, subsequent_indent="  "))
    return 0


def describe(profile: Profile) -> str:
    """A profile on a few lines of at most 80 columns."""
    facts = (
        f"{profile.architecture}, {profile.cores} cores, {human_bytes(profile.memory_bytes)} "
        f"memory, {profile.nofile} open files, {human_bytes(profile.link_bytes_per_second)}/s "
        f"line, {profile.conntrack_max} tracked connections, {profile.storage}"
    )
    lines = [profile.name]
    for text in (profile.description, facts, f"source: {profile.source}"):
        lines += textwrap.wrap(text, 80, initial_indent="  ", subsequent_indent="  ")
    return "\n".join(lines)
