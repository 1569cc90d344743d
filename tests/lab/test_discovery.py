"""Eight appliances know one public peer: relays and private peers are found by gossip alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.lab.test_two_homes import lab_run, times_of

pytestmark = [pytest.mark.netns, pytest.mark.usefixtures("lab"), pytest.mark.timeout(120)]

HOMES = {"home-a", "home-b", "home-c", "home-d"}
RELAYS = {"relay-1", "relay-2", "relay-3", "relay-4"}


def test_homes_that_know_one_peer_find_relays_and_each_other(tmp_path: Path) -> None:
    result = lab_run("discovery", "--keep-logs", str(tmp_path))
    ids = {node["name"]: node["peer_id"] for node in result["nodes"]}
    assert set(ids) == HOMES | RELAYS

    # What they were told: one peer, and of nobody else even the id.
    for who in ids:
        text = (tmp_path / f"{who}.yaml").read_text(encoding="utf-8")
        file = yaml.safe_load(text)
        assert not file["bridge"].get("relays") and not file["bridge"].get("peers")
        assert not file["node"].get("addpeer") and not file["node"].get("connect")
        [peer] = file["node"].get("peers", []) or [None]
        assert (peer is None) == (who == "relay-1")
        assert text.count("/p2p/") == text.count("/ip4/") == (0 if peer is None else 1)
        assert {name for name, peer_id in ids.items() if peer_id in text} <= {"relay-1"}

    # What they found.
    assert set(result["reservations"]) == HOMES
    for held in result["reservations"].values():
        assert len(held) >= 3
        assert set(held) <= RELAYS
    assert result["meetings"]
    met = {one[side] for one in result["meetings"] for side in ("dialler", "dialled")}
    assert met == HOMES
    for one in result["meetings"]:
        assert one["dialler"] != one["dialled"]
        assert one["relay"] in RELAYS
    assert (result["path"], result["handshake"]) == ("direct", "ready")
    assert result["time_to_direct_ms"] > 0
    assert all(result["addresses"][home] for home in HOMES)
    assert result["bytes"] > 0
    assert result["stopped_cleanly"]

    [began], [done] = times_of(result, "lab", "first_start"), times_of(result, "lab", "all_found")
    assert 0 < result["found_after_ms"] == pytest.approx(done - began, abs=0.2)
    assert result["found_after_ms"] < 60_000
