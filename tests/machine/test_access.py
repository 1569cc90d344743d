"""Who may log in, and the key by which the machine is known."""

from __future__ import annotations

import stat
import subprocess

import pytest

from tests.machine.setup_root import MACHINE, SMALL, Root, public_key


def test_keys_of_the_file_and_of_the_document_log_in(root: Root) -> None:
    document = f"ssh:\n  authorized_keys:\n    - {public_key(2)}\n    - {public_key(1)}\n"
    root.put("appliance.yaml", SMALL + MACHINE + document)
    root.put("authorized_keys", f"# mine\n\n{public_key(1)}\n{public_key(3)}\n")
    root.apply()
    assert root.keys == [public_key(1), public_key(3), public_key(2)]
    kept = root.state / "authorized_keys/operator"
    assert kept.read_text().splitlines() == root.keys
    for path in (kept, root.run("authorized_keys/operator")):
        assert stat.S_IMODE(path.stat().st_mode) == 0o644  # sshd reads it as the user


def test_a_wrong_line_is_told_and_the_others_count(root: Root) -> None:
    root.put("appliance.yaml", SMALL)
    root.put("authorized_keys", f"{public_key(1)}\nssh-ed25519 AAAA me@home\n{public_key(2)}\n")
    root.apply()
    assert root.keys == [public_key(1), public_key(2)]
    assert "authorized_keys:2: is no whole ssh-ed25519 key" in root.faults


def test_a_private_key_is_refused_and_never_shown(
    root: Root, capsys: pytest.CaptureFixture[str]
) -> None:
    other = root.path / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other], check=True)
    secret = other.read_text()
    root.put("authorized_keys", secret)
    root.put("appliance.yaml", SMALL + MACHINE + f"ssh: {{authorized_keys: '{secret[:60]}'}}\n")
    root.apply()
    assert "authorized_keys:1: this is a private key" in root.faults
    assert "Machine.ssh.authorized_keys: this is a private key" in root.faults
    assert "nobody can log in" in root.faults
    shown = root.faults + root.console + root.notes + capsys.readouterr().out
    assert not [line for line in secret.splitlines() if line in shown]


def test_a_key_file_that_went_away_locks_nobody_out_and_an_empty_one_does(root: Root) -> None:
    root.put("appliance.yaml", SMALL)
    path = root.put("authorized_keys", public_key(1))
    root.apply()
    path.unlink()
    root.boot()
    root.apply()
    assert root.keys == [public_key(1)]
    root.put("authorized_keys", "")
    root.apply()
    assert root.keys == []
    assert "nobody can log in" in root.faults


def test_the_host_key_is_made_once_and_its_fingerprint_is_shown(root: Root) -> None:
    root.put("appliance.yaml", SMALL)
    root.apply()
    key = root.state / "ssh/ssh_host_ed25519_key"
    first = key.read_bytes()
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    root.boot()
    root.apply()
    assert key.read_bytes() == first
    assert root.run("ssh/ssh_host_ed25519_key").resolve() == key
    said = subprocess.run(
        ["ssh-keygen", "-lf", key], capture_output=True, text=True, check=True
    ).stdout.split()[1]
    assert said in root.notes
    assert said in root.console


def test_a_host_key_that_a_power_cut_left_empty_is_made_anew(root: Root) -> None:
    root.put("appliance.yaml", SMALL)
    root.apply()
    key = root.state / "ssh/ssh_host_ed25519_key"
    key.write_bytes(b"")
    root.boot()
    root.apply()
    assert key.read_bytes().startswith(b"-----BEGIN OPENSSH PRIVATE KEY-----")
