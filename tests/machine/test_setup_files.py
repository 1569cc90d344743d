"""Files from any computer: other names, other encodings, too large, or not there."""

from __future__ import annotations

import subprocess

import pytest

from tests.machine.setup_root import SMALL, Root, public_key


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
