"""Which declaration is in force: the one that lies on the setup partition, or the last good one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from appliance.declaration.checks import Problem
from appliance.declaration.load import Loaded, loaded_text, machine_of
from appliance.declaration.model_machine import MachineSpec
from appliance.declaration.nodes import MAX_BYTES
from appliance.declaration.publickeys import PublicKey
from appliance.errors import ApplianceError
from appliance.machine import files
from appliance.machine.judge import environment, judge
from appliance.machine.places import DECLARATION, Places
from appliance.machine.report import Report
from appliance.machine.setup import Setup, UserFile

MISSING: Final = """\
There is no appliance.yaml here yet. Put one beside this file, with at least these lines, and
start the machine again:

    apiVersion: appliance/v1
    kind: Appliance
    metadata:
      name: my-box

For logging in, put your public SSH key beside it in a file authorized_keys, and log in as
`operator`. For Wi-Fi or a fixed address, appliance.yaml takes a second document of kind Machine."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """What this boot runs on. `data` is None without any good declaration: then there is no daemon.

    `machine` may come from a file whose other documents are wrong, where nothing better is known.
    """

    data: bytes | None
    name: str | None
    plan: dict[str, Any] | None
    machine: MachineSpec
    keys: tuple[PublicKey, ...]


def choose(places: Places, setup: Setup, report: Report) -> Chosen:
    """Judges the file, keeps it if it is good, and says what is wrong with it if it is not."""
    given = setup.declaration
    good = None if given is None else _good(places, given, report)
    if given is not None and good is not None:
        with report.step("the declaration is in force, but cannot be kept"):
            files.write(places.state / DECLARATION, given.data, durable=True)
        return good
    kept = _kept(places, report)
    if given is None and setup.present and DECLARATION not in setup.unreadable:
        if kept is None:
            report.fault(f"{DECLARATION}: is missing")
            report.advice.append(MISSING)
        else:
            report.note(f"{DECLARATION} is gone from here; the last good one stays in force")
    if kept is not None:
        if given is not None:
            report.note("the last good declaration stays in force")
        return kept
    read = None if given is None else machine_of(given.data)
    if read is None:
        return Chosen(None, None, None, MachineSpec(), ())
    return Chosen(None, None, None, read.spec or MachineSpec(), read.keys)


def _good(places: Places, given: UserFile, report: Report) -> Chosen | None:
    """What the file says, if all of it is good here."""
    try:
        loaded = loaded_text(given.data, file=given.name, environ=environment(places))
        _check_zone(loaded, places)
        faults, plan = _judged(places, given)
    except ApplianceError as error:
        faults, plan, loaded = error.message.splitlines(), None, None
    for line in faults:
        report.fault(line)
    if faults or loaded is None:
        return None
    return _chosen(given.data, loaded, plan)


def _kept(places: Places, report: Report) -> Chosen | None:
    """The last good declaration. What is wrong with it today is told, and does not remove it."""
    with report.step("the last good declaration"):
        data = files.read(places.state / DECLARATION, MAX_BYTES)
        if data is None:
            return None
        loaded = loaded_text(data, file="last good declaration", environ=environment(places))
        faults, plan = _judged(places, UserFile("last-good.yaml", data))
        for line in faults:
            report.fault(line)
        return _chosen(data, loaded, plan)
    return None


def _judged(places: Places, file: UserFile) -> tuple[list[str], dict[str, Any] | None]:
    copy = places.run / "check" / file.name
    files.write(copy, file.data)
    try:
        found = judge(copy, places)
    finally:
        files.remove(copy)
    return list(found.faults), found.plan


def _chosen(data: bytes, loaded: Loaded, plan: dict[str, Any] | None) -> Chosen:
    machine = loaded.machine or MachineSpec()
    return Chosen(data, loaded.declaration.name, plan, machine, machine.ssh.authorized_keys)


def _check_zone(loaded: Loaded, places: Places) -> None:
    """Raises DeclarationErrors; where the machine carries no time zones, any is right."""
    zone = loaded.machine.timezone if loaded.machine else "UTC"
    if zone == "UTC" or not places.zones.is_dir() or (places.zones / zone).is_file():
        return
    raise loaded.refusal(
        [Problem(("Machine.timezone",), f"{zone!r} is no time zone that this machine knows")]
    )
