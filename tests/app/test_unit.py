"""What the unit of a machine tells the daemon by its environment."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from appliance.cli.main import main
from appliance.declaration import loads

HEAD = "apiVersion: appliance/v1\nkind: Appliance\nmetadata: {name: box}\n"
UNIT = {
    "STATE_DIRECTORY": "/var/lib/appliance",
    "RUNTIME_DIRECTORY": "/run/appliance:/run/other",
    "APPLIANCE_CONTROL_GROUP": "operators",
}


@pytest.mark.parametrize("state", ["", "state: {dir: .state/box}\n"])
def test_a_unit_says_where_the_control_socket_is_and_whose(state: str) -> None:
    """Nobody but the daemon's user gets into a state directory, wherever that is."""
    control = loads(HEAD + state, environ=UNIT).control
    assert (str(control.socket), control.group) == ("/run/appliance/control.sock", "operators")


def test_the_declaration_has_the_last_word() -> None:
    said = "control: {socket: /srv/control.sock, group: staff}\n"
    control = loads(HEAD + said, environ=UNIT).control
    assert (str(control.socket), control.group) == ("/srv/control.sock", "staff")


def test_without_a_unit_it_stays_with_the_state() -> None:
    control = loads(HEAD + "state: {dir: /srv/box}\n", environ={}).control
    assert (str(control.socket), control.group) == ("/srv/box/control.sock", None)


def planned(path: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    assert main(["plan", str(path), "--json"]) == 0
    document: dict[str, object] = json.loads(capsys.readouterr().out)
    return document


def test_the_hardware_is_what_was_found_before_limits_held(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else every plan made under the limits of the last one would be smaller."""
    path, record = tmp_path / "box.yaml", tmp_path / "hardware.json"
    path.write_text(HEAD + "hardware: {profile: x86-medium}\nnode: {kind: embedded}\n")
    before = planned(path, capsys)
    record.write_text(json.dumps(before["profile"]))
    path.write_text(HEAD + "node: {kind: embedded}\n")
    monkeypatch.setenv("APPLIANCE_HARDWARE", str(record))
    assert planned(path, capsys) == before


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"name": 1}'])
def test_a_record_that_is_none_is_refused_with_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    path, record = tmp_path / "box.yaml", tmp_path / "hardware.json"
    path.write_text(HEAD)
    record.write_text(text)
    monkeypatch.setenv("APPLIANCE_HARDWARE", str(record))
    assert main(["plan", str(path)]) == 1
    assert f"{record}, named by APPLIANCE_HARDWARE, is no hardware profile" in (
        capsys.readouterr().err
    )


def test_a_declaration_can_come_on_standard_input(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(f"{HEAD}mode: x\n".encode())))
    assert main(["validate", "-"]) == 1
    assert capsys.readouterr().err.startswith("<stdin>:4:1: mode: ")
