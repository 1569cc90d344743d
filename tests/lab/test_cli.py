"""`appliance lab` as typed by a user."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from appliance.cli.main import main
from appliance.errors import ApplianceError
from appliance.lab import topology

PROJECT = Path(__file__).parent.parent.parent


def test_list_names_every_scenario_with_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lab", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("two-homes ")
    assert main(["lab", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["scenarios"]
    assert [line.split()[0] for line in lines] == [one["name"] for one in listed]


def test_an_unknown_scenario_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lab", "run", "three-homes"]) == 1
    said = capsys.readouterr().err
    assert said == (
        "appliance: there is no scenario 'three-homes'\nhint: `appliance lab list` shows them\n"
    )


@pytest.mark.parametrize(
    "wrong",
    [["--delay-ms", "201"], ["--delay-ms", "-1"], ["--runs", "0"], ["--runs", "x"], ["--x"]],
)
def test_wrong_usage_is_exit_code_2(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["lab", "run", "two-homes", *wrong])
    assert caught.value.code == 2
    assert wrong[0] in capsys.readouterr().err


def test_logs_that_cannot_be_kept_are_said_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert main(["lab", "run", "two-homes", "--keep-logs", str(tmp_path / "file" / "logs")]) == 1
    assert "cannot make the directory" in capsys.readouterr().err


@pytest.mark.netns
@pytest.mark.usefixtures("lab")
def test_ctrl_c_ends_a_run_at_once_and_quietly() -> None:
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from appliance.cli.main import entry; entry()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, "lab", "run", "two-homes"],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        while "identities" not in (line := process.stdout.readline()):
            assert line, "it ended by itself"
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, said = process.communicate(timeout=5)
    assert process.returncode == 130
    assert said == ""


def test_a_missing_tool_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(topology, "_SBIN", ())
    with pytest.raises(ApplianceError, match="needs the command nft") as caught:
        topology.find_tool("nft")
    assert caught.value.hint == "install the package nftables"


@pytest.mark.netns
@pytest.mark.skipif(os.geteuid() != 0, reason="only root has capabilities to give up")
def test_where_namespaces_are_forbidden_it_says_so() -> None:
    """Root without capabilities may map nobody (user_namespaces(7), CAP_SETFCAP)."""
    without = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    done = subprocess.run(
        [*without, sys.executable, "-m", "appliance", "lab", "run", "two-homes", "--json"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert "does not let us make user namespaces" in done.stderr
    assert "Traceback" not in done.stderr
