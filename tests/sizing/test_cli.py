"""`appliance plan` and `appliance profiles`, as a user types them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from appliance.cli.main import main
from appliance.sizing import CATALOGUE
from tests.declaration.test_faults import HEAD
from tests.declaration.test_load import EXAMPLES

INTERFACE_CAPS = {
    "inbound_direct",
    "inbound_private",
    "outbound_direct",
    "outbound_private",
    "per_relay_inbound",
    "unknown_relay_inbound",
    "relay_reservations",
    "relay_circuits",
    "relay_circuits_per_peer",
    "relay_reservations_per_ip",
    "relay_bytes_per_second",
}
PARTS = {"machine", "kaspad", "store", "firewall", "alerts", "listeners"}
"""What the plan says beyond the promise."""
TOO_SMALL = (
    r"appliance: (node\.kind: kaspad needs 2\.2 GiB of memory .* less than kaspad needs\nhint: run "
    r"kaspad on another machine and say node\.kind: remote|caps\.\w+: \d+ would take .* fit)\n$"
)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
@pytest.mark.parametrize("profile", [None, "detect", *CATALOGUE])
def test_every_example_has_a_plan_on_every_profile(
    path: Path, profile: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Eighty columns, and every cap there with its value; or one sentence why there is none."""
    chosen = ["--profile", profile] if profile else []
    code = main(["plan", str(path), *chosen])
    shown = capsys.readouterr()
    if code:
        assert profile not in (None, "detect")
        assert not shown.out
        assert re.match(TOO_SMALL, shown.err)
        return
    assert max(map(len, shown.out.splitlines())) <= 80
    assert all(f"\n  {name} " in shown.out for name in INTERFACE_CAPS)


def test_the_steps_in_between_are_there_for_who_asks(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(EXAMPLES[0])]) == 0
    short = capsys.readouterr().out
    assert main(["plan", str(EXAMPLES[0]), "--steps"]) == 0
    long = capsys.readouterr().out
    assert "memory.share" in long
    assert max(map(len, long.splitlines())) <= 80
    assert "\nhow the budgets come about\n" in long
    assert "\nhow the budgets come about\n" not in short


def test_the_json_has_the_promised_shape(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(EXAMPLES[0]), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    promised = {"profile", "fds", "memory", "conntrack", "bandwidth", "caps", "unit", "sysctl"}
    assert promised | PARTS | {"derivation"} == set(document)
    assert set(document["caps"]) >= INTERFACE_CAPS
    derived = {step["name"]: step for step in document["derivation"]}
    for name, value in document["caps"].items():
        assert derived[name]["value"] == value
        assert derived[name].keys() == {"name", "value", "formula", "because"}
    fds = document["fds"]
    assert {"node", "store", "listeners"} <= set(fds["reserved"])
    assert fds["limit"] == sum(fds["reserved"].values()) + fds["available"]


def test_single_fields_of_the_hardware_can_be_changed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "box.yaml"
    hardware = "hardware: {profile: raspberry-pi-4-4g, override: {conntrack_max: 4096}}\n"
    path.write_text(HEAD + hardware)
    assert main(["plan", str(path), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["profile"]["conntrack_max"] == 4096
    assert document["conntrack"]["limit"] <= 1024
    assert main(["plan", str(path), "--profile", "raspberry-pi-4-4g", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["profile"]["conntrack_max"] == 16_384


def test_an_infeasible_wish_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "box.yaml"
    path.write_text(
        HEAD + "hardware: {profile: x86-medium}\nbridge: {private_inbound_target: 1000}\n"
    )
    assert main(["plan", str(path)]) == 1
    shown = capsys.readouterr()
    assert not shown.out
    assert shown.err.startswith("appliance: bridge.private_inbound_target: 1000 would take ")
    assert shown.err.rstrip().endswith("fit")
    assert shown.err.count("\n") == 1


def test_an_unknown_profile_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["plan", str(EXAMPLES[0]), "--profile", "toaster"])
    assert caught.value.code == 2
    assert "invalid choice: 'toaster'" in capsys.readouterr().err


def test_the_catalogue_is_shown_with_its_sources(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profiles"]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    assert all(name in shown for name in CATALOGUE)
    assert shown.count("source: ") == len(CATALOGUE)
    assert main(["profiles", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [profile["name"] for profile in document] == list(CATALOGUE)


def test_this_machine_is_shown_as_a_profile(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profiles", "--detect"]) == 0
    assert "note: line speed" in capsys.readouterr().out
    assert main(["profiles", "--detect", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["profile"]["name"] == "detect"
