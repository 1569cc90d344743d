"""`appliance migrate FILE`: an older declaration, rewritten in the current version."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from appliance.declaration.load import read_bytes
from appliance.declaration.migrate import migrate
from appliance.declaration.model import API_VERSION
from appliance.declaration.replace import replace

HELP = (
    "Rewrite a declaration of an older version in the current one; comments move with their "
    "fields, and the old text is kept beside it."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="the declaration, a YAML file")
    parser.add_argument(
        "--stdout", action="store_true", help="print the new text and change no file"
    )


def run(args: argparse.Namespace) -> int:
    data = read_bytes(args.file)
    migration = migrate(data, file=args.file)
    if args.stdout:
        sys.stdout.write(migration.text)
        return 0
    if not migration.older:
        print(f"{args.file}: is {API_VERSION} already; nothing was written")
        return 0
    # Through a link, the file itself: its name is what others know.
    path = Path(args.file).resolve()
    backup = path.with_name(f"{path.name}.{migration.older[0].rpartition('/')[2]}")
    replace(path, data, migration.text.encode(), backup)
    print(f"{args.file}: is {API_VERSION} now; {backup} keeps the old text")
    width = max(len(change.old) for change in migration.changes)
    for change in migration.changes:
        print(f"  line {change.line:<4} {change.old:<{width}}  {', '.join(change.new)}")
    if not migration.comments_kept:
        print("It could not be edited line by line: it was written anew, without its comments.")
    return 0
