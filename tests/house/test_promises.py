"""What the READMEs promise exists, and what is declared is used."""

from __future__ import annotations

import ast
import dataclasses
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any, Final

import pytest

from appliance.cli.main import VERBS
from appliance.declaration import loads
from appliance.declaration.model import (
    BridgeSpec,
    CapsSpec,
    ControlSpec,
    IdentitySpec,
    LogSpec,
    NodeSpec,
    RelaySpec,
)
from appliance.declaration.wishes import wishes
from appliance.reasons import Reason
from appliance.sizing import CATALOGUE, plan
from appliance.sizing.model import Caps
from tests.house.tree import PACKAGE, ROOT, files, imports, modules, parsed

README: Final = ROOT / "README.md"

# Declared ahead of the code that will give or read them. These lists may only shrink.
NOT_YET_READ: Final = frozenset({"outbound_direct"})  # the node's own; told to kaspad in time

# Documents whose every field must have a reader outside the room that defines it.
LIMITS: Final[list[tuple[Any, str]]] = [
    (Caps, "sizing"),
    (NodeSpec, "declaration"),
    (BridgeSpec, "declaration"),
    (RelaySpec, "declaration"),
    (IdentitySpec, "declaration"),
    (ControlSpec, "declaration"),
    (LogSpec, "declaration"),
]
# What hands fields on to another room, and so counts as that room.
HANDS_ON: Final = PACKAGE / "declaration" / "wishes.py"


def attributes_read(paths: list[Path]) -> set[str]:
    """Names that are read as `something.name` anywhere in `paths`."""
    return {
        node.attr
        for path in paths
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
    }


def test_every_reason_is_given_somewhere() -> None:
    read = attributes_read([path for path in modules() if path.name != "reasons.py"])
    unused = {reason.name for reason in Reason if reason.name not in read}
    assert not unused


@pytest.mark.parametrize(("kind", "room"), LIMITS, ids=lambda value: getattr(value, "__name__", ""))
def test_every_setting_and_cap_is_read_outside_its_room(kind: Any, room: str) -> None:
    """A limit that nobody reads limits nothing."""
    outside = [path for path in modules() if path.parent.name != room or path == HANDS_ON]
    read = attributes_read(outside)
    unread = {field.name for field in dataclasses.fields(kind) if field.name not in read}
    assert not unread - NOT_YET_READ


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(CapsSpec)])
def test_a_cap_that_is_set_by_hand_is_the_plan_s(name: str) -> None:
    value = 4096 if "bytes" in name else 2
    text = (
        "apiVersion: appliance/v1\nkind: Appliance\nmetadata: {name: box}\n"
        f"caps: {{{name}: {value}}}\n"
    )
    found = plan(CATALOGUE["x86-large"], wishes(loads(text)))
    assert getattr(found.caps, name) == value


def test_make_targets_in_the_readmes_exist() -> None:
    made = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = {
        (path.relative_to(ROOT), target)
        for path in files()
        if path.suffix == ".md"
        for target in re.findall(r"(?:`|^ {4})make ([a-z]+)", path.read_text(), flags=re.MULTILINE)
    }
    assert named
    assert not {(str(path), target) for path, target in named if target not in made}


def test_verbs_in_the_readme_exist() -> None:
    named = set(re.findall(r"`(?:\.venv/bin/)?appliance ([a-z]+)", README.read_text()))
    assert named
    assert named <= set(VERBS)


def test_every_verb_has_its_module() -> None:
    missing = [verb for verb in VERBS if not (PACKAGE / "cli" / f"{verb}.py").is_file()]
    assert not missing


def test_links_in_the_readmes_lead_somewhere() -> None:
    broken = [
        f"{path.relative_to(ROOT)}: {link}"
        for path in files()
        if path.suffix == ".md"
        for link in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", path.read_text())
        if not (path.parent / link).exists()
    ]
    assert not broken, "\n".join(broken)


def test_every_top_level_folder_says_what_it_is() -> None:
    folders = {path.relative_to(ROOT).parts[0] for path in files() if path.parent != ROOT}
    silent = {name for name in folders if not name.startswith(".")} - {
        path.parent.name for path in ROOT.glob("*/README.md")
    }
    assert not silent


@pytest.mark.parametrize("folder", ["roles", "images", "playbooks", "schemas", "proto", "docs"])
def test_the_promised_folders_stand(folder: str) -> None:
    assert (ROOT / folder / "README.md").read_text().strip()


def test_what_is_imported_is_a_declared_dependency() -> None:
    """A library that only comes along with another one may be gone with the next lock."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {re.split(r"[^\w.-]", text)[0].lower() for text in project["dependencies"]}
    providers = packages_distributions()
    undeclared = set()
    for path in modules():
        for target in imports(parsed(path)):
            head = target.name.split(".")[0]
            if head == "appliance" or head in sys.stdlib_module_names:
                continue
            names = {name.lower().replace("_", "-") for name in providers.get(head, [head])}
            if head != "google" and not names & declared:
                undeclared.add(f"{path.relative_to(ROOT)}: {target.name}")
    assert not undeclared
