"""The documents of one file, told apart by their kind: one appliance, the machine beneath it, and
the hardware profiles that it may name.

Paths in the appliance begin at its top, as if it were alone. Those in the machine begin with
`Machine.`, those in a profile with `HardwareProfile/NAME.`; those in a document that cannot be told
apart so, with `documents[INDEX].`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from appliance.declaration.faults import START, FileFault, Mark
from appliance.declaration.hardware import HardwareProfile, written_profile
from appliance.declaration.kinds import Reading
from appliance.declaration.model import API_VERSION, KIND, Declaration
from appliance.declaration.model_machine import MachineSpec, ReadMachine, read_machine
from appliance.declaration.nodes import Document, Mapping, Node, Scalar, describe
from appliance.declaration.sections import Section
from appliance.declaration.versions import Upgraded, upgrade
from appliance.sizing.profile import Profile

PROFILE_KIND: Final = "HardwareProfile"
MACHINE_KIND: Final = "Machine"

KINDS: Final[dict[str, type]] = {
    KIND: Declaration,
    PROFILE_KIND: HardwareProfile,
    MACHINE_KIND: MachineSpec,
}
"""What a document may be, with the type of its fields."""

ENVELOPE: Final = {"apiVersion": (API_VERSION,), "kind": tuple(KINDS)}
"""The two fields that say what a document is, and the values that this version reads."""


@dataclass(slots=True)
class Documents:
    """A file's documents: the appliance and the machine, if there are any, and the profiles by
    name."""

    appliance: Upgraded | None = None
    machine: ReadMachine | None = None
    profiles: dict[str, Profile | None] = field(default_factory=dict)
    """None where the description is wrong."""
    faults: list[FileFault] = field(default_factory=list)


def sort(documents: Sequence[Document]) -> Documents:
    """Tell the documents apart and read the profiles; the appliance itself is not read yet."""
    found = Documents()
    named: dict[str, Mapping] = {}
    upgraded = [upgrade(document.root) for document in documents]
    kinds = _kinds(upgraded)
    for index, (document, current, kind) in enumerate(zip(documents, upgraded, kinds, strict=True)):
        prefix, faults = f"documents[{index}].", [*document.duplicates, *current.faults]
        faults += _envelope(current.root)
        if kind == KIND and found.appliance is None:
            found.appliance, prefix = current, ""
        elif kind == KIND:
            first = found.appliance.root.mark.line if found.appliance else 0
            mark = _mark(current.root, "kind")
            message = f"line {first} begins an {KIND} already; one file describes one"
            faults.append(FileFault(mark, "kind", message))
        elif kind == MACHINE_KIND and found.machine is None:
            found.machine, prefix = read_machine(body(current.root)), f"{MACHINE_KIND}."
            faults += found.machine.faults
        elif kind == MACHINE_KIND:
            first = found.machine.line if found.machine else 0
            message = f"line {first} begins a {MACHINE_KIND} already; one file describes one"
            faults.append(FileFault(_mark(current.root, "kind"), "kind", message))
        elif kind == PROFILE_KIND:
            name, profile, wrong = _profile(current.root)
            faults += wrong
            if name is not None:
                prefix = f"{PROFILE_KIND}/{name}."
                if name in named:
                    message = f"is the name of the {PROFILE_KIND} on line {named[name].mark.line}"
                    mark = _mark(current.root, "metadata")
                    faults.append(FileFault(mark, "metadata.name", message))
                named.setdefault(name, current.root)
                found.profiles.setdefault(name, profile)
        found.faults += _below(prefix, faults)
    if KIND not in kinds and None not in kinds:
        message = f"no document here is an {KIND}; one of them must be"
        found.faults.append(FileFault(START, "", message))
    return found


def body(root: Mapping) -> Mapping:
    """The fields of a document without its envelope."""
    kept = tuple((key, node) for key, node in root.entries if key.text not in ENVELOPE)
    return Mapping(root.mark, kept)


def _kinds(documents: Sequence[Upgraded]) -> list[str | None]:
    """What each is, or is most likely meant to be: a misspelt kind must not hide other faults."""
    kinds = [_kind(document.root) for document in documents]
    if KIND not in kinds and kinds.count(None) == 1:
        kinds[kinds.index(None)] = KIND
    return kinds


def _kind(root: Mapping) -> str | None:
    node = _given(root, "kind")
    if not isinstance(node, Scalar):
        return None
    return next(iter(difflib.get_close_matches(node.text, KINDS, n=1, cutoff=0.6)), None)


def _envelope(root: Mapping) -> list[FileFault]:
    faults = []
    for name, known in ENVELOPE.items():
        node = _given(root, name)
        if node is None:
            faults.append(FileFault(root.mark, name, f"is missing; write '{name}: {known[0]}'"))
        elif not isinstance(node, Scalar) or node.text not in known:
            likely = _kind(root) if name == "kind" else None
            hint = f"; did you mean '{likely}'?" if likely else ""
            message = f"{describe(node)} is not {' or '.join(known)}{hint}"
            faults.append(FileFault(node.mark, name, message))
    return faults


def _profile(root: Mapping) -> tuple[str | None, Profile | None, list[FileFault]]:
    """The name (None: it has no good one), the profile (None: something is wrong), the faults."""
    reading = Reading()
    Section(HardwareProfile).read_fields(body(root), "", reading)
    name: str | None = reading.values.get("metadata.name")
    if reading.faults or name is None:
        return name, None, reading.faults
    return name, written_profile(name, "", reading), []


def _given(root: Mapping, name: str) -> Node | None:
    return next((node for key, node in root.entries if key.text == name), None)


def _mark(root: Mapping, name: str) -> Mark:
    return (_given(root, name) or root).mark


def _below(prefix: str, faults: Iterable[FileFault]) -> list[FileFault]:
    return [FileFault(fault.mark, prefix + fault.path, fault.message) for fault in faults]
