"""`appliance validate FILE`: schema and meaning, without touching the machine."""

from __future__ import annotations

import argparse

from appliance.declaration import load

HELP = "Check a declaration: every fault at once, each with its place. Touches nothing."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="the declaration, a YAML file")


def run(args: argparse.Namespace) -> int:
    declaration = load(args.file)
    print(f"{args.file}: ok ({declaration.name}, {declaration.network.value})")
    return 0
