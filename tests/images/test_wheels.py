"""The wheelhouse: what the lock becomes for the machine, and that its bytes do not drift."""

from __future__ import annotations

import json
import tarfile
import zipfile
from pathlib import Path

import pytest

from appliance.errors import ApplianceError
from appliance.image import wheels
from tests.house.tree import ROOT

HASH = "0" * 64


@pytest.mark.parametrize("arch", wheels.MACHINES)
def test_every_pin_is_taken_but_what_is_left_out(arch: str) -> None:
    pins = list(wheels.parse_lock((ROOT / "requirements.lock").read_text()))
    taken = {pin.name for pin in wheels.wanted(pins, arch)}
    assert {pin.name for pin in pins} - taken == set(wheels.LEFT_OUT)
    assert taken >= wheels.SOURCE_ONLY
    assert all(pin.hashes and pin.version for pin in pins)


def test_markers_are_judged_for_the_machine_and_not_for_this_python() -> None:
    lock = (
        f"windows==1 ; sys_platform == 'win32' \\\n    --hash=sha256:{HASH}\n"
        f"old==1 ; python_full_version < '3.13' --hash=sha256:{HASH}\n"
        f"pi==1 ; platform_machine == 'aarch64' --hash=sha256:{HASH}\n"
        f"all==1 \\\n    --hash=sha256:{HASH}\n    # via somebody\n"
    )
    pins = list(wheels.parse_lock(lock))
    assert [pin.name for pin in wheels.wanted(pins, "x86-64")] == ["all"]
    assert [pin.name for pin in wheels.wanted(pins, "arm64")] == ["pi", "all"]


def test_our_own_wheel_has_the_same_bytes_twice_and_everything_in_it(tmp_path: Path) -> None:
    first, second = (wheels.own_wheel(tmp_path / name) for name in ("a", "b"))
    assert first == second
    names = set(zipfile.ZipFile(tmp_path / "a" / first.file).namelist())
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "appliance").rglob("*.py")}
    assert modules <= names
    assert not [name for name in names if name.startswith(("tests", "build")) or "pycache" in name]


def test_a_house_is_filled_from_the_cache_and_listed_by_hash(tmp_path: Path) -> None:
    """As the second build of a machine: nothing is asked of a network."""
    project, cache = _project(tmp_path), tmp_path / "cache"
    pins = list(wheels.parse_lock((project / "requirements.lock").read_text()))
    place = cache / f"arm64-{wheels._digest_of_pins(pins)}"
    place.mkdir(parents=True)
    (place / "some-1-py3-none-any.whl").write_bytes(b"bytes")
    digest = wheels._sha256(place / "some-1-py3-none-any.whl")
    row = wheels.Wheel("some", "1", "some-1-py3-none-any.whl", digest, "locked")
    (place / "wheels.json").write_text(json.dumps([vars_of(row)]))

    out = tmp_path / "out"
    made = wheels.wheelhouse("arm64", out, cache=cache, project=project)
    assert [wheel.name for wheel in made] == ["kaspa-appliance", "some"]
    assert f"some==1 --hash=sha256:{digest}\n" in (out / "requirements.txt").read_text()
    with tarfile.open(out / wheels.BUNDLE) as bundle:
        assert set(bundle.getnames()) == {path.name for path in out.iterdir()} - {wheels.BUNDLE}

    (place / "some-1-py3-none-any.whl").write_bytes(b"other bytes")
    with pytest.raises(ApplianceError, match="its hash is wrong"):
        wheels.wheelhouse("arm64", out, cache=cache, project=project)


def test_a_directory_of_somebody_else_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "letter").write_text("dear")
    with pytest.raises(ApplianceError, match="something else than a wheelhouse"):
        wheels._replace(tmp_path)
    assert (tmp_path / "letter").exists()


def vars_of(wheel: wheels.Wheel) -> dict[str, str]:
    return {name: getattr(wheel, name) for name in wheel.__slots__}


def _project(tmp_path: Path) -> Path:
    """A clone with a lock of one line and our own sources."""
    project = tmp_path / "project"
    project.mkdir()
    for name in ("pyproject.toml", "README.md", "appliance"):
        (project / name).symlink_to(ROOT / name)
    (project / "requirements.lock").write_text(f"some==1 --hash=sha256:{HASH}\n")
    return project
