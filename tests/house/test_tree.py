"""What must not get into a commit, and what must stay readable."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.house.tree import ROOT, files

LARGEST: Final = 400_000  # bytes; the locks are the largest files that have a reason
LONGEST: Final = 500  # lines of a module; beyond that it holds two subjects

LOCKS: Final = sorted(ROOT.glob("requirements*.lock"))


def texts() -> list[tuple[Path, str]]:
    found = []
    for path in files():
        try:
            found.append((path, path.read_text(encoding="utf-8")))
        except UnicodeDecodeError:
            continue
    return found


def test_no_file_is_large() -> None:
    large = {str(path.relative_to(ROOT)): path.stat().st_size for path in files()}
    assert not {name: size for name, size in large.items() if size > LARGEST}


def test_no_module_is_long() -> None:
    long = {
        str(path.relative_to(ROOT)): text.count("\n")
        for path, text in texts()
        if path.suffix == ".py" and not path.stem.endswith("_pb2")
    }
    assert not {name: lines for name, lines in long.items() if lines > LONGEST}


def test_no_file_names_a_place_of_this_machine() -> None:
    """Where this clone and a privately built Python lie concerns nobody else."""
    private = {place for place in (ROOT, Path(sys.base_prefix)) if len(place.parts) > 2}
    found = [
        f"{path.relative_to(ROOT)}: {place}"
        for path, text in texts()
        for place in private
        if f"{place}/" in text or f"{place}\n" in text
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_locks_name_no_index_and_hash_everything(lock: Path) -> None:
    text = lock.read_text()
    assert "://" not in text
    assert set(re.findall(r"(?m)^\s*(-\S*?)(?==|\s|$)", text)) == {"--hash"}
    pins = re.split(r"\n(?=[a-z0-9])", re.sub(r"(?m)^\s*#.*\n", "", text).strip())
    assert pins
    assert not [pin.split()[0] for pin in pins if "==" not in pin or "--hash=sha256:" not in pin]


def test_the_locks_agree() -> None:
    """One version of each package, whichever lock it is installed from."""
    pinned: dict[str, set[str]] = {}
    for lock in LOCKS:
        for name, version in re.findall(r"^([\w.-]+)==(\S+)", lock.read_text(), re.MULTILINE):
            pinned.setdefault(name, set()).add(version)
    assert not {name: versions for name, versions in pinned.items() if len(versions) > 1}
