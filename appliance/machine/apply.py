"""One application of the setup partition's files; every boot, and whenever one of them changes.

What lets people in comes first: keys and SSH before the declaration, the network before the daemon.
Nothing in here fails a boot: what is wrong becomes a line of the report.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import socket
from pathlib import Path
from typing import Final

from appliance.declaration.model_machine import MachineSpec
from appliance.machine import access, effects, files, networkd, render, wifi
from appliance.machine.chosen import Chosen, choose
from appliance.machine.notes import has_room, publish
from appliance.machine.places import Places
from appliance.machine.report import Report
from appliance.machine.setup import Setup, read_setup
from appliance.units import KIB

NAME: Final = "appliance"
"""The host name, until a declaration says another."""

ROUNDS: Final = 3
"""How often what changed meanwhile is looked at again; the path unit does not see it."""


def apply(places: Places, *, if_changed: bool = False) -> Report | None:
    """Applies the files, and once more while they keep changing. Two at once take turns.

    `if_changed`: None, and nothing done, where the last time this boot was without a fault and the
    files are still the same; our own notes beside them must not start everything anew.
    """
    places.run.mkdir(parents=True, exist_ok=True)
    with (places.run / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = places.run / "applied"
        with contextlib.suppress(OSError):
            now = read_setup(places)
            if if_changed and now.passphrase is None and done.read_text() == _digest(now):
                return None
        done.unlink(missing_ok=True)
        for _ in range(ROUNDS):
            setup = read_setup(places)
            report = _apply(places, setup)
            if _same(setup, read_setup(places)):
                break
        if not report.faults:
            done.write_text(_digest(setup))
    return report


def _apply(places: Places, setup: Setup) -> Report:
    report = Report()
    for line in setup.faults:
        report.fault(line)
    _look_at_data(places, report)
    call = effects.caller(places, report)
    access.host_key(places, report)
    keys = access.file_keys(places, setup, report)
    if keys:
        access.authorize(places, keys, report)

    chosen = choose(places, setup, report)
    machine = chosen.machine
    if not access.authorize(places, (*keys, *chosen.keys), report):
        report.fault("nobody can log in: put a public SSH key into a file authorized_keys")

    wired = _network(places, machine, report)
    wireless = wifi.configure(places, machine.wifi, setup, report)
    _identity(places, chosen, report)
    with report.step("time zone"):
        _link(places.run / "localtime", Path("/usr/share/zoneinfo") / machine.timezone)

    changed = render.render_all(places, chosen.plan, report)
    renewed = _hand_over(places, chosen, report)
    if places.live:
        effects.configured(places, changed, call)
        effects.networked(wired=wired, wifi=wireless, call=call)
        ours = any(name.startswith(effects.OURS) for name in changed)
        if chosen.data is not None and (renewed or ours):
            effects.daemon(call)
    publish(places, setup, report)
    return report


def _look_at_data(places: Places, report: Report) -> None:
    """Whether there is a data partition, and room on it."""
    with report.step("data partition"):
        reason = files.read(places.run / "no-data", KIB)  # left by the initrd
        if reason is not None:
            why = reason.decode("utf-8", "replace").strip()
            report.fault(f"{why}: nothing is kept over a restart")
        if has_room(places):
            files.remove(places.short_of_room)
            return
        places.short_of_room.touch()
        report.fault(
            "the data partition is full: the appliance cannot store what it learns; see what fills "
            "it with `sudo du -xh /var | sort -h | tail`"
        )


def _network(places: Places, machine: MachineSpec, report: Report) -> bool:
    with report.step("network"):
        text, target = networkd.wired(machine.network), places.networks / networkd.FIXED
        return files.remove(target) if text is None else files.write(target, text.encode())
    return False


def _identity(places: Places, chosen: Chosen, report: Report) -> None:
    """Host name and hosts(5)."""
    name = chosen.name or NAME
    with report.step("host name"):
        files.write(places.run / "hostname", f"{name}\n".encode())
        lines = ["127.0.0.1 localhost", f"127.0.1.1 {name}", "::1 localhost ip6-localhost"]
        fixed = chosen.machine.network.address
        lines += [f"{address.ip} {name}" for address in fixed if address.version == 4]
        files.write(places.run / "hosts", "".join(f"{line}\n" for line in lines).encode())
        if places.live and socket.gethostname() != name:
            socket.sethostname(name)


def _hand_over(places: Places, chosen: Chosen, report: Report) -> bool:
    """The daemon's declaration, in memory: it is there though nothing can be kept."""
    with report.step("the daemon's declaration"):
        if chosen.data is None:
            return files.remove(places.declaration)
        return files.write(places.declaration, chosen.data)
    return False


def _link(path: Path, target: Path) -> None:
    if path.is_symlink() and path.readlink() == target:
        return
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def _digest(setup: Setup) -> str:
    """Of all but the passphrase, which is gone once it was applied."""
    parts = (setup.declaration, setup.keys, setup.faults)
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _same(before: Setup, after: Setup) -> bool:
    """The passphrase is gone by our own doing."""
    if after.passphrase is not None and after.passphrase != before.passphrase:
        return False
    return (before.declaration, before.keys) == (after.declaration, after.keys)
