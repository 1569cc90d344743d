"""What people are shown: `faults.txt` and `state.txt` on the setup partition, and the console."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import psutil

from appliance.declaration.load import loaded_text
from appliance.errors import ApplianceError
from appliance.machine import files, programs
from appliance.machine.access import host_fingerprint
from appliance.machine.judge import environment
from appliance.machine.places import DAEMON, FAULTS, LOGIN, NOTES, Places
from appliance.machine.report import Report
from appliance.machine.setup import Setup
from appliance.operate import control, safetext
from appliance.units import MIB

_WIDTH: Final = 13

LEAST_ROOM: Final = 4 * MIB
"""Bytes: what a database writes in one go."""


def publish(places: Places, setup: Setup, report: Report) -> None:
    """`faults.txt`, gone when nothing is wrong; the rest follows with `refresh`."""
    kept = "".join(f"{line}\n" for line in _told(report))
    try:
        files.write(places.run / FAULTS, kept.encode())
        if setup.present:
            target = places.setup / FAULTS
            if kept:
                files.write_beside(target, _document(report).encode())
            else:
                files.remove(target)
    except OSError as error:
        # On the console and in the journal it stands all the same.
        report.fault(f"{FAULTS} cannot be written: {files.why(error)}")
    refresh(places)


def refresh(places: Places) -> str:
    """The state as it is now, on the console and in `state.txt`; returns it. Never raises OSError:
    a card that is read-only shows nothing new."""
    text = "".join(f"{line}\n" for line in state(places))
    faults = _read(places.run / FAULTS)
    shown = text + (f"\nTO MEND:\n{faults}" if faults else "")
    head = "What this machine says of itself. It writes this file; edit appliance.yaml.\n\n"
    try:
        _look_again(places)
        # agetty(8) takes a backslash for the beginning of an escape.
        issue = "\n" + shown.replace("\\", "\\\\") + "\nNobody logs in here: use SSH.\n\n"
        if files.write(places.issue, issue.encode()) and places.live:
            programs.output(["agetty", "--reload"])
        if not places.live or os.path.ismount(places.setup):
            files.write_beside(places.setup / NOTES, (head + shown).encode())
    except OSError:
        return shown
    return shown


def has_room(places: Places) -> bool:
    """Whether the data partition takes more. Root's own reserve does not count: the daemon has no
    part in it. Raises OSError."""
    return not places.state.is_dir() or files.left(places.state) >= LEAST_ROOM


def _look_again(places: Places) -> None:
    """A disk that was full and is no longer: what could not be kept can be."""
    if places.live and places.short_of_room.exists() and has_room(places):
        programs.output(["systemctl", "--no-block", "start", "appliance-machine.service"])


def state(places: Places) -> Iterator[str]:
    """Name, addresses, how to log in, the daemon. No counters: it is written to a memory card."""
    name = _read(places.run / "hostname").strip() or "appliance"
    addresses = list(_addresses()) if places.live else []
    yield f"{name}"
    yield ""
    yield _row("address", ", ".join(addresses) or "none: no network yet")
    keys = len(_read(places.run / "authorized_keys" / LOGIN).splitlines())
    host = addresses[0].split(" ")[0] if addresses else "ADDRESS"
    known = f"ssh {LOGIN}@{host}  (with a key of {keys})" if keys else "nobody: no SSH key is known"
    yield _row("log in", known)
    yield _row("its SSH key", f"{host_fingerprint(places) or 'none'} (ED25519)")
    yield from _daemon(places)


def _daemon(places: Places) -> Iterator[str]:
    try:
        data = places.declaration.read_bytes()
        declaration = loaded_text(data, file="", environ=environment(places)).declaration
    except (OSError, ApplianceError):
        yield _row("appliance", "not running: there is no good declaration yet")
        return
    try:
        found = control.query(declaration.control.socket, "status")
    except ApplianceError:
        yield from _why_not()
        return
    if not isinstance(found, dict):
        yield _row("appliance", "gives no answer that we understand")
        return
    role: Any = found.get("role", {})
    reserved = [
        entry
        for entry in found.get("reservations", [])
        if isinstance(entry, dict) and entry.get("state") in ("active", "renewing")
    ]
    reach = role.get("effective", "unknown")
    if reserved:
        reach += f", reached through {len(reserved)} relay" + ("s" if len(reserved) > 1 else "")
    elif reach == "private":
        reach += ", reached by nobody yet: no relay holds a place for it"
    yield _row("appliance", f"running, {found.get('version')}, on {found.get('network')}")
    yield _row("role", reach)
    yield _row("peer id", str(found.get("peer_id")))
    node: Any = found.get("node", {})
    answers = {True: "answers", False: "does not answer"}
    reach = answers.get(node.get("reachable"), "not asked yet")
    yield _row("node", f"{node.get('kind')} at {node.get('p2p')}: {reach}")


def _why_not() -> Iterator[str]:
    unit = f"{DAEMON}.service"
    condition = programs.state_of(unit)
    yield _row("appliance", f"does not answer ({condition or 'no systemd'})")
    if condition in ("failed", "activating"):
        said = programs.output(
            ["journalctl", f"--unit={unit}", "--lines=3", "--output=cat", "--no-pager"]
        )
        for line in said.splitlines():
            yield _row("", safetext.one_line(line, 200))


def _addresses() -> Iterator[str]:
    """The ones that others may use: global IPv4, then IPv6, then what is only this link's."""
    found = []
    for interface, entries in psutil.net_if_addrs().items():
        for entry in entries:
            if entry.family not in (socket.AF_INET, socket.AF_INET6):
                continue
            address = ipaddress.ip_address(entry.address.partition("%")[0])
            if not address.is_loopback:
                order = (address.is_link_local, address.version, str(address))
                found.append((order, f"{address} ({interface})"))
    return (text for _, text in sorted(found))


def _told(report: Report) -> Iterator[str]:
    yield from report.faults
    for paragraph in report.advice:
        yield from ("", *paragraph.splitlines())


def _document(report: Report) -> str:
    lines = ["What is to be mended on this machine; the file goes when nothing is left.", ""]
    lines += _told(report)
    if report.notes:
        lines += ["", *report.notes]
    return "".join(f"{line}\n" for line in lines)


def _row(title: str, text: str) -> str:
    return f"{title:<{_WIDTH}}{text}".rstrip()


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
