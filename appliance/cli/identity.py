"""`appliance identity PLACE…`: the peer ids of state directories, or of declarations."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

HELP = "Show an appliance's peer id, making its key if there is none."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "places",
        type=Path,
        nargs="+",
        metavar="PLACE",
        help="a state directory, or a declaration's file; with several, one peer id a line in the "
        "same order",
    )
    parser.add_argument("--json", action="store_true", help="one JSON document")


def run(args: argparse.Namespace) -> int:
    from appliance.bridge.identity import load_or_create

    peer_ids = [load_or_create(_key(place)).peer_id for place in args.places]
    if args.json:
        listed = [
            {"directory": str(place), "peer_id": peer_id}
            for place, peer_id in zip(args.places, peer_ids, strict=True)
        ]
        print(json.dumps({"peer_id": peer_ids[0], "identities": listed}))
    else:
        print("\n".join(peer_ids))
    return 0


def _key(place: Path) -> Path:
    from appliance.bridge.identity import KEY_FILE
    from appliance.cli.declared import load

    if place.suffix in (".yaml", ".yml", ".json") and not place.is_dir():
        return load(str(place)).identity.key.path
    return place / KEY_FILE
