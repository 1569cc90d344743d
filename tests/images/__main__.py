"""Builds the image of every target, boots each, and says what it weighs and how long it took.

    python -m tests.images [--out DIR] [TARGET …]

Root. The x86-64 image is booted past the UEFI and through it; of the Raspberry Pi's, the boot files
are checked and the root is booted on a generic machine. Exit code 1 when a check fails.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from appliance.units import MIB

PROJECT: Final = Path(__file__).parent.parent.parent
EXAMPLES: Final = {"x86-64": "public-relay", "arm64": "router", "raspberry-pi": "home-pi"}
"""Which of schemas/examples becomes the image of which target."""
WAYS: Final[Mapping[str, tuple[tuple[str, ...], ...]]] = {
    "x86-64": (("--direct",), ()),
    "arm64": (("--direct",), ()),
    "raspberry-pi": ((),),
}
LARGEST: Final = {"compressed_bytes": 350 * 10**6, "installed_bytes": 900 * 10**6}
"""Without kaspad."""


def appliance(*words: str) -> tuple[int, dict[str, Any]]:
    """Exit code and the JSON document of an `appliance image …`; its stderr is shown."""
    command = [sys.executable, "-m", "appliance", "image", *words, "--json"]
    done = subprocess.run(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True, check=False)
    return done.returncode, json.loads(done.stdout or "{}")


def rows(target: str, out: Path) -> Iterator[tuple[bool, str]]:
    """One row of the table for each boot: whether all was well, and its Markdown."""
    example = EXAMPLES[target]
    source = f"schemas/examples/{example}.yaml"
    code, built = appliance(
        "build", source, "--target", target, "--out", str(out / target), "--keep-kernel"
    )
    if code:
        yield False, f"| {target} | {example}.yaml | not built | | | | | |"
        return
    small = all(built[name] <= most for name, most in LARGEST.items())
    weighs = [f"{built[name] / MIB:.0f} MiB" for name in ("compressed_bytes", "installed_bytes")]
    seconds = sum(built["seconds"].values())
    for way in WAYS[target]:
        code, report = appliance("test", built["image"], *way)
        checks = report.get("checks", [])
        passed = sum(one["passed"] for one in checks)
        cells = [
            target,
            f"{example}.yaml",
            *weighs,
            f"{seconds:.0f} s",
            "past the UEFI" if way else "its own loader",
            f"{report.get('time_to_ssh_s') or '–'} s",
            f"{passed} of {len(checks)}",
        ]
        yield not code and small, f"| {' | '.join(cells)} |"


def main() -> int:
    """Entry of the command."""
    parser = argparse.ArgumentParser(prog="python -m tests.images")
    parser.add_argument("targets", nargs="*", metavar="TARGET", default=[])
    parser.add_argument("--out", type=Path, default=PROJECT / "build")
    args = parser.parse_args()
    for name in args.targets:
        if name not in EXAMPLES:
            parser.error(f"{name} is none of {', '.join(EXAMPLES)}")
    print(
        "| target | declaration | compressed | installed | built in | boot | first login | checks |"
    )
    print("|---|---|---|---|---|---|---|---|", flush=True)
    well = True
    for target in args.targets or EXAMPLES:
        for good, row in rows(target, args.out):
            print(row, flush=True)
            well = well and good
    return not well


if __name__ == "__main__":
    sys.exit(main())
