"""Two builds compared: what differs is named down to the file, and judged by the register."""

from __future__ import annotations

import os
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.errors import ApplianceError
from appliance.image.build import build
from appliance.image.cache import default
from appliance.image.compare import allowances, compare, compare_builds, main, told
from tests.images.conftest import request
from tests.images.disks import MIB, pack

# A disk with one of each file system that an image has.
_TABLE = """\
label: gpt
label-id: 11111111-1111-1111-1111-111111111111
size=4MiB, name=setup, uuid=22222222-2222-2222-2222-222222222222
size=4MiB, name=root, uuid=33333333-3333-3333-3333-333333333333
size=4MiB, name=data, uuid=44444444-4444-4444-4444-444444444444
"""
_STARTS = {"setup": 1 * MIB, "root": 5 * MIB, "data": 9 * MIB}
_SEED = "55555555-5555-5555-5555-555555555555"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """What every file system of the disk holds."""
    place = tmp_path / "tree"
    (place / "etc").mkdir(parents=True)
    (place / "etc/hosts").write_text("127.0.0.1 localhost\n")
    (place / "etc/motd").write_text("hello\n")
    (place / "hosts").symlink_to("etc/hosts")
    return place


def disk(image: Path, tree: Path, *, read: int = 1) -> Path:
    """An image of one date, whatever the clock says and whenever the tree was `read` last."""
    for path in (tree, *tree.rglob("*")):
        os.utime(path, (read, 1), follow_symlinks=False)
    systems = {name: image.with_name(f"{image.name}.{name}") for name in _STARTS}
    for path in systems.values():
        path.unlink(missing_ok=True)
        with path.open("wb") as file:
            file.truncate(4 * MIB)
    env = {**os.environ, "E2FSPROGS_FAKE_TIME": "1", "PATH": f"{os.environ['PATH']}:/usr/sbin"}
    setup, root, data = systems["setup"], systems["root"], systems["data"]
    commands: tuple[list[str | Path], ...] = (
        ["mkfs.vfat", "-i", "12345678", "--invariant", setup],
        ["mcopy", "-s", "-m", "-i", setup, tree / "etc", "::/"],
        ["mkfs.erofs", "-T1", f"-U{_SEED}", root, tree],
        ["mkfs.ext4", "-q", "-U", _SEED, "-E", f"hash_seed={_SEED}", "-d", tree, data],
    )
    for command in commands:
        subprocess.run(command, check=True, capture_output=True, env=env)
    # mkfs.ext4 takes over when a file was last read and last changed, whatever date it is told.
    inside = ["/", *(f"/{path.relative_to(tree)}" for path in sorted(tree.rglob("*")))]
    dates = "".join(f"sif {path} atime @1\nsif {path} ctime @1\n" for path in inside)
    redate = ["debugfs", "-w", "-f", "-", str(data)]
    subprocess.run(redate, input=dates.encode(), check=True, capture_output=True, env=env)
    with image.open("wb") as file:
        file.truncate(14 * MIB)
    subprocess.run(["sfdisk", "--quiet", image], input=_TABLE.encode(), check=True)
    with image.open("r+b") as file:
        for name, start in _STARTS.items():
            file.seek(start)
            file.write(systems[name].read_bytes())
            systems[name].unlink()
    return image


@pytest.fixture
def first(tmp_path: Path, tree: Path) -> Path:
    return disk(tmp_path / "first.img", tree)


def told_of(first: Path, second: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    assert main([str(first), str(second)]) == 1
    return capsys.readouterr().out.splitlines()


def test_a_second_build_of_the_same_is_the_same(
    tmp_path: Path, tree: Path, first: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    second = disk(tmp_path / "second.img", tree, read=2**31)
    assert main([str(first), str(second)]) == 0
    assert capsys.readouterr().out == "the two images are the same, byte for byte\n"


def test_a_file_of_another_content_is_named_in_each_file_system(
    tmp_path: Path, tree: Path, first: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tree / "etc/motd").write_text("later\n")
    lines = told_of(first, disk(tmp_path / "second.img", tree), capsys)
    wrong = [f"{name} differs: MUST NOT" for name in _STARTS]
    assert lines == [line for area in wrong for line in (area, "  /etc/motd: content")]


def test_what_a_file_is_counts_too(
    tmp_path: Path, tree: Path, first: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tree / "etc/hosts").chmod(0o600)
    (tree / "etc/motd").rename(tree / "etc/issue")
    lines = told_of(first, disk(tmp_path / "second.img", tree), capsys)
    assert lines[lines.index("root differs: MUST NOT") + 1 :][:3] == [
        "  /etc/hosts: mode 0644 and 0600",
        "  /etc/issue: only in the second",
        "  /etc/motd: only in the first",
    ]


def test_a_partition_of_no_known_kind_is_told_by_its_bytes(
    tmp_path: Path, first: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    second = tmp_path / "second.img"
    second.write_bytes(first.read_bytes())
    for image in (first, second):
        with image.open("r+b") as file:
            file.seek(_STARTS["root"])
            file.write(bytes(4 * MIB - 1) + (b"x" if image == second else b"y"))
    assert told_of(first, second, capsys) == [
        "root differs: MUST NOT",
        f"  the bytes from {4 * MIB - 1} on",
    ]


def test_what_only_the_file_system_knows_is_told_as_that(
    tmp_path: Path, tree: Path, first: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    second = tmp_path / "second.img"
    second.write_bytes(first.read_bytes())
    with second.open("r+b") as file:
        file.seek(_STARTS["setup"] + 39)  # the volume's number
        file.write(b"zzzz")
    assert told_of(first, second, capsys) == [
        "setup differs: MUST NOT",
        "  its files are the same, what the file system notes beside them is not",
        "  the bytes from 39 on",
    ]


def test_a_difference_with_a_reason_is_allowed(tmp_path: Path, tree: Path, first: Path) -> None:
    (tree / "etc/motd").write_text("later\n")
    found = compare(first, disk(tmp_path / "second.img", tree), {"data": "holds a clock"})
    lines = list(told(found))
    assert "root differs: MUST NOT" in lines
    assert "data differs: may: holds a clock" in lines


def test_an_allowed_difference_needs_a_reason(tmp_path: Path) -> None:
    register = tmp_path / "register.yaml"
    register.write_text("differences:\n- area: esp\n")
    with pytest.raises(ApplianceError, match="esp has no reason"):
        allowances(register)
    assert all(allowances().values())


def test_what_stands_beside_the_image_is_compared_too(
    tmp_path: Path, first: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packed = pack(first)
    one, two = tmp_path / "one", tmp_path / "two"
    for place, kernel in ((one, "6.12.1"), (two, "6.12.2")):
        place.mkdir()
        (place / packed.name).write_bytes(packed.read_bytes())
        (place / "manifest.json").write_text(f'{{\n  "kernel": "{kernel}"\n}}\n')
    assert told_of(one, two, capsys) == [
        "manifest.json differs: MUST NOT",
        '  line 2: "kernel": "6.12.1" and "kernel": "6.12.2"',
    ]
    (two / "manifest.json").write_bytes((one / "manifest.json").read_bytes())
    assert main([str(one), str(two)]) == 0
    assert capsys.readouterr().out == "the two builds are the same, byte for byte\n"


@pytest.mark.slow
@pytest.mark.timeout(5400)
def test_two_builds_are_the_same() -> None:
    """They share nothing: packages, wheels' venv and root are made anew for each."""
    kept = default()
    kept.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept, prefix=".twice-") as name:
        place = Path(name)
        one = replace(request("public-relay", "x86-64", place / "one"), cache=place / "one-cache")
        other = replace(one, out=place / "other", cache=place / "other-cache")
        build(one)
        build(other)
        assert list(told(compare_builds(one.out, other.out, allowances()), "builds")) == [
            "the two builds are the same, byte for byte"
        ]
