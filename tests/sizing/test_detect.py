"""`detect` on this machine, and on others as their /proc and /sys show them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from appliance.sizing.detect import ASSUMED_CONNTRACK, ASSUMED_MEMORY, detect
from appliance.units import MIB


def machine(root: Path, **files: str) -> Path:
    """A directory that looks like a machine's root: `proc__meminfo=…` is proc/meminfo."""
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


MEMINFO = "MemTotal:        3884236 kB\nMemFree:          212 kB\n"
MEMORY = 3884236 * 1024


def test_this_machine_is_described() -> None:
    found = detect().profile
    assert found.architecture == os.uname().machine
    assert 1 <= found.cores <= (os.cpu_count() or 1)
    assert found.memory_bytes > 64 * MIB
    assert found.nofile > 0
    assert found.conntrack_max > 0


def test_a_machine_that_says_nothing_gets_careful_assumptions_and_says_so(tmp_path: Path) -> None:
    found = detect(tmp_path)
    assert found.profile.memory_bytes == ASSUMED_MEMORY
    assert found.profile.conntrack_max == ASSUMED_CONNTRACK
    assert found.profile.storage == "unknown"
    said = " ".join(found.notes)
    assert "memory: /proc/meminfo does not say, 512 MiB assumed" in said
    assert "connection tracking: off or not visible here, 16384 assumed" in said
    assert "line speed: cannot be seen from behind a router, 5000000 bytes/s assumed" in said


def test_a_pi_with_an_sd_card(tmp_path: Path) -> None:
    root = machine(
        tmp_path,
        proc__meminfo=MEMINFO,
        proc__self__mountinfo="26 1 179:2 / / rw shared:1 - ext4 /dev/mmcblk0p2 rw\n",
        sys__block__mmcblk0__device__type="SD\n",
        proc__sys__net__netfilter__nf_conntrack_max="32768\n",
    )
    (root / "proc/device-tree").mkdir()
    (root / "proc/device-tree/model").write_text("Raspberry Pi 4 Model B Rev 1.4\0")
    found = detect(root).profile
    assert found.description == "Raspberry Pi 4 Model B Rev 1.4"
    assert (found.memory_bytes, found.storage, found.conntrack_max) == (MEMORY, "sd-card", 32768)


def test_a_unified_control_group_limits_memory_at_any_level(tmp_path: Path) -> None:
    root = machine(
        tmp_path,
        proc__meminfo=MEMINFO,
        proc__self__cgroup="0::/system.slice/appliance.service\n",
    )
    group = root / "sys/fs/cgroup/system.slice"
    (group / "appliance.service").mkdir(parents=True)
    (group / "appliance.service/memory.max").write_text("max\n")
    (group / "memory.max").write_text(f"{512 * MIB}\n")
    found = detect(root)
    assert found.profile.memory_bytes == 512 * MIB
    assert "memory: a control group allows 512 of 3793 MiB" in found.notes


def test_an_old_control_group_limits_memory(tmp_path: Path) -> None:
    root = machine(
        tmp_path,
        proc__meminfo=MEMINFO,
        proc__self__cgroup="5:devices:/\n4:memory:/box\n0::/\n",
        sys__fs__cgroup__memory__box__memory_limit="",
    )
    group = root / "sys/fs/cgroup/memory"
    (group / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    (group / "box/memory.limit_in_bytes").write_text(f"{1024 * MIB}\n")
    assert detect(root).profile.memory_bytes == 1024 * MIB


@pytest.mark.parametrize(("text", "limited"), [("100000 100000\n", True), ("max 100000\n", False)])
def test_a_control_group_limits_cores(tmp_path: Path, text: str, limited: bool) -> None:
    root = machine(tmp_path, proc__self__cgroup="0::/\n")
    (root / "sys/fs/cgroup").mkdir(parents=True)
    (root / "sys/fs/cgroup/cpu.max").write_text(text)
    cores = detect(root).profile.cores
    assert cores == (1 if limited else len(os.sched_getaffinity(0)))


def test_nonsense_in_proc_is_no_crash(tmp_path: Path) -> None:
    root = machine(
        tmp_path,
        proc__meminfo="MemTotal: lots\n\nMemTotal:\n",
        proc__self__cgroup="::::\n\n1:memory\n0\n",
        proc__self__mountinfo="x\n1 2 3 4 / - \n - \n",
        proc__sys__fs__nr_open="many",
        proc__sys__net__netfilter__nf_conntrack_max="-1",
    )
    found = detect(root).profile
    assert found.memory_bytes == ASSUMED_MEMORY
    assert found.conntrack_max == ASSUMED_CONNTRACK


ROUTE = """Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT
eth1\t00000A0A\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
eth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0
"""
TRIE = "Main:\n  |-- 127.0.0.1\n     /32 host LOCAL\n  |-- {}\n     /32 host LOCAL\n"


@pytest.mark.parametrize(
    ("address", "speed", "line", "said"),
    [
        ("10.0.0.2", "1000", 5_000_000, "cannot be seen from behind a router"),
        ("10.0.0.2", "10", 1_250_000, "cannot be seen from behind a router"),
        ("8.8.4.4", "10000", 1_250_000_000, "as its network card says"),
        ("8.8.4.4", "-1", 12_500_000, "the network card does not say"),
    ],
)
def test_the_card_is_the_line_only_where_no_router_is_in_front(
    tmp_path: Path, address: str, speed: str, line: int, said: str
) -> None:
    root = machine(
        tmp_path,
        proc__net__route=ROUTE,
        proc__net__fib_trie=TRIE.format(address),
        sys__class__net__eth0__speed=f"{speed}\n",
        sys__class__net__eth1__speed="100\n",
    )
    found = detect(root)
    assert found.profile.link_bytes_per_second == line
    assert said in " ".join(found.notes)


def test_a_public_ipv6_address_is_a_host_without_a_router(tmp_path: Path) -> None:
    root = machine(
        tmp_path,
        proc__net__ipv6_route=" ".join(["0" * 32, "00", *["0" * 32, "00"], "fe80".ljust(32, "0"),
                                        "00000400", "0", "0", "0", "ens3"]) + "\n",
        proc__net__if_inet6="2a01" + "0" * 27 + "1 02 40 00 80 ens3\n",
        sys__class__net__ens3__speed="1000\n",
    )  # fmt: skip
    found = detect(root).profile
    assert found.link_bytes_per_second == 125_000_000
    assert found.new_connections_per_second == 1000
