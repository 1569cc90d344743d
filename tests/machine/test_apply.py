"""The files of a setup partition become a machine: in a root directory that nothing runs in."""

from __future__ import annotations

import base64
import errno
import os
import stat
import subprocess
from pathlib import Path
from typing import Final

import pytest

from appliance.cli.main import main

HEAD: Final = "apiVersion: appliance/v1\nkind: Appliance\nmetadata:\n  name: home-box\n"
SMALL: Final = HEAD + "network: simnet\nnode:\n  kind: embedded\n"
MACHINE: Final = "---\napiVersion: appliance/v1\nkind: Machine\n"


def public_key(number: int) -> str:
    """A key of the right shape that nobody has the other half of."""
    blob = b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + bytes([number]) * 32
    return f"ssh-ed25519 {base64.b64encode(blob).decode()} key-{number}"


class Root:
    """A root directory with its setup partition."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.setup, self.state = path / "boot/appliance", path / "var/lib/appliance-machine"
        self.setup.mkdir(parents=True)
        self.state.mkdir(parents=True)

    def put(self, name: str, text: str | bytes) -> Path:
        path = self.setup / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    def template(self, destination: str, text: str) -> Path:
        path = self.path / f"usr/share/appliance/templates/{destination}.j2"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return self.run(destination)

    def apply(self, *options: str) -> None:
        assert main(["machine", "apply", "--root", str(self.path), *options]) == 0

    def boot(self) -> None:
        """What a restart forgets."""
        subprocess.run(["rm", "-rf", self.path / "run"], check=True)

    def run(self, name: str) -> Path:
        return self.path / "run/appliance-machine" / name

    @property
    def faults(self) -> str:
        path = self.setup / "faults.txt"
        return path.read_text() if path.exists() else ""

    @property
    def notes(self) -> str:
        return (self.setup / "state.txt").read_text()

    @property
    def console(self) -> str:
        return (self.path / "run/issue.d/50-appliance.issue").read_text()

    @property
    def in_force(self) -> str | None:
        path = self.run("appliance.yaml")
        return path.read_text() if path.exists() else None

    @property
    def keys(self) -> list[str]:
        return self.run("authorized_keys/operator").read_text().splitlines()


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return Root(tmp_path / "root")


# --- the declaration


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


# --- files from any computer


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("appliance.yaml.txt", SMALL.encode()),
        ("Appliance.YAML", SMALL.encode()),
        ("appliance.yml", SMALL.encode()),
        ("appliance.yaml", b"\xef\xbb\xbf" + SMALL.replace("\n", "\r\n").encode()),
        ("appliance.yaml", SMALL.encode("utf-16")),
    ],
    ids=["windows-hid-the-ending", "capitals", "yml", "windows-lines", "utf-16"],
)
def test_names_and_encodings_of_other_systems_are_read(root: Root, name: str, data: bytes) -> None:
    root.put(name, data)
    root.put("authorized_keys.txt", f"\ufeff{public_key(1)}\r\n")
    root.put("._appliance.yaml", b"\0\5\26\7Mac OS X")
    root.put("._authorized_keys", b"\0\5\26\7Mac OS X")
    root.apply()
    assert not root.faults
    assert root.run("hostname").read_text() == "home-box\n"
    assert root.keys == [public_key(1)]


def test_of_two_the_well_named_one_counts_and_the_other_is_told(root: Root) -> None:
    root.put("appliance.yaml", SMALL)
    root.put("appliance.yaml.txt", SMALL.replace("home-box", "other-box"))
    root.apply()
    assert root.run("hostname").read_text() == "home-box\n"
    assert "appliance.yaml.txt: is not read, because there is appliance.yaml too" in root.faults


@pytest.mark.parametrize("name", ["appliance.yaml", "authorized_keys", "wifi-passphrase"])
def test_what_is_too_large_or_no_file_is_told_as_such(root: Root, name: str) -> None:
    for other, text in (("appliance.yaml", SMALL), ("authorized_keys", public_key(1))):
        if other != name:
            root.put(other, text)
    root.put(name, b"#" * (2 * 1024 * 1024))
    root.apply()
    assert f"{name}: is larger than" in root.faults
    (root.setup / name).unlink()
    (root.setup / name).mkdir()
    root.apply()
    assert f"{name}: cannot be read: is a directory" in root.faults
    assert "is missing" not in root.faults


def test_without_a_setup_partition_the_last_good_one_holds(root: Root) -> None:
    root.put("appliance.yaml", SMALL)
    root.put("authorized_keys", public_key(1))
    root.apply()
    subprocess.run(["rm", "-rf", root.setup], check=True)
    root.boot()
    root.apply()
    assert root.in_force == SMALL
    assert root.keys == [public_key(1)]
    assert "the setup partition cannot be read" in root.console


# --- who may log in


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


# --- Wi-Fi

WIFI: Final = MACHINE + "wifi:\n  country: DE\n  ssid: 'the \"house\"'\n"


def test_the_passphrase_moves_from_the_setup_partition(root: Root) -> None:
    root.put("appliance.yaml", SMALL + WIFI)
    root.put("authorized_keys", public_key(1))
    root.put("wifi-passphrase.txt", "correct horse\r\n")
    root.apply()
    assert not root.faults
    assert sorted(path.name for path in root.setup.iterdir()) == [
        "appliance.yaml",
        "authorized_keys",
        "state.txt",
    ]
    kept, used = root.state / "wifi-passphrase", root.run("wpa_supplicant.conf")
    for path in (kept, used):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert kept.read_text() == "correct horse"
    told = used.read_text()
    assert 'psk="correct horse"' in told
    assert b'the "house"'.hex() in told
    root.boot()
    root.apply()
    assert used.read_text() == told
    assert "correct horse" not in root.notes + root.console


def test_a_wrong_passphrase_stays_where_its_owner_finds_it(root: Root) -> None:
    root.put("appliance.yaml", SMALL + WIFI)
    root.put("wifi-passphrase", "short")
    root.apply()
    assert "wifi-passphrase: is no Wi-Fi passphrase" in root.faults
    assert "Wi-Fi: no passphrase is known" in root.faults
    assert "short\n" not in root.faults
    assert (root.setup / "wifi-passphrase").exists()
    assert not root.run("wpa_supplicant.conf").exists()


def test_a_network_that_is_no_longer_declared_is_left(root: Root) -> None:
    root.put("appliance.yaml", SMALL + WIFI)
    root.put("wifi-passphrase", "correct horse")
    root.apply()
    root.put("appliance.yaml", SMALL)
    root.apply()
    assert not root.run("wpa_supplicant.conf").exists()


# --- templates


def test_templates_without_a_plan_still_make_files(root: Root) -> None:
    made = root.template(
        "etc/nftables.d/appliance.nft",
        "{% if appliance_plan %}\nopen\n{% else %}\nonly ssh\n{% endif %}\n",
    )
    root.apply()
    assert made.read_text() == "only ssh\n"


def test_a_template_that_fails_keeps_its_old_text_and_the_others_are_made(root: Root) -> None:
    good = root.template("etc/a.conf", "{{ appliance_plan.unit.LimitNOFILE }}\n")
    bad = root.template("etc/b.conf", "right\n")
    root.put("appliance.yaml", SMALL)
    root.put("authorized_keys", public_key(1))
    root.apply()
    root.template("etc/b.conf", "{{ appliance_plan.no_such_number }}\n")
    root.boot()
    root.run("etc").mkdir(parents=True)
    bad.write_text("right\n")
    root.apply()
    assert bad.read_text() == "right\n"
    assert good.read_text().strip().isdigit()
    assert "/etc/b.conf: cannot be made: " in root.faults
    assert root.in_force == SMALL


# --- a disk that takes nothing


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


def test_the_words_for_a_full_disk_are_plain() -> None:
    from appliance.machine.files import why

    assert why(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))) == "the disk is full"
