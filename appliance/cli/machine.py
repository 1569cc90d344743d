"""`appliance machine apply|state|check`: what an image runs at boot."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from appliance.errors import ApplianceError

HELP = "The machine beneath the appliance, where it boots from an image: applies its files."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    apply = actions.add_parser(
        "apply", help="make the machine what the files on the setup partition say (root)"
    )
    apply.add_argument(
        "--if-changed",
        action="store_true",
        help="do nothing where the same files were applied in this boot without a fault",
    )
    state = actions.add_parser("state", help="say how the machine is; also on its console")
    for action in (apply, state):
        action.add_argument("--setup", type=Path, metavar="DIR", help="instead of /boot/appliance")
        action.add_argument(
            "--state", type=Path, metavar="DIR", help="instead of /var/lib/appliance-machine"
        )
        action.add_argument(
            "--root",
            type=Path,
            default=Path("/"),
            metavar="DIR",
            help="a root directory that is not running: only its files are touched",
        )
    check = actions.add_parser("check", help="what apply would say of a declaration, as JSON")
    check.add_argument("file", metavar="FILE", help="the declaration, a YAML file")


def run(args: argparse.Namespace) -> int:
    if args.action == "check":
        return _check(args.file)
    from appliance.machine.places import Places

    places = Places.below(args.root, setup=args.setup, state=args.state)
    if places.live and os.geteuid() != 0:
        raise ApplianceError(
            f"`machine {args.action}` writes to /run and to the setup partition: it takes root",
            hint=f"sudo appliance machine {args.action}",
        )
    if args.action == "state":
        from appliance.machine.notes import refresh

        print(refresh(places), end="")
        return 0
    from appliance.machine.apply import apply

    report = apply(places, if_changed=args.if_changed)
    if report is None:
        return 0
    for line in (*report.faults, *report.notes):
        print(f"appliance: {line}")
    if not report.faults:
        print("appliance: the files of the setup partition are in force")
    sys.stdout.flush()
    return 0


def _check(file: str) -> int:
    """Everything at once: the file's own faults, the plan's, this machine's."""
    from appliance import startup
    from appliance.cli.declared import opened
    from appliance.cli.plan import choose_profile, document
    from appliance.declaration.wishes import wishes
    from appliance.sizing import plan

    faults: list[str] = []
    shown = None
    try:
        found = opened(file)
        wanted = plan(choose_profile(found.declaration)[0], wishes(found.declaration))
        shown = document(found.declaration, wanted)
        problems = startup.check(
            found.declaration, wanted, beside_running=True, before_network=True
        )
        if problems:
            raise found.refusal(problems)
    except ApplianceError as error:
        faults = error.message.splitlines()
    print(json.dumps({"faults": faults, "plan": shown}, ensure_ascii=False))
    return 0
