"""The locks say what is installed, not from where."""

from __future__ import annotations

import json
import re

from tests.interop.peers import HERE


def test_no_lock_names_a_registry() -> None:
    for path in HERE.rglob("*"):
        if path.is_file() and path.suffix in {".json", ".in", ".sum", ".mod", ".toml"}:
            text = path.read_text()
            assert not re.search(
                r'"resolved"|^source = |registry\+|://registry', text, re.MULTILINE
            ), path


def test_everything_is_pinned_by_its_content() -> None:
    packages = json.loads((HERE / "js" / "package-lock.json").read_text())["packages"]
    assert [name for name, item in packages.items() if "integrity" not in item] == [""]
    crates = (HERE / "rust" / "Cargo.lock.in").read_text().split("[[package]]")[1:]
    without = [crate for crate in crates if "\nchecksum = " not in crate]
    assert len(without) == 1 and 'name = "interop-peer"' in without[0]
