"""The passphrase of the Wi-Fi network moves to the machine, once."""

from __future__ import annotations

import stat

from tests.machine.setup_root import SMALL, WIFI, Root, public_key


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
