"""What a booted image must show, each seen from outside or asked over SSH."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import trio

from appliance.image import scan
from appliance.image.guest_shell import Shell
from appliance.image.partitions import Partition

DECLARATION: Final = "/etc/appliance/appliance.yaml"
_SYSCTL_FILES: Final = "/etc/sysctl.d/*-appliance*.conf"
_SSH_PORT: Final = 22
_PAGE: Final = 4096
_SETTLED: Final = 900  # seconds until every unit has started; emulation is slow
_CONNECT: Final = 5.0
_COLOURS: Final = re.compile(r"\x1b\[[0-9;]*m")


class Wrong(Exception):
    """The image is not as it must be: how, in a few words."""


@dataclass(slots=True)
class Booted:
    """A booted image, and what was learnt of it on the way."""

    shell: Shell
    data: Partition | None
    """Its data partition as it is in the image, before it grew."""
    console: Callable[[], str]
    """What it showed there until now."""
    _plan: Mapping[str, Any] | None = None

    @property
    def address(self) -> str:
        """Where it is."""
        return self.shell.door.address

    async def plan(self) -> Mapping[str, Any]:
        """As the guest itself computes it."""
        if self._plan is None:
            self._plan = json.loads(
                await self.shell.output(f"sudo -n appliance plan {DECLARATION} --json")
            )
        return self._plan

    async def listeners(self) -> list[Mapping[str, Any]]:
        """The sockets that the plan names."""
        found: list[Mapping[str, Any]] = (await self.plan())["listeners"]
        return found


@dataclass(frozen=True, slots=True)
class Check:
    """`judge` says what it saw, or raises Wrong, or GuestFailed."""

    name: str
    judge: Callable[[Booted], Awaitable[str]]


async def key_only(booted: Booted) -> str:
    """The server offers nothing but public keys, and refuses root with the right key, too."""
    door = booted.shell.door
    said = await door.refusal("operator", "-o", "PreferredAuthentications=none")
    if "(publickey)" not in said:
        raise Wrong(f"SSH offers more than keys: {said or 'it lets everybody in'}")
    said = await door.refusal("root")
    if "Permission denied" not in said:
        raise Wrong(f"root's login was not refused: {said or 'it got in'}")
    return "operator gets in with a key; passwords, keyboard-interactive and root do not"


async def units(booted: Booted) -> str:
    """Everything has started and nothing has failed."""
    answer = await booted.shell.run("systemctl is-system-running --wait", within=_SETTLED)
    state = answer.out.strip()
    failed = await booted.shell.output("systemctl --failed --plain --no-legend")
    names = [line.split()[0] for line in failed.splitlines() if line.strip()]
    if names or state != "running":
        raise Wrong(f"the system is {state or 'silent'}; failed: {', '.join(names) or 'none'}")
    return "running, no unit failed"


async def status(booted: Booted) -> str:
    """The daemon answers the operator, who needs no more rights for it."""
    document = json.loads(await booted.shell.output("appliance status --json"))
    state = await booted.shell.output("systemctl show appliance --property=ActiveState --value")
    if state.strip() != "active":
        raise Wrong(f"the unit is {state.strip()}")
    return f"{document['name']} {document['version']}, up {document['uptime_s']:.0f} s"


async def limits(booted: Booted) -> str:
    """The plan's numbers are those that the kernel and systemd hold."""
    plan = await booted.plan()
    names = list(plan["unit"])
    shown = await booted.shell.output(f"systemctl show appliance --property={','.join(names)}")
    held = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
    keys = list(plan["sysctl"])
    values = (await booted.shell.output(f"sudo -n sysctl -n {' '.join(keys)}")).split()
    held |= dict(zip(keys, values, strict=True))
    for name, wanted in (plan["unit"] | plan["sysctl"]).items():
        # The kernel counts a unit's memory in whole pages.
        there = int(held[name]) if held.get(name, "").isdigit() else held.get(name)
        grain = _PAGE if name.startswith("Memory") else 1
        if not isinstance(there, int) or there // grain != wanted // grain:
            raise Wrong(f"{name} is {there}, and the plan says {wanted}")
    return ", ".join(f"{name} {held[name]}" for name in (*names, *keys))


@dataclass(frozen=True, slots=True)
class Setting:
    """A line of sysctl.d(5)."""

    name: str
    value: str
    optional: bool
    """A kernel may refuse it."""


def settings(text: str) -> list[Setting]:
    """Those in a file of sysctl.d(5); of two with one name the later holds."""
    found: dict[str, Setting] = {}
    for line in text.splitlines():
        name, equals, value = line.strip().partition("=")
        if equals and not name.startswith(("#", ";")):
            plain = name.strip().removeprefix("-")
            found[plain] = Setting(plain, _spaced(value), name.startswith("-"))
    return list(found.values())


async def kernel(booted: Booted) -> str:
    """What the roles and the plan set of the kernel is what it holds."""
    # A shell of root's own expands the names: the operator sees no such file.
    declared = settings(await booted.shell.output(f"sudo -n sh -c 'cat {_SYSCTL_FILES}'"))
    if not declared:
        raise Wrong(f"{_SYSCTL_FILES} set nothing")
    names = " ".join(one.name for one in declared)
    # It fails for a name that the kernel does not know; the others are told all the same.
    shown = (await booted.shell.run(f"sudo -n sysctl {names}")).out
    held = {name.strip(): _spaced(value) for name, _, value in _pairs(shown)}
    unlike = [one for one in declared if held.get(one.name) != one.value]
    told = [f"{one.name} is {held.get(one.name)}, not {one.value}" for one in unlike]
    if any(not one.optional for one in unlike):
        raise Wrong("; ".join(told))
    refused = f"; refused: {'; '.join(told)}" if told else ""
    return f"{len(declared) - len(told)} settings hold{refused}"


async def metrics(booted: Booted) -> str:
    """They answer in the guest, and only there."""
    ports = [one["port"] for one in await booted.listeners() if one["owner"] == "metrics"]
    if not ports:
        return "switched off in the declaration"
    port = ports[0]
    reader = (
        "import urllib.request as r; "
        f"print(r.urlopen('http://127.0.0.1:{port}/metrics', timeout=60).read().decode())"
    )
    text = await booted.shell.output(f'python3 -c "{reader}"')
    count = sum(line.startswith("kaspa_appliance_") for line in text.splitlines())
    if not count:
        raise Wrong(f"port {port} answers without a metric of ours")
    with trio.move_on_after(_CONNECT):
        try:
            stream = await trio.open_tcp_stream(booted.address, port)
        except OSError:
            pass
        else:
            await stream.aclose()
            raise Wrong(f"port {port} can be reached from outside")
    return f"{count} of ours on 127.0.0.1:{port}, not reachable from outside"


def tcp_at(address: str, listeners: Iterable[Mapping[str, Any]]) -> set[int]:
    """The ports that are declared for this address, or for all. One that is for another address
    cannot be open: the test's network is not the declaration's."""
    here = ("0.0.0.0", "::", address)
    return {
        one["port"] for one in listeners if one["transport"] == "tcp" and one["address"] in here
    }


async def tcp_ports(booted: Booted) -> str:
    """Every one of the 65,535."""
    declared = {_SSH_PORT} | tcp_at(booted.address, await booted.listeners())
    found = await scan.open_tcp(booted.address)
    if extra := found - declared:
        raise Wrong(f"open, and not declared: {_joined(extra)}")
    if missing := declared - found:
        raise Wrong(f"declared, and not open: {_joined(missing)}")
    return f"of 65535 open: {_joined(found)}, as declared"


async def udp_ports(booted: Booted) -> str:
    """Those of common services, asked what they answer to everybody."""
    if found := await scan.answering_udp(booted.address):
        raise Wrong(f"answers on {_joined(found)}")
    return f"no answer on {_joined(scan.UDP_QUESTIONS)}"


async def root(booted: Booted) -> str:
    """Root itself cannot write to it."""
    options = (await booted.shell.output("findmnt --noheadings --output OPTIONS /")).strip()
    answer = await booted.shell.run("sudo -n touch /usr/written")
    if answer.code == 0 or "ro" not in options.split(","):
        raise Wrong(f"it can be written ({options})")
    return "read-only"


async def data(booted: Booted) -> str:
    """Partition and file system fill the disk, which was larger than the image."""
    if booted.data is None:
        raise Wrong("the image has no partition called data")
    source = (await booted.shell.output("findmnt --noheadings --output SOURCE /var")).strip()
    device = source.partition("[")[0]
    size = int(await booted.shell.output(f"lsblk --noheadings --bytes --output SIZE {device}"))
    shown = await booted.shell.output("df --block-size=1 --output=size /var")
    held = int(shown.split()[-1])
    # ext4 keeps some per cent for its own tables.
    if size <= booted.data.size or held < size * 9 // 10:
        raise Wrong(f"{device} has {size} bytes, its file system {held}")
    mib = 1024 * 1024
    return f"grown from {booted.data.size // mib} to {size // mib} MiB on first boot"


async def off(booted: Booted) -> str:
    """Of a machine that is off again: everything in it came to its end."""
    shown = _COLOURS.sub("", booted.console())
    failed = [line.strip() for line in shown.splitlines() if "[FAILED]" in line]
    if failed:
        raise Wrong(f"its console said {failed[-1]}")
    return "every unit ended, every file system is unmounted"


CHECKS: Final = (
    Check("login", key_only),
    Check("units", units),
    Check("status", status),
    Check("limits", limits),
    Check("kernel", kernel),
    Check("metrics", metrics),
    Check("tcp ports", tcp_ports),
    Check("udp ports", udp_ports),
    Check("root", root),
    Check("data", data),
)
OFF: Final = Check("off", off)
"""After the machine was switched off."""


def _pairs(text: str) -> Iterator[tuple[str, str, str]]:
    return (line.partition("=") for line in text.splitlines())


def _spaced(value: str) -> str:
    """The kernel puts tabs between several numbers."""
    return " ".join(value.split())


def _joined(ports: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(ports))) or "none"
