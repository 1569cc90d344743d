"""`appliance diff OLD NEW`: what the operator reads before they change something."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from appliance.bridge.identity import Identity
from appliance.cli.main import main

VERSIONS = Path(__file__).parents[1] / "declaration" / "versions"
RELAY = f"/ip4/198.51.100.20/tcp/16112/p2p/{Identity.generate().peer_id}"
PEERS = [Identity.generate().peer_id for _ in range(3)]

HEAD = "apiVersion: appliance/v1\nkind: Appliance\nmetadata: {name: box}\n"
BOARD = """\
hardware:
  profile:
    architecture: aarch64
    cores: 4
    memory_bytes: 8589934592
    link_bytes_per_second: 5000000
    nofile: 65536
"""
BASE = (
    HEAD
    + BOARD
    + f"bridge: {{relays: [{RELAY}], peers: [{PEERS[0]}, {PEERS[1]}]}}\n"
    + "state: {dir: /var/lib/box}\n"
)


class Differ:
    """Two texts → what the command prints."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._directory, self._capsys = directory, capsys

    def __call__(self, old: str, new: str, *flags: str, code: int = 0) -> str:
        paths = [self._directory / name for name in ("old.yaml", "new.yaml")]
        for path, text in zip(paths, (old, new), strict=True):
            path.write_text(text)
        assert main(["diff", *map(str, paths), *flags]) == code
        shown = self._capsys.readouterr()
        self.errors = shown.err
        return shown.out

    def document(self, old: str, new: str, *flags: str, code: int = 0) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self(old, new, "--json", *flags, code=code))
        assert found["schema"] == "appliance.diff/v1"
        return found


@pytest.fixture
def differ(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Differ:
    return Differ(tmp_path, capsys)


def tasks(document: dict[str, Any]) -> list[str]:
    return [task["what"] for task in document["apply"]]


def test_the_same_in_other_words_is_no_difference(differ: Differ) -> None:
    other = BASE.replace("{name: box}", "\n  name: box # ours") + "log: {level: info}\n"
    assert differ(BASE, other) == "no difference\n"
    document = differ.document(BASE, other)
    assert document["equal"]
    assert not any(document[part] for part in ("settings", "peers", "budgets", "apply"))


@pytest.mark.parametrize("name", ["home-pi", "everything", "lab"])
def test_a_migrated_file_is_no_difference(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = (str(VERSIONS / f"{name}.{version}.yaml") for version in ("v1alpha1", "v1"))
    # Planned for a machine where all of them fit.
    assert main(["diff", old, new, "--profile", "x86-large"]) == 0
    assert capsys.readouterr().out == "no difference\n"


def test_a_setting_that_only_the_daemon_reads_takes_a_restart(differ: Differ) -> None:
    text = differ(BASE, BASE + "log: {level: debug}\n")
    assert text == "settings\n  log.level: info → debug\nto apply it\n  - restart the appliance\n"


def test_sockets_are_opened_and_closed(differ: Differ) -> None:
    new = BASE.replace("bridge: {", 'bridge: {listen: ["0.0.0.0:16112", "[::]:4001"], ')
    document = differ.document(BASE, new + "metrics: {listen: off}\n")
    ports = {
        part: [(socket["path"], socket["endpoint"]) for socket in sockets]
        for part, sockets in document["ports"].items()
    }
    assert ports == {
        "opened": [("bridge.listen[1]", "[::]:4001")],
        "closed": [("metrics.listen", "127.0.0.1:9464")],
    }


def test_peers_come_and_go_and_their_slots_with_them(differ: Differ) -> None:
    new = (
        BASE.replace(PEERS[0], PEERS[2])
        .replace(RELAY, "")
        .replace(PEERS[1], f"{RELAY}/p2p-circuit/p2p/{PEERS[1]}")
        .replace(PEERS[2] + ",", f"{RELAY}/p2p-circuit/p2p/{PEERS[2]},")
    )
    document = differ.document(BASE, new)
    changes = {peers["path"]: peers for peers in document["peers"]}
    assert changes["bridge.relays"]["removed"] == [RELAY]
    assert changes["bridge.peers"]["removed"] == PEERS[:2]
    assert changes["bridge.peers"]["added"] == [
        f"{RELAY}/p2p-circuit/p2p/{peer}" for peer in (PEERS[2], PEERS[1])
    ]
    # The second peer keeps its slot; only the way to it has changed.
    opened = [socket["owner"] for socket in document["ports"]["opened"]]
    assert opened == [f"the slot of {PEERS[2]}"]
    assert any("--addpeer=127.0.0.1:16120 --addpeer=127.0.0.1:16121" in t for t in tasks(document))


def test_budgets_that_change_say_why_when_something_else_binds(differ: Differ) -> None:
    small = BASE.replace("8589934592", "4294967296")
    document = differ.document(
        BASE, small.replace("bridge: {", "bridge: {private_inbound_target: 3, ")
    )
    paths = [setting["path"] for setting in document["settings"]]
    assert paths == ["hardware.profile.memory_bytes", "bridge.private_inbound_target"]
    numbers = {(number["group"], number["name"]): number for number in document["budgets"]}
    inbound = numbers["caps", "inbound_private"]
    assert (inbound["old"], inbound["new"], inbound["because"]) == (8, 3, "the declaration's wish")
    memory = numbers["unit", "MemoryMax"]
    assert memory["new"] < memory["old"] and memory["because"] is None
    assert any("limits" in task for task in tasks(document))
    assert tasks(document)[-1] == "restart the appliance"


def test_a_machine_s_name_alone_takes_nothing(differ: Differ) -> None:
    new = BASE.replace("architecture: aarch64", "architecture: riscv64")
    document = differ.document(BASE, new)
    assert [setting["path"] for setting in document["settings"]] == [
        "hardware.profile.architecture"
    ]
    assert document["apply"] == []
    assert differ(BASE, new).endswith("to apply it\n  nothing\n")


def test_state_that_moves_is_told_of(differ: Differ) -> None:
    document = differ.document(BASE, BASE.replace("/var/lib/box", "/srv/box"))
    first = tasks(document)[0]
    assert first.startswith("move /var/lib/box to /srv/box, or")
    assert "stranger" in first
    document = differ.document(BASE, BASE + "network: testnet-10\n")
    assert "move /var/lib/box/addresses away: it is mainnet's" in tasks(document)


def test_of_a_secret_only_the_path_is_shown(differ: Differ, tmp_path: Path) -> None:
    key = tmp_path / "other.key"
    key.write_text("the secret itself")
    key.chmod(0o600)
    text = differ(BASE, BASE + f"identity: {{key: {key}}}\n")
    assert f"identity.key: /var/lib/box/identity.key → {key}" in text
    assert "the secret itself" not in text


def test_what_is_not_feasible_is_refused_after_what_can_be_said(differ: Differ) -> None:
    greedy = BASE.replace("bridge: {", "bridge: {private_inbound_target: 1024, ").replace(
        "nofile: 65536", "nofile: 4096"
    )
    text = differ(BASE, greedy, code=1)
    assert "  bridge.private_inbound_target: null → 1024\n" in text
    assert "budgets" not in text
    assert "new.yaml is not feasible: " in differ.errors
    document = differ.document(BASE, greedy, code=1)
    assert document["infeasible"]["old"] is None
    refusal = document["infeasible"]["new"]
    assert refusal["wish"] == "bridge.private_inbound_target"
    assert refusal["nearest"] < 1024
    # The other way round it is the way out of it.
    assert "note: " in differ(greedy, BASE)


def test_both_for_one_profile(differ: Differ) -> None:
    small = BASE.replace("8589934592", "4294967296")
    document = differ.document(BASE, small, "--profile", "x86-large")
    assert not document["budgets"]


def test_a_wrong_file_is_told_as_validate_does(differ: Differ) -> None:
    differ(BASE, BASE + "log: {level: loud}\n", code=1)
    assert "new.yaml:13:14: log.level: 'loud' is not one of" in differ.errors
