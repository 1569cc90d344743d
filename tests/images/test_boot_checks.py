"""What the boot test reads in a guest is read as the guest's own programs do."""

from __future__ import annotations

from appliance.image.boot_checks import Setting, settings

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
