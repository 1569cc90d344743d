"""What a foreign root is lent leaves no trace in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.image.native import PLACE, Native
from appliance.image.targets import TARGETS

OTHERS = "/lib32\n/.lib32.usr-is-merged\nbase-files\n"


def put(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    root = tmp_path / "tools"
    put(
        root,
        {
            "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2": "loader",
            "usr/lib64/ld-linux-x86-64.so.2": "loader",
            "usr/bin/python3.13": "native",
            "usr/bin/dash": "native",
        },
    )
    (root / "usr/bin/python3").symlink_to("python3.13")
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    put(
        root,
        {
            "usr/bin/tar": "foreign",
            "usr/bin/dash": "foreign",
            "usr/bin/dpkg": "foreign",
            "usr/lib/apt/methods/http": "foreign",
            "etc/apt/apt.conf.d/01autoremove": "theirs",
            "var/lib/dpkg/diversions": OTHERS,
        },
    )
    return root


def everything(root: Path) -> dict[str, str]:
    """Every file and link below, and what is in it."""
    paths = [path for path in root.rglob("*") if path.is_symlink() or path.is_file()]
    return {
        str(path.relative_to(root)): str(path.readlink()) if path.is_symlink() else path.read_text()
        for path in paths
    }


def test_what_was_lent_is_taken_back_to_the_last_byte(tools: Path, root: Path) -> None:
    before = everything(root)
    with Native(tools, TARGETS["arm64"]).lent(root):
        assert (root / "usr/bin/tar").readlink() == Path(f"{PLACE}/usr/bin/tar")
        assert (root / "usr/bin/dash").read_text() == "native"
        assert (root / "usr/bin/dpkg").read_text() == "foreign"
        assert not (root / "usr/bin/python3.13").is_symlink()
        # A package that was installed meanwhile, an upgrade, and a diversion of its own.
        put(root, {"usr/bin/find.foreign": "installed", "usr/bin/tar.foreign": "newer"})
        with (root / "var/lib/dpkg/diversions").open("a") as file:
            file.write("/lib64\n/.lib64.usr-is-merged\nbase-files\n")
    changed = {
        "usr/bin/find": "installed",
        "usr/bin/tar": "newer",
        "var/lib/dpkg/diversions": OTHERS + "/lib64\n/.lib64.usr-is-merged\nbase-files\n",
    }
    assert everything(root) == before | changed
    assert not (root / "usr/lib64").exists()


def test_a_build_that_fails_meanwhile_leaves_nothing_lent(tools: Path, root: Path) -> None:
    before = everything(root)
    helper = Native(tools, TARGETS["arm64"], python=True)
    with pytest.raises(FileNotFoundError), helper.lent(root):
        (root / "usr/bin/python3.13.foreign").read_text()
    assert everything(root) == before
