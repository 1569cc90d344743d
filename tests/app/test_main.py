"""The command line's outermost layer: exit codes, and never a traceback that nobody asked for."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from appliance.cli.main import main
from appliance.errors import ApplianceError
from tests.app.processes import environment


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The verb `profiles` with another body, which the test gives it as `run`."""
    module = SimpleNamespace(HELP="", add_arguments=lambda _: None, run=lambda _: 0)
    monkeypatch.setitem(sys.modules, "appliance.cli.profiles", module)
    return module


def raising(error: BaseException) -> object:
    def run(args: argparse.Namespace) -> int:
        raise error

    return run


def test_what_the_operator_must_know_is_one_sentence_and_a_hint(
    verb: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    verb.run = raising(ApplianceError("the disk is full", hint="make room"))
    assert main(["profiles"]) == 1
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", "appliance: the disk is full\nhint: make room\n")


@pytest.mark.parametrize(
    "error",
    [
        KeyError("surprise"),
        ExceptionGroup("several", [ExceptionGroup("inner", [KeyError("surprise")])]),
    ],
)
def test_a_bug_is_one_sentence_too(
    error: Exception, verb: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    verb.run = raising(error)
    assert main(["profiles"]) == 1
    sentence, hint = capsys.readouterr().err.splitlines()
    assert sentence.startswith("appliance: ") and "KeyError: 'surprise'" in sentence
    assert "--debug" in hint


def test_debug_shows_the_traceback(verb: SimpleNamespace) -> None:
    verb.run = raising(KeyError("surprise"))
    for arguments in (["--debug", "profiles"], ["profiles", "--debug"]):
        with pytest.raises(KeyError):
            main(arguments)


def test_ctrl_c_is_no_failure(verb: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    verb.run = raising(KeyboardInterrupt())
    assert main(["profiles"]) == 130
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("arguments", [[], ["dance"], ["run"], ["profiles", "--dance"]])
def test_wrong_usage_is_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_a_reader_that_goes_away_is_not_our_error(tmp_path: Path) -> None:
    """`appliance profiles | true`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "appliance", "profiles"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=environment(tmp_path),
    )
    assert process.stdout is not None
    process.stdout.close()
    _, told = process.communicate(timeout=30)
    assert (process.returncode, told) == (0, "")
