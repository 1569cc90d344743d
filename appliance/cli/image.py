"""`appliance image …`: a bootable image is built, tested and flashed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from appliance.cli import image_build
from appliance.errors import ApplianceError

HELP = "A bootable image: built from a declaration, tested, written to a card or disk."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="build|test|flash")
    image_build.add_arguments(
        actions.add_parser("build", help="make it from a declaration (root, on Debian 12 or later)")
    )
    _add_test(actions.add_parser("test", help="boot it in QEMU and check it from outside"))
    _add_flash(actions.add_parser("flash", help="write it to a card or disk, and verify"))


def run(args: argparse.Namespace) -> int:
    return _ACTIONS[args.action](args)


# --- test


def _add_test(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", type=Path, metavar="IMAGE", help=".img or .img.zst")
    parser.add_argument("--json", action="store_true", help="one JSON document, nothing else")
    parser.add_argument(
        "--direct",
        action="store_true",
        help="past the UEFI: with the files that `build --keep-kernel` leaves beside the image",
    )
    parser.add_argument(
        "--console", type=Path, metavar="FILE", help="leave what the console showed there"
    )


def _test(args: argparse.Namespace) -> int:
    from appliance.image.boot_test import Order, test
    from appliance.image.qemu import Kernel

    kernel = Kernel.beside(args.image) if args.direct else None
    return test(Order(args.image, as_json=args.json, console=args.console, kernel=kernel))


# --- flash


def _add_flash(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", type=Path, metavar="IMAGE", help=".img or .img.zst")
    parser.add_argument("device", type=Path, metavar="DEVICE", help="the disk, /dev/… (root)")
    parser.add_argument(
        "--files",
        type=Path,
        metavar="DIR",
        help="appliance.yaml, authorized_keys, wifi-passphrase for its setup partition",
    )
    parser.add_argument(
        "--force", action="store_true", help="also to a disk that is in use, and to a file"
    )
    parser.add_argument("--yes", action="store_true", help="do not ask")


def _flash(args: argparse.Namespace) -> int:
    from appliance.image import flash
    from appliance.image.blockdev import inspect
    from appliance.image.imagefile import checked
    from appliance.image.meter import Meter
    from appliance.image.userfiles import read_files

    # The cheap looks first; and everything before the disk is touched.
    files = read_files(args.files) if args.files else {}
    target = inspect(args.device)
    image = checked(args.image, Meter(f"checking {args.image.name}", sys.stdout))
    if files:
        _ = image.table.setup
    if image.checksum is None:
        print(f"note: no {args.image.name}.sha256 stands beside it to compare with")
    flash.refusals(image, target, force=args.force)
    for line in (*target.contents, *(use.what for use in target.uses)):
        print(line)
    if target.contents and not args.yes:
        _ask(args.device)

    def progress(step: flash.Step) -> Meter:
        return Meter(step.name, sys.stdout)

    try:
        flash.flash(image, args.device, files, progress, force=args.force)
    except KeyboardInterrupt:
        sentence = f"interrupted: {args.device} is not usable; flash it again"
        print(f"\nappliance: {sentence}", file=sys.stderr)
        raise
    also = f", with {', '.join(files)}" if files else ""
    print(f"{args.device} holds {args.image.name}{also}; read back and compared")
    return 0


def _ask(device: Path) -> None:
    if not sys.stdin.isatty():
        raise ApplianceError(
            f"all that is on {device} would be lost, and nobody is here to ask",
            hint="--yes answers the question",
        )
    try:
        answer = input("All of this will be lost. Write the image to it? [yes/no] ")
    except (EOFError, KeyboardInterrupt):
        answer = ""
        print()
    if answer.strip().lower() != "yes":
        raise ApplianceError("nothing was written")


_ACTIONS: Final[dict[str, Callable[[argparse.Namespace], int]]] = {
    "build": image_build.run,
    "test": _test,
    "flash": _flash,
}
