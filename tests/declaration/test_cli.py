"""`appliance validate`, as a user types it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from appliance.cli.main import main
from tests.declaration.test_faults import HEAD
from tests.declaration.test_load import EXAMPLES

HOME_PI = """\
apiVersion: appliance/v1
kind: Appliance
metadata:
  name: home-pi
hardware:
  profile: raspberry-pi-4-4g
network: mainnet
node:
  kind: kaspad
bridge:
  relay_mode: sometimes
  drain: soon
"""


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_a_good_file_is_one_line(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", str(path)]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith(f"{path}: ok (")
    assert shown.out.count("\n") == 1
    assert not shown.err


def test_a_wrong_file_is_refused_whole_one_line_for_each_fault(tmp_path: Path) -> None:
    """The promise of the interface, to the letter."""
    (tmp_path / "home-pi.yaml").write_text(HOME_PI)
    done = subprocess.run(
        [sys.executable, "-m", "appliance", "validate", "home-pi.yaml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(Path(__file__).resolve().parents[2]), "HOME": str(tmp_path)},
    )
    assert done.returncode == 1
    assert not done.stdout
    assert done.stderr == (
        "home-pi.yaml:11:15: bridge.relay_mode: 'sometimes' is not one of auto, on, off\n"
        "home-pi.yaml:12:10: bridge.drain: 'soon' is not a number from 0 to 300\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["home-pi.yaml"]


@pytest.mark.parametrize("verb", ["validate", "plan"])
def test_what_cannot_be_read_is_one_sentence(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path, message in [
        (tmp_path / "none.yaml", "there is no such file"),
        (tmp_path, "is a directory, not a declaration"),
    ]:
        assert main([verb, str(path)]) == 1
        shown = capsys.readouterr()
        assert shown.err.startswith(f"appliance: {path}: {message}\n")
        assert not shown.out


def test_validating_stays_light(tmp_path: Path) -> None:
    """Neither libp2p (85 MB) nor a schema library is loaded to read a file."""
    (tmp_path / "box.yaml").write_text(HEAD)
    code = (
        "import sys; from appliance.cli.main import main; main(['validate', sys.argv[1]]); "
        "print([name for name in ('libp2p', 'jsonschema', 'trio') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "box.yaml")],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "[]"
