"""`appliance validate FILE`: schema and meaning; with `--machine` also what this machine says."""

from __future__ import annotations

import argparse

from appliance.cli.declared import opened

HELP = "Check a declaration: every fault at once, each with its place. Touches nothing."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="the declaration, a YAML file; - reads one")
    parser.add_argument(
        "--machine",
        action="store_true",
        help="check also whether it could run on this machine now: ports, files, groups, limits",
    )


def run(args: argparse.Namespace) -> int:
    found = opened(args.file)
    declaration = found.declaration
    where = ""
    if args.machine:
        from appliance import startup
        from appliance.cli.plan import choose_profile
        from appliance.declaration.wishes import wishes
        from appliance.sizing import plan

        wanted = plan(choose_profile(declaration)[0], wishes(declaration))
        problems = startup.check(declaration, wanted, beside_running=True)
        if problems:
            raise found.refusal(problems)
        where = ", on this machine"
        if startup.is_running(declaration):
            where += ", where it is running: ports that are in use do not count"
    print(f"{args.file}: ok ({declaration.name}, {declaration.network.value}{where})")
    return 0
