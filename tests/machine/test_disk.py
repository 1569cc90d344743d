"""A disk that takes nothing."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from appliance.machine.files import why
from tests.machine.setup_root import SMALL, WIFI, Root, public_key


def test_where_nothing_can_be_kept_the_machine_runs_and_says_so(root: Root, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    root.put("appliance.yaml", SMALL + WIFI)
    root.put("authorized_keys", public_key(1))
    root.put("wifi-passphrase", "correct horse")
    root.apply("--state", str(tmp_path / "file" / "state"))
    assert root.in_force == SMALL + WIFI
    assert root.keys == [public_key(1)]
    assert root.run("ssh/ssh_host_ed25519_key").resolve().is_file()
    assert 'psk="correct horse"' in root.run("wpa_supplicant.conf").read_text()
    assert (root.setup / "wifi-passphrase").exists()
    assert "the declaration is in force, but cannot be kept: " in root.faults
    assert "the SSH host key cannot be kept: " in root.faults
    assert "wifi-passphrase: cannot be kept, and stays where it is" in root.faults


def test_the_words_for_a_full_disk_are_plain() -> None:
    assert why(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))) == "the disk is full"
