"""The hardware catalogue: a first version, typical machines with a note of where figures are from.

Memory is what the kernel leaves of the nominal size (about 95 % on small boards). Link speeds are
not properties of a board: each profile assumes the line that it usually hangs on. To plan for a
machine exactly, run `appliance profiles --detect` on it or write the profile out.
"""

from __future__ import annotations

from typing import Final

from appliance.sizing.profile import Profile
from appliance.units import MIB

SYSTEMD_NOFILE: Final = 524_288
"""systemd's DefaultLimitNOFILE, hard (systemd-system.conf(5), since version 240)."""

_HOME_UPLOAD: Final = 5_000_000  # 40 Mbit/s: a VDSL or cable line's upload
_HOME_CONNTRACK: Final = 16_384  # what many home routers track; the box itself could track more

_ALL: Final = (
    Profile(
        name="raspberry-pi-4-4g",
        description="Raspberry Pi 4 Model B, 4 GB, SD card, on a home line",
        source="Raspberry Pi 4 product brief: 4 × Cortex-A72, 4 GB, Gigabit Ethernet; line assumed",
        architecture="aarch64",
        cores=4,
        memory_bytes=3800 * MIB,
        nofile=SYSTEMD_NOFILE,
        link_bytes_per_second=_HOME_UPLOAD,
        conntrack_max=_HOME_CONNTRACK,
        storage="sd-card",
    ),
    Profile(
        name="raspberry-pi-5-8g",
        description="Raspberry Pi 5, 8 GB, NVMe, on a fast home line",
        source="Raspberry Pi 5 product brief: 4 × Cortex-A76, 8 GB, Gigabit Ethernet; line assumed",
        architecture="aarch64",
        cores=4,
        memory_bytes=7900 * MIB,
        nofile=SYSTEMD_NOFILE,
        link_bytes_per_second=12_500_000,
        conntrack_max=_HOME_CONNTRACK,
        storage="ssd",
    ),
    Profile(
        name="raspberry-pi-zero-2w",
        description="Raspberry Pi Zero 2 W, 512 MB, SD card, on Wi-Fi",
        source="Raspberry Pi Zero 2 W product brief: 4 × Cortex-A53, 512 MB; line assumed",
        architecture="aarch64",
        cores=4,
        memory_bytes=416 * MIB,
        nofile=SYSTEMD_NOFILE,
        link_bytes_per_second=2_500_000,
        conntrack_max=_HOME_CONNTRACK,
        storage="sd-card",
    ),
    Profile(
        name="router-512m",
        description="Home router, 512 MB, two cores, flash; it routes besides",
        source="typical of current OpenWrt hardware (two Cortex-A53, 512 MB); 16,384 tracked "
        "connections as OpenWrt sets, 4,096 open files as the kernel grants without systemd",
        architecture="aarch64",
        cores=2,
        memory_bytes=480 * MIB,
        nofile=4096,
        link_bytes_per_second=_HOME_UPLOAD,
        conntrack_max=16_384,
        storage="flash",
    ),
    Profile(
        name="x86-small",
        description="Small server or virtual machine: one core, 1 GB, 100 Mbit/s",
        source="the smallest class that hosting providers sell; a public host, no NAT in front",
        architecture="x86_64",
        cores=1,
        memory_bytes=960 * MIB,
        nofile=SYSTEMD_NOFILE,
        link_bytes_per_second=12_500_000,
        conntrack_max=65_536,
        storage="ssd",
    ),
    Profile(
        name="x86-medium",
        description="Server or virtual machine: four cores, 8 GB, 1 Gbit/s",
        source="the middle class that hosting providers sell; a public host, no NAT in front",
        architecture="x86_64",
        cores=4,
        memory_bytes=7900 * MIB,
        nofile=SYSTEMD_NOFILE,
        link_bytes_per_second=125_000_000,
        conntrack_max=262_144,
        storage="ssd",
    ),
)

CATALOGUE: Final[dict[str, Profile]] = {profile.name: profile for profile in _ALL}
assert len(CATALOGUE) == len(_ALL)
