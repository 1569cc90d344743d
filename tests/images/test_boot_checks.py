"""What the boot test reads in a guest is read as the guest's own programs do."""

from __future__ import annotations

from typing import cast

import pytest

from appliance.image.boot_checks import OFF, Booted, Setting, Wrong, settings, tcp_at
from appliance.image.guest_shell import Shell

FILE = """\
# Made by role hardening.
; so is this
kernel.sysrq = 0
-vm.mmap_rnd_bits = 32
net.ipv4.ip_local_port_range = 32768\t 65535

kernel.core_pattern = |/bin/false
kernel.sysrq = 1
"""


def test_settings_are_read_as_systemd_reads_them() -> None:
    assert settings(FILE) == [
        Setting("kernel.sysrq", "1", optional=False),
        Setting("vm.mmap_rnd_bits", "32", optional=True),
        Setting("net.ipv4.ip_local_port_range", "32768 65535", optional=False),
        Setting("kernel.core_pattern", "|/bin/false", optional=False),
    ]


def test_a_port_for_an_address_that_the_guest_has_not_is_not_expected_to_be_open() -> None:
    """A router's slots are at its address in the LAN, which is not the test's."""
    listeners = [
        {"owner": "bridge", "address": "0.0.0.0", "port": 16112, "transport": "tcp"},
        {"owner": "slots", "address": "192.168.1.1", "port": 16120, "transport": "tcp"},
        {"owner": "slots", "address": "192.0.2.10", "port": 16121, "transport": "tcp"},
        {"owner": "metrics", "address": "127.0.0.1", "port": 9464, "transport": "tcp"},
        {"owner": "wifi", "address": "0.0.0.0", "port": 68, "transport": "udp"},
    ]
    assert tcp_at("192.0.2.10", listeners) == {16112, 16121}


OK = "[\x1b[0;32m  OK  \x1b[0m] Unmounted \x1b[0;1;39mtmp.mount\x1b[0m - Temporary Directory /tmp."
BAD = "[\x1b[0;1;31mFAILED\x1b[0m] Failed unmounting \x1b[0;1;39mvar.mount\x1b[0m - /var."
NO_SHELL = cast("Shell", None)  # it is off


async def test_what_a_machine_could_not_end_is_told() -> None:
    off = Booted(NO_SHELL, None, lambda: f"{OK}\n[  701.47] reboot: Power down\n")
    assert "unmounted" in await OFF.judge(off)
    stuck = Booted(NO_SHELL, None, lambda: f"{BAD}\n{OK}\n[  701.47] reboot: Power down\n")
    with pytest.raises(Wrong, match=r"\[FAILED\] Failed unmounting var.mount - /var\.$"):
        await OFF.judge(stuck)
