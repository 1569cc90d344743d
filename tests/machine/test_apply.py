"""The declaration of a setup partition is put in force, or said to be wrong; looked at again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.machine.setup_root import MACHINE, SMALL, Root, public_key


def test_a_good_declaration_is_in_force_and_kept(root: Root) -> None:
    sysctl = root.template(
        "etc/sysctl.d/60-plan.conf", "backlog = {{ appliance_plan.unit.LimitNOFILE }}\n"
    )
    root.put("appliance.yaml", SMALL)
    root.put("authorized_keys", public_key(1))
    root.apply()
    assert root.in_force == SMALL
    assert (root.state / "appliance.yaml").read_text() == SMALL
    assert root.run("hostname").read_text() == "home-box\n"
    assert sysctl.read_text().startswith("backlog = ")
    assert not root.faults
    assert "home-box" in root.notes
    assert "home-box" in root.console


def test_a_wrong_declaration_is_told_everywhere_and_the_last_good_one_holds(
    root: Root, capsys: pytest.CaptureFixture[str]
) -> None:
    root.put("appliance.yaml", SMALL)
    root.put("authorized_keys", public_key(1))
    root.apply()
    root.put("appliance.yaml", SMALL.replace("simnet", "simnett") + "bridge: {drain: -1}\n")
    root.boot()
    capsys.readouterr()
    root.apply()
    assert root.in_force == SMALL
    assert (root.state / "appliance.yaml").read_text() == SMALL
    printed = capsys.readouterr().out
    for shown in (root.faults, root.console, printed):
        assert "appliance.yaml:5:10: network: 'simnett' is not one of" in shown
        assert "appliance.yaml:8:17: bridge.drain: '-1' is not a number from 0 to 300" in shown
    assert "the last good declaration stays in force" in root.faults


def test_a_wrong_first_declaration_starts_nothing_and_still_lets_people_in(root: Root) -> None:
    """Whatever else is wrong in the file: its keys, its network and its host name's absence."""
    root.put(
        "appliance.yaml",
        SMALL.replace("simnet", "simnett")
        + MACHINE
        + f"ssh: {{authorized_keys: {public_key(1)}}}\nnetwork: {{address: 192.0.2.10/24}}\n",
    )
    root.apply()
    assert root.in_force is None
    assert not (root.state / "appliance.yaml").exists()
    assert root.keys == [public_key(1)]
    fixed = root.path / "run/systemd/network/60-appliance-fixed.network"
    assert "Address=192.0.2.10/24" in fixed.read_text()
    assert "not running: there is no good declaration yet" in root.notes


def test_a_fault_in_the_machine_itself_does_not_lock_out(root: Root) -> None:
    root.put(
        "appliance.yaml",
        SMALL
        + MACHINE
        + f"ssh: {{authorized_keys: {public_key(1)}}}\nnetwork: {{gateway: 192.0.2.1}}\n",
    )
    root.apply()
    assert "Machine.network.gateway: is of no use without a fixed address" in root.faults
    assert root.in_force is None
    assert root.keys == [public_key(1)]


def test_a_missing_declaration_says_what_to_put_where(root: Root) -> None:
    root.put("authorized_keys", public_key(1))
    root.apply()
    assert root.in_force is None
    for shown in (root.faults, root.console):
        assert "appliance.yaml: is missing" in shown
        assert "kind: Appliance" in shown
        assert "authorized_keys" in shown


def test_what_a_missing_declaration_is_told_to_be_is_good(root: Root) -> None:
    root.put("authorized_keys", public_key(1))
    root.apply()
    lines = [line[4:] for line in root.faults.splitlines() if line.startswith("    ")]
    root.put("appliance.yaml", "\n".join(lines))
    root.apply()
    assert not root.faults
    assert root.run("hostname").read_text() == "my-box\n"


def test_one_that_went_away_stays_in_force(root: Root) -> None:
    path = root.put("appliance.yaml", SMALL)
    root.put("authorized_keys", public_key(1))
    root.apply()
    path.unlink()
    root.boot()
    root.apply()
    assert root.in_force == SMALL
    assert not root.faults


def test_a_mended_one_is_in_force_and_the_faults_are_gone(root: Root) -> None:
    root.put("authorized_keys", public_key(1))
    root.put("appliance.yaml", SMALL.replace("simnet", "simnett"))
    root.apply()
    assert root.faults
    root.put("appliance.yaml", SMALL)
    root.apply()
    assert root.in_force == SMALL
    assert not root.faults
    assert "TO MEND" not in root.console


def test_a_declaration_that_this_machine_cannot_carry_is_refused(root: Root) -> None:
    large = "hardware:\n  profile: detect\n  override:\n    memory_bytes: 70368744177664\n"
    root.put("appliance.yaml", SMALL + large)
    root.apply()
    assert "appliance.yaml:11:19: hardware.override.memory_bytes: " in root.faults
    assert "is larger than this machine" in root.faults
    assert root.in_force is None


def test_an_address_that_the_network_has_not_given_yet_is_no_fault(root: Root) -> None:
    root.put("authorized_keys", public_key(1))
    root.put("appliance.yaml", SMALL + "bridge:\n  listen: [192.0.2.10:16112]\n")
    root.apply()
    assert not root.faults


def test_an_unknown_time_zone_is_found_where_the_machine_knows_zones(root: Root) -> None:
    (root.path / "usr/share/zoneinfo/Europe").mkdir(parents=True)
    (root.path / "usr/share/zoneinfo/Europe/Berlin").touch()
    root.put("appliance.yaml", SMALL + MACHINE + "timezone: Europe/Berlln\n")
    root.apply()
    assert "appliance.yaml:11:11: Machine.timezone: 'Europe/Berlln' is no time zone" in root.faults
    root.put("appliance.yaml", SMALL + MACHINE + "timezone: Europe/Berlin\n")
    root.apply()
    assert root.run("localtime").readlink() == Path("/usr/share/zoneinfo/Europe/Berlin")


def test_a_second_look_writes_nothing(root: Root) -> None:
    """A memory card wears, and a change would start the next look."""
    root.put("appliance.yaml", SMALL.replace("simnet", "simnett"))
    root.apply()
    before = {path: path.stat().st_mtime_ns for path in root.path.rglob("*") if path.is_file()}
    root.apply()
    after = {path: path.stat().st_mtime_ns for path in root.path.rglob("*") if path.is_file()}
    changed = {path.name for path in after if before.get(path) != after[path]}
    assert changed <= {"lock"}


def test_the_units_second_look_leaves_what_is_right_alone(
    root: Root, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the machine writes beside the files starts it again."""
    root.put("appliance.yaml", SMALL)
    root.put("authorized_keys", public_key(1))
    root.apply("--if-changed")
    assert "in force" in capsys.readouterr().out
    root.apply("--if-changed")
    assert not capsys.readouterr().out
    for change in (("wifi-passphrase", "correct horse"), ("authorized_keys", public_key(2))):
        root.put(*change)
        root.apply("--if-changed")
        assert "in force" in capsys.readouterr().out
    root.put("appliance.yaml", SMALL.replace("simnet", "simnett"))
    for _ in range(2):  # a fault is told again: it may be mended elsewhere
        root.apply("--if-changed")
        assert "simnett" in capsys.readouterr().out
