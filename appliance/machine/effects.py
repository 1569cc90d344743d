"""What a running machine must be told once its files changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from appliance.errors import ApplianceError
from appliance.machine import programs
from appliance.machine.places import DAEMON, Places
from appliance.machine.report import Report

Call = Callable[[list[str]], None]

_RELOADED: Final = (
    ("etc/nftables", "nftables.service"),
    ("etc/appliance/prometheus/", "prometheus.service"),
)
"""Whose configuration lies below a path. Units have a rule of their own."""

OURS: Final = ("etc/systemd/system/appliance.service.d/", "etc/appliance/hardware.json")
"""What the daemon itself reads at its start."""

_UNITS: Final = "etc/systemd/system/"
_SYSCTL: Final = "etc/sysctl.d/"


def caller(places: Places, report: Report) -> Call:
    """Runs a program of the live machine, its failure a fault; elsewhere nothing runs."""

    def call(command: list[str]) -> None:
        try:
            done = programs.run(command)
        except ApplianceError as error:
            report.fault(error.message)
            return
        if done.returncode:
            said = " ".join(done.stderr.split())[-300:]
            report.fault(f"{' '.join(command)}: {said or f'exit code {done.returncode}'}")

    return call if places.live else lambda _: None


def units_of(changed: Iterable[str]) -> list[str]:
    """The units whose configuration is among the `changed` files, each once; not the daemon's."""
    found = {}
    for name in changed:
        if name.startswith(_UNITS):
            found[name.removeprefix(_UNITS).split("/")[0].removesuffix(".d")] = True
        for prefix, unit in _RELOADED:
            if name.startswith(prefix):
                found[unit] = True
    found.pop(f"{DAEMON}.service", None)
    return list(found)


def configured(places: Places, changed: list[str], call: Call) -> None:
    """Units and kernel settings, as far as they are not to be started anew."""
    if any(name.startswith(_UNITS) for name in changed):
        call(["systemctl", "daemon-reload"])
    settings = [str(places.run / name) for name in changed if name.startswith(_SYSCTL)]
    if settings:
        call(["/usr/lib/systemd/systemd-sysctl", *settings])
    # At boot nothing of this runs yet, and some of it is installed on few machines. Not waited for:
    # a unit that is to start after us would wait for us.
    for unit in filter(_active, units_of(changed)):
        call(["systemctl", "--no-block", "try-reload-or-restart", unit])


def networked(*, wired: bool, wifi: bool, call: Call) -> None:
    if wired and _active("systemd-networkd.service"):
        call(["networkctl", "reload"])
    if wifi:
        for phy in sorted(Path("/sys/class/net").glob("*/phy80211")):
            unit = f"appliance-wifi@{phy.parent.name}.service"
            call(["systemctl", "--no-block", "restart", unit])


def daemon(call: Call) -> None:
    """It starts, or starts anew, with what it now reads."""
    unit = f"{DAEMON}.service"
    if programs.state_of(unit) == "failed":
        call(["systemctl", "reset-failed", unit])
    call(["systemctl", "--no-block", "restart", unit])


def _active(unit: str) -> bool:
    return programs.state_of(unit) in ("active", "activating", "reloading")
