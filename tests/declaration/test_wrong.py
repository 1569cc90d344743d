"""Wrong declarations as data: each file in `wrong/` has beside it what its author must read.

`shape/` holds what the JSON Schema refuses too, `meaning/` what only the reader can know, `text/`
what is no bounded YAML. Both `validate` and `run` say the same, and begin nothing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from appliance.cli.main import main
from tests.declaration.test_faults import HEAD
from tests.declaration.test_load import ROOT

WRONG: Final = Path(__file__).parent / "wrong"
FILES: Final = sorted(WRONG.glob("*/*.yaml"))

# Too large to be kept as files.
GIANTS: Final = {
    "larger than a MiB": ("# " + "x" * 1024**2, "1:1: the file is larger than 1 MiB"),
    "a deep nest": ("[" * 100_000, "1:17: nested deeper than 16 levels"),
    "many values": ("a: [" + "1, " * 200_000 + "]", "1:60002: more than 20000 values in one file"),
    "many documents": ("--- {a: b}\n" * 9999, "33:1: more than 32 documents in one file"),
}


def everything_in(directory: Path) -> dict[str, tuple[int, bytes]]:
    """Mode and content of all that lies there."""
    return {
        str(path.relative_to(directory)): (
            path.lstat().st_mode,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in directory.rglob("*")
    }


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a state directory or a socket would appear."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    return tmp_path


def test_there_are_many_and_each_says_what_is_wrong() -> None:
    assert len(FILES) >= 60
    assert len({path.name for path in FILES}) == len(FILES)
    said = {path.with_suffix("") for path in WRONG.glob("*/*.txt")}
    assert said == {path.with_suffix("") for path in FILES}


@pytest.mark.parametrize("verb", ["validate", "run"])
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_wrong_file_is_refused_to_the_letter_and_nothing_is_begun(
    path: Path, verb: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(path, home)
    before = everything_in(home)
    assert main([verb, path.name]) == 1
    shown = capsys.readouterr()
    assert shown.err == path.with_suffix(".txt").read_text()
    assert not shown.out
    assert everything_in(home) == before


@pytest.mark.parametrize("verb", ["validate", "run"])
@pytest.mark.parametrize("name", GIANTS)
def test_a_giant_is_refused_before_it_is_understood(
    name: str, verb: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, expected = GIANTS[name]
    (home / "giant.yaml").write_text(text)
    assert main([verb, "giant.yaml"]) == 1
    assert capsys.readouterr().err == f"giant.yaml:{expected}\n"
    assert [path.name for path in home.iterdir()] == ["giant.yaml"]


@pytest.mark.parametrize(
    "name",
    [
        "shape/a-day-of-many-mistakes",
        "meaning/remote-without-a-place",
        "meaning/a-key-in-hex",
        "text/not-utf-8",
    ],
)
def test_the_program_itself_leaves_with_one(name: str, tmp_path: Path) -> None:
    path = WRONG / f"{name}.yaml"
    shutil.copy(path, tmp_path)
    before = everything_in(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "appliance", "run", path.name],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == path.with_suffix(".txt").read_text()
    assert everything_in(tmp_path) == before


def test_a_good_file_would_have_been_accepted(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else the tests above would only test that everything is refused."""
    (home / "box.yaml").write_text(HEAD)
    assert main(["validate", "box.yaml"]) == 0
    assert capsys.readouterr().out == "box.yaml: ok (box, mainnet)\n"
