"""`appliance identity DIR…`: the peer ids of state directories."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

HELP = "Show a state directory's peer id, making the key if there is none."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "directories",
        type=Path,
        nargs="+",
        metavar="DIR",
        help="a declaration's state.dir; with several, one peer id a line in the same order",
    )
    parser.add_argument("--json", action="store_true", help="one JSON document")


def run(args: argparse.Namespace) -> int:
    from appliance.bridge.identity import KEY_FILE, load_or_create

    peer_ids = [load_or_create(directory / KEY_FILE).peer_id for directory in args.directories]
    if args.json:
        listed = [
            {"directory": str(directory), "peer_id": peer_id}
            for directory, peer_id in zip(args.directories, peer_ids, strict=True)
        ]
        print(json.dumps({"peer_id": peer_ids[0], "identities": listed}))
    else:
        print("\n".join(peer_ids))
    return 0
