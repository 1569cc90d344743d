"""An image's root boots, from good, wrong and missing files, and with a full disk.

A root provisioned by the roles themselves, under systemd-nspawn: systemd, sshd, nftables and the
appliance are the real ones. Its making takes minutes, hence `slow`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.machine.image_root import image_root
from tests.machine.world import ADDRESS, Machine, booted

PROGRAMS: Final = ("systemd-nspawn", "mmdebstrap", "unshare", "nsenter", "ssh", "ssh-keygen")
MISSING: Final = [program for program in PROGRAMS if shutil.which(program) is None]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(os.geteuid() != 0, reason="booting a root takes root"),
    pytest.mark.skipif(bool(MISSING), reason=f"missing: {', '.join(MISSING)}"),
]

GOOD: Final = f"""\
apiVersion: appliance/v1
kind: Appliance
metadata:
  name: home-box
network: simnet
node:
  kind: embedded
---
apiVersion: appliance/v1
kind: Machine
timezone: Europe/Berlin
network:
  interface: host0
  address: {ADDRESS}/24
"""
# Right in what concerns the machine, so that it is at its address.
WRONG: Final = GOOD.replace("simnet", "simnett")


@pytest.fixture(scope="module")
def root() -> Path:
    return image_root()


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    return path


@pytest.fixture
def setup(tmp_path: Path, key: Path) -> Path:
    """A setup partition with a key on it."""
    directory = tmp_path / "setup"
    directory.mkdir()
    shutil.copy(f"{key}.pub", directory / "authorized_keys")
    return directory


def runs(machine: Machine) -> bool:
    return machine.says("systemctl is-active appliance") == "active"


def test_a_good_declaration_is_running_after_the_first_boot(
    root: Path, setup: Path, key: Path
) -> None:
    (setup / "appliance.yaml").write_text(GOOD)
    with booted(root, setup) as machine:
        machine.until("the appliance runs", lambda: runs(machine))
        assert not machine.says("systemctl --failed --no-legend --plain")
        assert not (setup / "faults.txt").exists()
        done = machine.ssh(key, "hostname; sudo appliance status --json")
        name, document = done.stdout.split("\n", 1)
        assert name == "home-box"
        plan = json.loads(machine.says("appliance plan /boot/appliance/appliance.yaml --json"))
        granted = machine.says("systemctl show --property=LimitNOFILE --value appliance")
        assert int(granted) == plan["unit"]["LimitNOFILE"]
        machine.run("systemctl start appliance-console")
        notes = (setup / "state.txt").read_text()
        assert f"ssh operator@{ADDRESS}" in notes
        assert json.loads(document)["peer_id"] in notes
        assert "16512" in machine.says("nft list chain inet appliance declared")
        assert machine.says("date +%Z") in ("CET", "CEST")


def test_a_wrong_declaration_starts_nothing_lets_people_in_and_is_mended_at_once(
    root: Path, setup: Path, key: Path
) -> None:
    (setup / "appliance.yaml").write_text(WRONG)
    with booted(root, setup) as machine:
        fault = "appliance.yaml:5:10: network: 'simnett' is not one of"
        assert fault in (setup / "faults.txt").read_text()
        assert fault in machine.says("cat /run/issue.d/*.issue")
        assert fault in machine.console.read_text(errors="replace")
        assert fault in machine.says("journalctl -b -u appliance-machine -o cat")
        assert machine.says("systemctl is-active appliance") == "inactive"
        assert machine.ssh(key, "true").returncode == 0
        declared = machine.says("nft list chain inet appliance declared")
        assert "dport" not in declared

        machine.edit(GOOD)
        machine.until("the appliance runs", lambda: runs(machine))
        assert not (setup / "faults.txt").exists()
        assert machine.says("hostname") == "home-box"
        assert "16512" in machine.says("nft list chain inet appliance declared")

        machine.edit(WRONG.replace("home-box", "other-box"))
        machine.until("it is told", (setup / "faults.txt").exists)
        assert runs(machine)
        assert machine.says("hostname") == "home-box"


def test_a_missing_declaration_says_what_to_put_where_and_is_taken_once_it_is_there(
    root: Path, setup: Path
) -> None:
    with booted(root, setup) as machine:
        assert "appliance.yaml: is missing" in (setup / "faults.txt").read_text()
        assert "kind: Appliance" in machine.says("cat /run/issue.d/*.issue")
        assert machine.says("systemctl is-active appliance ssh").split() == ["inactive", "active"]
        assert not machine.says("systemctl --failed --no-legend --plain")
        machine.edit(GOOD)
        machine.until("the appliance runs", lambda: runs(machine))


def test_a_full_data_partition_runs_from_what_was_read(root: Path, setup: Path, key: Path) -> None:
    (setup / "appliance.yaml").write_text(GOOD)
    full = "--tmpfs=/var/lib/appliance-machine:size=4k,mode=755"
    with booted(root, setup, full) as machine:
        machine.until("the appliance runs", lambda: runs(machine))
        told = (setup / "faults.txt").read_text()
        assert "the declaration is in force, but cannot be kept: the disk is full" in told
        assert "the SSH host key cannot be kept: the disk is full" in told
        assert "the data partition is full: the appliance cannot store what it learns" in told
        assert machine.ssh(key, "true").returncode == 0

        machine.run("mount -o remount,size=20m /var/lib/appliance-machine")
        machine.run("systemctl start appliance-console")  # a timer's, every minute
        machine.until("it is mended", lambda: not (setup / "faults.txt").exists())
        assert machine.says("cat /var/lib/appliance-machine/appliance.yaml") == GOOD.strip()
