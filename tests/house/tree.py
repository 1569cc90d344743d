"""What the house tests look at: the project's files and their parsed imports."""

from __future__ import annotations

import ast
import functools
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
PACKAGE: Final = ROOT / "appliance"


@functools.cache
def files() -> tuple[Path, ...]:
    """Every file that is, or could be, in a commit: tracked, or new and not ignored."""
    listed = subprocess.run(
        [
            "git",
            "-c",
            "safe.directory=*",
            "-C",
            ROOT,
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ],
        capture_output=True,
        check=True,
    )
    paths = (ROOT / name for name in sorted(set(listed.stdout.decode().split("\0"))) if name)
    return tuple(path for path in paths if path.is_file())


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def modules() -> list[Path]:
    """The package's hand-written modules; generated protobuf code is left out."""
    return [path for path in sorted(PACKAGE.rglob("*.py")) if not path.stem.endswith("_pb2")]


@dataclass(frozen=True)
class Import:
    """One imported module, by its full dotted name, and the line that names it."""

    name: str
    line: int


def imports(tree: ast.Module) -> list[Import]:
    """Every import in `tree`, also inside functions and under TYPE_CHECKING.

    `from appliance import units` counts as `appliance.units`; relative imports are forbidden by
    the linter and are not resolved.
    """
    found: list[Import] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [Import(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            if node.module != "appliance" or all(name.endswith("__") for name in names):
                names = [node.module]
            found += [Import(name, node.lineno) for name in names]
    return found
