"""`appliance identity DIR`: who a state directory's appliance is, before it ever ran."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from appliance.bridge.identity import KEY_FILE
from appliance.cli.main import main
from tests.app.processes import declaration, written


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["identity", *arguments]) == 0
    return capsys.readouterr().out.strip()


def test_the_key_is_made_once_and_for_its_owner_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = tmp_path / "deep" / "state"
    peer_id = shown(capsys, str(directory))
    assert peer_id.startswith("12D3KooW")
    key = directory / KEY_FILE
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    before = key.read_bytes()
    assert shown(capsys, str(directory)) == peer_id
    assert json.loads(shown(capsys, str(directory), "--json"))["peer_id"] == peer_id
    assert key.read_bytes() == before
    assert [path.name for path in directory.iterdir()] == [KEY_FILE]


def test_several_are_answered_in_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directories = [str(tmp_path / name) for name in ("b", "a")]
    peer_ids = shown(capsys, *directories).splitlines()
    assert len(set(peer_ids)) == 2
    assert [shown(capsys, directory) for directory in directories] == peer_ids
    listed = json.loads(shown(capsys, *directories, "--json"))["identities"]
    assert [entry["directory"] for entry in listed] == directories
    assert [entry["peer_id"] for entry in listed] == peer_ids


def test_a_directory_that_is_a_file_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "notes"
    file.write_text("mine")
    assert main(["identity", str(file)]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert str(file) in told.err
    assert file.read_text() == "mine"


def test_a_declaration_says_where_its_key_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = declaration(tmp_path, "box", identity={"key": str(tmp_path / "keys" / "box.key")})
    peer_id = shown(capsys, str(written(tmp_path, document)))
    key = tmp_path / "keys" / "box.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert shown(capsys, str(tmp_path / "box.yaml")) == peer_id
    key.rename(tmp_path / KEY_FILE)
    assert shown(capsys, str(tmp_path)) == peer_id
