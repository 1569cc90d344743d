"""Two builds of one image, compared: what differs, down to the file, and whether it may.

    python -m appliance.image.compare A B

A and B are `.img` or `.img.zst`, or the directories of two builds: then what stands beside the
image is compared, too. What may differ stands in images/reproducible.yaml, each with its reason;
exit code 1 where anything else does.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Final

import yaml

from appliance.errors import ApplianceError
from appliance.image import contents
from appliance.image.imagefile import unpacked
from appliance.image.partitions import read_table

_REGISTER: Final = Path(__file__).resolve().parents[2] / "images/reproducible.yaml"
_CHUNK: Final = 4 * 1024 * 1024
_IMAGE: Final = (".img", ".img.zst")
_SHOWN: Final = 20
"""Files named of one partition; a cause is seldom in one file alone."""


@dataclass(frozen=True, slots=True)
class Area:
    """A stretch of the disk: a partition, or what lies between (the partition tables)."""

    name: str
    start: int
    size: int


@dataclass(frozen=True, slots=True)
class Difference:
    area: str
    """The partition's name, or that of a file beside the image."""
    detail: Sequence[str]
    """What differs in it, a line each."""
    reason: str = ""
    """Why it may differ; empty: it may not."""


def compare(first: Path, second: Path, allowed: Mapping[str, str]) -> list[Difference]:
    """Of two unpacked images. `allowed`: a reason for each area that may differ."""
    one, other = (areas(path) for path in (first, second))
    if one != other:
        return [Difference("partitions", ["the tables have different places or sizes"])]
    return [
        Difference(area.name, list(inside(first, second, area)), allowed.get(area.name, ""))
        for area in one
        if digest(first, area) != digest(second, area)
    ]


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
    for chunk in _chunks(image, area):
        sha.update(chunk)
    return sha.hexdigest()


def inside(first: Path, second: Path, area: Area) -> Iterator[str]:
    """How an area of the two differs: by its files, else by its bytes."""
    try:
        with _cut(first, area) as one, _cut(second, area) as other:
            left, right = contents.entries(one), contents.entries(other)
    except ApplianceError as error:
        yield f"{error.message}{f' ({error.hint})' if error.hint else ''}"
        left = right = None
    if left is not None and right is not None:
        lines = list(contents.differences(left, right))
        yield from lines[:_SHOWN]
        if len(lines) > _SHOWN:
            yield f"and {len(lines) - _SHOWN} more"
        if lines:
            return
        yield "its files are the same, what the file system notes beside them is not"
    yield _bytes(first, second, area)


@contextmanager
def _cut(image: Path, area: Area) -> Iterator[Path]:
    """The area as a sparse file of its own."""
    with tempfile.NamedTemporaryFile(prefix="area-", dir=image.parent) as file:
        for chunk in _chunks(image, area):
            if any(chunk):
                file.write(chunk)
            else:
                file.seek(len(chunk), os.SEEK_CUR)
        file.truncate(area.size)
        file.flush()
        yield Path(file.name)


def _bytes(first: Path, second: Path, area: Area) -> str:
    at = 0
    for left, right in zip(_chunks(first, area), _chunks(second, area), strict=True):
        if left != right:
            at += next(
                n for n, pair in enumerate(zip(left, right, strict=True)) if len(set(pair)) > 1
            )
            break
        at += len(left)
    return f"the bytes from {at} on"


def _chunks(image: Path, area: Area) -> Iterator[bytes]:
    with image.open("rb") as file:
        file.seek(area.start)
        left = area.size
        while left:
            chunk = file.read(min(left, _CHUNK))
            if not chunk:
                raise ApplianceError(f"{image}: ends before its partition {area.name}")
            yield chunk
            left -= len(chunk)


def compare_packed(first: Path, second: Path, allowed: Mapping[str, str]) -> list[Difference]:
    """Of two images that may be compressed."""
    with ExitStack() as stack:
        places = [Path(stack.enter_context(tempfile.TemporaryDirectory())) for _ in range(2)]
        one, other = (
            stack.enter_context(unpacked(path, place))
            for path, place in zip((first, second), places, strict=True)
        )
        return compare(one, other, allowed)


def compare_builds(first: Path, second: Path, allowed: Mapping[str, str]) -> list[Difference]:
    """Of all that two builds left in their directories."""
    found: list[Difference] = []
    names = sorted({path.name for place in (first, second) for path in place.iterdir()})
    for name in names:
        one, other = first / name, second / name
        if not (one.is_file() and other.is_file()):
            detail = [f"only in {first if one.exists() else second}"]
            found.append(Difference(name, detail, allowed.get(name, "")))
            continue
        within = compare_packed(one, other, allowed) if name.endswith(_IMAGE) else []
        found += within
        if not within and digest(one, _whole(one)) != digest(other, _whole(other)):
            found.append(Difference(name, [_line(one, other)], allowed.get(name, "")))
    return found


def _whole(path: Path) -> Area:
    return Area(path.name, 0, path.stat().st_size)


def _line(first: Path, second: Path) -> str:
    """Where two files part: by their lines, of programs by their sizes."""
    try:
        left, right = (path.read_text(encoding="utf-8").splitlines() for path in (first, second))
    except UnicodeDecodeError:
        return f"{first.stat().st_size} and {second.stat().st_size} bytes, not the same"
    for number, (one, other) in enumerate(zip_longest(left, right, fillvalue=""), start=1):
        if one != other:
            return f"line {number}: {one.strip()} and {other.strip()}"
    return "the ends of their lines"


def allowances(register: Path = _REGISTER) -> dict[str, str]:
    """Area → reason. Raises ApplianceError where an entry lacks its reason."""
    listed = yaml.safe_load(register.read_text(encoding="utf-8"))["differences"] or []
    for entry in listed:
        if not entry.get("reason"):
            raise ApplianceError(f"{register}: {entry.get('area')} has no reason")
    return {entry["area"]: entry["reason"] for entry in listed}


def told(differences: Sequence[Difference], what: str = "images") -> Iterator[str]:
    if not differences:
        yield f"the two {what} are the same, byte for byte"
    for one in differences:
        yield f"{one.area} differs: {f'may: {one.reason}' if one.reason else 'MUST NOT'}"
        yield from (f"  {line}" for line in one.detail)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m appliance.image.compare", description=__doc__)
    parser.add_argument("first", type=Path, metavar="A")
    parser.add_argument("second", type=Path, metavar="B")
    args = parser.parse_args(argv)
    builds = args.first.is_dir() and args.second.is_dir()
    judge = compare_builds if builds else compare_packed
    try:
        found = judge(args.first, args.second, allowances())
    except ApplianceError as error:
        sys.stderr.write(f"{error.message}\n")
        return 1
    lines = told(found, "builds" if builds else "images")
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return 1 if any(not one.reason for one in found) else 0


if __name__ == "__main__":
    sys.exit(main())
