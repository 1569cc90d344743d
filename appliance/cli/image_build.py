"""`appliance image build FILE --out DIR`: a bootable image from a declaration."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from appliance import __version__
from appliance.errors import ApplianceError
from appliance.units import human_bytes

_TARGETS: Final = ("x86-64", "arm64", "raspberry-pi")  # appliance.image.targets; told by a test


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", type=Path, help="the declaration, a YAML file")
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="where it goes")
    parser.add_argument(
        "--target", choices=_TARGETS, help="else what the declaration's hardware profile says"
    )
    parser.add_argument(
        "--authorized-keys", metavar="FILE", type=Path, help="SSH public keys of the operator"
    )
    parser.add_argument(
        "--sources",
        metavar="FILE",
        type=Path,
        help="Debian's package sources, as in sources.list.d; else this machine's own",
    )
    parser.add_argument(
        "--cache", metavar="DIR", type=Path, help="else kaspa-appliance in ~/.cache"
    )
    parser.add_argument(
        "--date",
        metavar="DATE",
        type=_date,
        help="of the newest file: YYYY-MM-DD or seconds since 1970 (default: $SOURCE_DATE_EPOCH, "
        "else that of the checkout's last commit)",
    )
    parser.add_argument(
        "--image-version", default=__version__, metavar="V", help=f"(default {__version__})"
    )
    parser.add_argument(
        "--keep-kernel",
        action="store_true",
        help="leave kernel, initrd and command line beside the image, to start it directly",
    )
    parser.add_argument("--fresh", action="store_true", help="fetch Debian's packages anew")
    parser.add_argument(
        "--install-missing", action="store_true", help="install missing programs without asking"
    )
    parser.add_argument("--json", action="store_true", help="one JSON document, nothing else")


def run(args: argparse.Namespace) -> int:
    from appliance.image.build import PROJECT, Request, build
    from appliance.image.cache import default

    request = Request(
        file=args.file,
        out=args.out,
        cache=args.cache or default(),
        epoch=args.date if args.date is not None else _source_date(PROJECT),
        target=args.target,
        version=args.image_version,
        sources=args.sources,
        authorized_keys=args.authorized_keys,
        keep_kernel=args.keep_kernel,
        fresh=args.fresh,
        install_missing=args.install_missing,
    )
    built = build(request)
    if args.json:
        document = {
            "image": str(built.image),
            "manifest": str(built.manifest),
            "sbom": str(built.bill),
            "image_bytes": built.size,
            "compressed_bytes": built.compressed,
            "installed_bytes": built.installed,
            "seconds": dict(built.seconds),
        }
        print(json.dumps(document, indent=2))
        return 0
    print(f"{built.image}: {human_bytes(built.compressed)}, {human_bytes(built.size)} on the disk")
    print(f"installed: {human_bytes(built.installed)}")
    print(f"what it was made from: {built.manifest.name}, {built.bill.name}")
    return 0


def _date(text: str) -> int:
    if text.isascii() and text.isdigit():
        return int(text)
    try:
        return int(datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).timestamp())
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no date like 2026-01-31") from error


def _source_date(project: Path) -> int:
    """SOURCE_DATE_EPOCH, else the date of the last commit. Raises ApplianceError."""
    said = os.environ.get("SOURCE_DATE_EPOCH", "")
    if said:
        if not (said.isascii() and said.isdigit()):
            raise ApplianceError(f"SOURCE_DATE_EPOCH={said} is no number of seconds since 1970")
        return int(said)
    # A checkout of another user (sudo) is read all the same: only a date is asked for.
    command = ["git", "-c", f"safe.directory={project}", "log", "-1", "--format=%ct"]
    try:
        done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
        return int(done.stdout)
    except (OSError, ValueError) as error:
        raise ApplianceError(
            "the date of the sources is not known: this is no git checkout",
            hint="name it with --date 2026-01-31",
        ) from error
