"""The hardware catalogue, as data: one row a machine, each with the source of its figures.

Memory is what the kernel leaves of the nominal size: measured boards show 91 to 97 %, so 94 % is
taken where nothing better is known. Link speeds and tables of the router in front are no
properties of a board: each profile assumes the line that it usually hangs on. To plan for a
machine exactly, run `appliance profiles --detect` on it, or write the profile out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from appliance.sizing.profile import Profile
from appliance.units import MIB

SYSTEMD_NOFILE: Final = 524_288
"""systemd's DefaultLimitNOFILE, hard (systemd-system.conf(5), since version 240)."""
KERNEL_NOFILE: Final = 4096
"""The hard limit that the kernel grants without systemd (include/asm-generic/resource.h)."""

_LEFT_BY_THE_KERNEL: Final = 94  # percent


@dataclass(frozen=True, slots=True)
class _Line:
    """An internet line and the router in front."""

    text: str
    link_bytes_per_second: int
    conntrack_max: int
    new_connections_per_second: int


# 16,384 is OpenWrt's nf_conntrack_max for such routers; 30 new connections a second are what
# libtorrent allows itself on home lines (settings_pack::connection_speed).
_HOME: Final = _Line("40 Mbit/s upload behind a home router", 5_000_000, 16_384, 30)
_FAST_HOME: Final = _Line("100 Mbit/s upload behind a home router", 12_500_000, 16_384, 30)
_WIFI: Final = _Line("20 Mbit/s upload over Wi-Fi", 2_500_000, 16_384, 30)
# A public host has no router in front; its own table follows its memory (nf_conntrack_max).
_HOSTED_SMALL: Final = _Line("100 Mbit/s, no NAT in front", 12_500_000, 65_536, 1000)
_HOSTED_MEDIUM: Final = _Line("1 Gbit/s, no NAT in front", 125_000_000, 262_144, 1000)
_HOSTED_LARGE: Final = _Line("10 Gbit/s, no NAT in front", 1_250_000_000, 1_048_576, 5000)

_A53: Final = "Cortex-A53"
_A72: Final = "Cortex-A72"
_A76: Final = "Cortex-A76"


def _board(
    name: str,
    what: str,
    source: str,
    mebibytes: int,
    line: _Line,
    *,
    cores: int = 4,
    architecture: str = "aarch64",
    storage: str = "sd-card",
    nofile: int = SYSTEMD_NOFILE,
) -> Profile:
    return Profile(
        name=name,
        description=f"{what}; {line.text}",
        source=f"{source}; line and table assumed",
        architecture=architecture,
        cores=cores,
        memory_bytes=mebibytes * MIB * _LEFT_BY_THE_KERNEL // 100,
        nofile=nofile,
        link_bytes_per_second=line.link_bytes_per_second,
        conntrack_max=line.conntrack_max,
        new_connections_per_second=line.new_connections_per_second,
        storage=storage,
    )


def _pi(name: str, model: str, cpu: str, mebibytes: int, line: _Line, storage: str) -> Profile:
    memory = f"{mebibytes // 1024} GB" if mebibytes >= 1024 else f"{mebibytes} MB"
    source = f"Raspberry Pi {model} product brief: 4 × {cpu}, {memory}"
    return _board(name, f"Raspberry Pi {model}, {memory}", source, mebibytes, line, storage=storage)


def _router(name: str, memory: str, mebibytes: int, cpu: str, cores: int) -> Profile:
    return _board(
        name,
        f"ARM home router, {memory}; it routes besides",
        f"typical of current OpenWrt hardware: {cores} × {cpu}, {memory}, flash; 4,096 open "
        "files as the kernel grants without systemd",
        mebibytes,
        _HOME,
        cores=cores,
        storage="flash",
        nofile=KERNEL_NOFILE,
    )


def _x86(name: str, size: str, cores: int, mebibytes: int, line: _Line) -> Profile:
    memory = f"{mebibytes // 1024} GB"
    return _board(
        name,
        f"x86 relay host, {size}: {cores} {'core' if cores == 1 else 'cores'}, {memory}",
        f"the {size} class that hosting providers sell",
        mebibytes,
        line,
        cores=cores,
        architecture="x86_64",
        storage="ssd",
    )


_ALL: Final = (
    _x86("x86-small", "smallest", 1, 1024, _HOSTED_SMALL),
    _x86("x86-medium", "middle", 4, 8192, _HOSTED_MEDIUM),
    _x86("x86-large", "dedicated", 16, 65_536, _HOSTED_LARGE),
    _pi("raspberry-pi-zero-2w", "Zero 2 W", _A53, 512, _WIFI, "sd-card"),
    _pi("raspberry-pi-3", "3 Model B+", _A53, 1024, _HOME, "sd-card"),
    _pi("raspberry-pi-4-2g", "4 Model B", _A72, 2048, _HOME, "sd-card"),
    _pi("raspberry-pi-4-4g", "4 Model B", _A72, 4096, _HOME, "sd-card"),
    _pi("raspberry-pi-4-8g", "4 Model B", _A72, 8192, _HOME, "ssd"),
    _pi("raspberry-pi-5-4g", "5", _A76, 4096, _HOME, "sd-card"),
    _pi("raspberry-pi-5-8g", "5", _A76, 8192, _FAST_HOME, "ssd"),
    _pi("raspberry-pi-5-16g", "5", _A76, 16_384, _FAST_HOME, "ssd"),
    _router("router-512m", "512 MB", 512, _A53, 2),
    _router("router-1g", "1 GB", 1024, _A53, 4),
    _router("router-2g", "2 GB", 2048, _A72, 4),
    _router("router-4g", "4 GB", 4096, _A72, 4),
)

CATALOGUE: Final[dict[str, Profile]] = {profile.name: profile for profile in _ALL}
assert len(CATALOGUE) == len(_ALL)
