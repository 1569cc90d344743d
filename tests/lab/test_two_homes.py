"""The main job, end to end: real processes, real NATs, one YAML file each."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.netns, pytest.mark.usefixtures("lab"), pytest.mark.timeout(200)]

PROJECT = Path(__file__).parent.parent.parent
MIB = 1024 * 1024


def lab_run(scenario: str, *options: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "appliance", "lab", "run", scenario, "--json", *options],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    result: dict[str, Any] = json.loads(done.stdout)
    assert result["passed"], (result["reason"], result["log_tails"])
    assert done.returncode == 0
    return result


def times_of(result: dict[str, Any], who: str, event: str) -> list[float]:
    return [one["at_ms"] for one in result["events"] if (one["who"], one["event"]) == (who, event)]


@pytest.mark.parametrize("delay_ms", [0, 40])
def test_two_nodes_shake_hands_over_a_punched_connection(delay_ms: int) -> None:
    result = lab_run("two-homes", "--delay-ms", str(delay_ms))
    assert result["path"] == "direct"
    assert result["handshake"] == "ready"
    assert result["bytes"] == 16 * MIB
    assert result["intact"]
    assert result["time_to_direct_ms"] > delay_ms
    assert all(result["addresses"].values())
    assert result["stopped_cleanly"]
    for who in ("node-a", "node-b"):
        assert times_of(result, who, "kaspa_addresses")


def test_the_slot_recovers_when_the_far_node_restarts() -> None:
    result = lab_run("two-homes-restart")
    assert result["path"] == "direct"
    lost = times_of(result, "node-a", "kaspa_disconnected")[0]
    assert [at for at in times_of(result, "node-a", "kaspa_handshake") if at > lost]


def test_the_slot_waits_for_a_node_that_starts_late() -> None:
    result = lab_run("two-homes-late-node")
    assert result["path"] == "direct"
    assert result["handshake"] == "ready"


def test_a_relay_without_limits_carries_what_cannot_be_punched() -> None:
    result = lab_run("relayed")
    assert result["path"] == "relayed"
    assert result["handshake"] == "ready"
    assert result["time_to_direct_ms"] is None


def test_a_relay_with_the_usual_limits_refuses_early() -> None:
    result = lab_run("symmetric-refused")
    assert result["refused"] == "relay-limit-too-small"
    assert result["path"] is None
