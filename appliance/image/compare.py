"""Two builds of one image, compared partition by partition: what differs, and whether it may.

    python -m appliance.image.compare A B

A and B are `.img` or `.img.zst`. What may differ stands in images/reproducible.yaml, each with its
reason; exit code 1 where anything else does.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from appliance.errors import ApplianceError
from appliance.image.imagefile import unpacked
from appliance.image.partitions import read_table

_REGISTER: Final = Path(__file__).resolve().parents[2] / "images/reproducible.yaml"
_CHUNK: Final = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Area:
    """A stretch of the disk: a partition, or what lies between (the partition tables)."""

    name: str
    start: int
    size: int


@dataclass(frozen=True, slots=True)
class Difference:
    area: str
    detail: str
    reason: str = ""
    """Why it may differ; empty: it may not."""


def compare(first: Path, second: Path, allowed: Mapping[str, str]) -> list[Difference]:
    """Of two unpacked images. `allowed`: a reason for each area that may differ."""
    found: list[Difference] = []
    one, other = (areas(path) for path in (first, second))
    if one != other:
        return [Difference("partitions", "the tables have different places or sizes")]
    for area in one:
        left, right = digest(first, area), digest(second, area)
        if left != right:
            detail = f"{left[:16]} and {right[:16]}"
            found.append(Difference(area.name, detail, allowed.get(area.name, "")))
    return found


def areas(image: Path) -> list[Area]:
    """All bytes of the image, named: nothing that could differ is left out."""
    table = read_table(image)
    found: list[Area] = []
    end = 0
    for part in sorted(table.partitions, key=lambda one: one.start):
        if part.start > end:
            found.append(Area(f"before {part.number}", end, part.start - end))
        found.append(Area(part.name or f"partition {part.number}", part.start, part.size))
        end = part.start + part.size
    size = image.stat().st_size
    if size > end:
        found.append(Area("behind the partitions", end, size - end))
    return found


def digest(image: Path, area: Area) -> str:
    sha = hashlib.sha256()
    with image.open("rb") as file:
        file.seek(area.start)
        left = area.size
        while left:
            chunk = file.read(min(left, _CHUNK))
            if not chunk:
                raise ApplianceError(f"{image}: ends before its partition {area.name}")
            sha.update(chunk)
            left -= len(chunk)
    return sha.hexdigest()


def allowances(register: Path = _REGISTER) -> dict[str, str]:
    """Area → reason. Raises ApplianceError where an entry lacks its reason."""
    listed = yaml.safe_load(register.read_text(encoding="utf-8"))["differences"] or []
    for entry in listed:
        if not entry.get("reason"):
            raise ApplianceError(f"{register}: {entry.get('area')} has no reason")
    return {entry["area"]: entry["reason"] for entry in listed}


def told(differences: Sequence[Difference]) -> Iterator[str]:
    if not differences:
        yield "the two images are the same, byte for byte"
    for one in differences:
        verdict = f"may: {one.reason}" if one.reason else "MUST NOT"
        yield f"{one.area} differs ({one.detail}): {verdict}"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m appliance.image.compare", description=__doc__)
    parser.add_argument("first", type=Path, metavar="A")
    parser.add_argument("second", type=Path, metavar="B")
    args = parser.parse_args(argv)
    try:
        with ExitStack() as stack:
            first, second = (
                stack.enter_context(
                    unpacked(path, Path(stack.enter_context(tempfile.TemporaryDirectory())))
                )
                for path in (args.first, args.second)
            )
            found = compare(first, second, allowances())
    except ApplianceError as error:
        sys.stderr.write(f"{error.message}\n")
        return 1
    sys.stdout.write("".join(f"{line}\n" for line in told(found)))
    return 1 if any(not one.reason for one in found) else 0


if __name__ == "__main__":
    sys.exit(main())
