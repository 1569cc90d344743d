"""The sockets of a machine, as `plan --json` tells them to a packet filter."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from appliance.cli.main import main
from tests.house.tree import ROOT

HEAD = "apiVersion: appliance/v1\nkind: Appliance\nmetadata: {name: box}\n"
PROFILE = "hardware: {profile: x86-medium}\n"


def told(path: Path, capsys: pytest.CaptureFixture[str]) -> set[tuple[str, str, int, str]]:
    assert main(["plan", str(path), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["listeners"]
    assert all(row["transport"] == "tcp" for row in rows)
    return {(row["owner"], row["address"], row["port"], row["exposure"]) for row in rows}


def test_only_what_is_declared_so_is_public(capsys: pytest.CaptureFixture[str]) -> None:
    found = told(ROOT / "schemas/examples/public-relay.yaml", capsys)
    assert {row for row in found if row[3] != "loopback"} == {
        ("bridge", "0.0.0.0", 16112, "public"),
    }
    assert ("kaspad", "127.0.0.1", 16111, "loopback") in found
    assert ("kaspad-rpc", "127.0.0.1", 16110, "loopback") in found
    assert ("metrics", "127.0.0.1", 9464, "loopback") in found


def test_slots_for_peers_that_are_found_count(capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody wrote them down, and the kaspad of another machine has to reach them."""
    found = told(ROOT / "schemas/examples/router.yaml", capsys)
    slots = {row for row in found if row[0] == "slots"}
    assert slots == {("slots", "192.168.1.1", 16120 + index, "lan") for index in range(8)}
    assert not {row for row in found if row[0].startswith("kaspad")}  # it is not on this machine


def test_addresses_say_who_reaches_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "box.yaml"
    listen = '["[::]:16112", "8.8.8.8:16113", "10.0.0.2:16114", "[fe80::1]:16115", "[::1]:16116"]'
    path.write_text(HEAD + PROFILE + f"bridge: {{listen: {listen}}}\n")
    exposures = {row[2]: row[3] for row in told(path, capsys) if row[0] == "bridge"}
    assert exposures == {
        16112: "public",
        16113: "public",
        16114: "lan",
        16115: "lan",
        16116: "loopback",
    }


def test_a_port_that_nobody_knows_yet_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "box.yaml"
    path.write_text(HEAD + PROFILE + 'metrics: {listen: "127.0.0.1:0"}\n')
    assert "metrics" not in {row[0] for row in told(path, capsys)}
