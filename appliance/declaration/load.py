"""A file → a `Declaration`, or one error that lists every fault with its place."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from appliance.declaration import checks, documents
from appliance.declaration.faults import START, DeclarationErrors, FileFault, Mark
from appliance.declaration.kinds import Reading
from appliance.declaration.model import Declaration
from appliance.declaration.model_machine import MachineSpec, ReadMachine
from appliance.declaration.nodes import MAX_BYTES, UnreadableError, compose
from appliance.declaration.secrets import SecretFile
from appliance.declaration.sections import Section
from appliance.declaration.settings import Computed, settings_of
from appliance.declaration.versions import Upgraded
from appliance.errors import ApplianceError
from appliance.network import Endpoint

_STAND_IN: Final = "unnamed"
"""The name, where it is wrong or missing, while the rest of the file is checked."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A declaration, and what is still known of the file that it came from."""

    file: str
    declaration: Declaration
    older: str | None
    """The version that the file is written in, unless that is the current one."""
    machine: MachineSpec | None
    """What the file says of the machine beneath; the daemon does not read it."""
    _reading: Reading
    _document: Upgraded

    def refusal(self, problems: Iterable[checks.Problem]) -> DeclarationErrors:
        """`problems`, found later than the file's own, at their places in the file."""
        faults = _placed(problems, self._reading)
        return DeclarationErrors(self.file, self._document.in_its_words(faults))


def load(path: str | os.PathLike[str], *, environ: Mapping[str, str] | None = None) -> Declaration:
    """Read a file. Raises `DeclarationErrors`, or `ApplianceError` if it cannot be read.

    `environ` (the process's own if None) gives `STATE_DIRECTORY`, `RUNTIME_DIRECTORY`,
    `APPLIANCE_CONTROL_GROUP` and `HOME` for the defaults.
    """
    return loaded(path, environ=environ).declaration


def loads(
    text: str | bytes, *, file: str = "<text>", environ: Mapping[str, str] | None = None
) -> Declaration:
    """Read `text`; `file` is its name in messages. Raises `DeclarationErrors`."""
    data = text.encode() if isinstance(text, str) else text
    return _loaded(data, file, environ).declaration


def loaded(path: str | os.PathLike[str], *, environ: Mapping[str, str] | None = None) -> Loaded:
    """As `load`, with the places of the fields."""
    return _loaded(read_bytes(path), os.fspath(path), environ)


def loaded_text(data: bytes, *, file: str, environ: Mapping[str, str] | None = None) -> Loaded:
    """As `loads`, with the places of the fields."""
    return _loaded(data, file, environ)


def machine_of(data: bytes) -> ReadMachine | None:
    """What a file says of the machine beneath, whatever is wrong with its other documents."""
    try:
        return documents.sort(compose(data)).machine
    except UnreadableError:
        return None


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a declaration's file. Raises `ApplianceError` if it cannot be read."""
    file = os.fspath(path)
    try:
        with Path(file).open("rb") as stream:
            return stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        message = f"{file}: there is no such file"
        raise ApplianceError(message, hint="see schemas/examples/ for one to start from") from None
    except IsADirectoryError:
        raise ApplianceError(f"{file}: is a directory, not a declaration") from None
    except PermissionError:
        raise ApplianceError(f"{file}: permission denied") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ApplianceError(f"{file}: cannot be read: {reason}") from None


def _loaded(data: bytes, file: str, environ: Mapping[str, str] | None) -> Loaded:
    try:
        found = documents.sort(compose(data))
    except UnreadableError as error:
        raise DeclarationErrors(file, [error.fault]) from None
    if found.appliance is None:
        raise DeclarationErrors(file, found.faults)
    reading = Reading(profiles=found.profiles)
    Section(Declaration).read_fields(documents.body(found.appliance.root), "", reading)
    _fill(Declaration, "", reading, os.environ if environ is None else environ)
    _require(reading)
    declaration: Declaration = _build(Declaration, "", reading.values)
    reading.faults.extend(_placed(checks.problems(declaration), reading))
    faults = found.faults + found.appliance.in_its_words(reading.faults)
    if faults:
        raise DeclarationErrors(file, faults)
    machine = None
    if found.machine is not None:
        machine = found.machine.spec
        below = f"{documents.MACHINE_KIND}."
        reading.marks |= {below + path: mark for path, mark in found.machine.marks.items()}
    return Loaded(file, declaration, found.appliance.older, machine, reading, found.appliance)


def _fill(cls: type, prefix: str, reading: Reading, environ: Mapping[str, str]) -> None:
    """Give every field that is absent or wrong a value, and finish those that lean on others.

    A default that leans on a wrong field is itself marked invalid: nothing is said about it.
    """
    values, invalid = reading.values, reading.invalid
    for name, setting in settings_of(cls).items():
        path, kind, default = f"{prefix}{name}", setting.kind, setting.default
        if isinstance(kind, Section):
            _fill(kind.cls, f"{path}.", reading, environ)
            continue
        if path == "state.dir":
            values["state.dir default"] = _default_state(values["metadata.name"], environ)
        elif path == "control.socket":
            values["control.socket directory"] = _first_directory(environ, "RUNTIME_DIRECTORY")
            values["control.group default"] = environ.get("APPLIANCE_CONTROL_GROUP") or None
        if isinstance(default, Computed):
            if values.get(path) is None:
                values[path] = default.of(values)
                if any(below in invalid for below in default.depends):
                    invalid.add(path)
        elif path not in values:
            values[path] = _STAND_IN if setting.required else default
            if setting.required:
                invalid.add(path)
        _finish(path, values, environ)


def _finish(path: str, values: dict[str, Any], environ: Mapping[str, str]) -> None:
    if path == "bridge.external":
        port = next((endpoint.port for endpoint in values["bridge.listen"] if endpoint.port), 0)
        values[path] = tuple(
            Endpoint(host, port if given is None else given) for host, given in values[path]
        )
    elif path in ("state.dir", "control.socket"):
        values[path] = _expand(values[path], environ)
    elif path == "identity.key":
        values[path] = SecretFile(_expand(values[path].path, environ))


def _require(reading: Reading) -> None:
    """What another field makes required."""
    if reading.values["node.kind"] == "remote" and "node.p2p" not in reading.marks:
        message = "is missing; a remote kaspad is wherever this says"
        reading.wrong(_place("node.kind", reading), "node.p2p", message)


def _default_state(name: str, environ: Mapping[str, str]) -> Path:
    given = _first_directory(environ, "STATE_DIRECTORY")
    return given or Path("~/.local/state/appliance") / name


def _first_directory(environ: Mapping[str, str], name: str) -> Path | None:
    """systemd.exec(5): several directories are separated by colons; the first is ours."""
    given = environ.get(name, "").split(":")[0]
    return Path(given) if given else None


def _expand(path: Path, environ: Mapping[str, str]) -> Path:
    if path.parts[:1] != ("~",):
        return path
    return Path(environ.get("HOME") or "/", *path.parts[1:])


def _build(cls: type, prefix: str, values: Mapping[str, Any]) -> Any:
    fields: dict[str, Any] = {}
    for name, setting in settings_of(cls).items():
        path, kind = f"{prefix}{name}", setting.kind
        if isinstance(kind, Section):
            fields[name] = _build(kind.cls, f"{path}.", values)
        else:
            fields[name] = values[path]
    return cls(**fields)


def _placed(problems: Iterable[checks.Problem], reading: Reading) -> list[FileFault]:
    """The problems at their places; those that lean on a wrong field are dropped."""
    faults = []
    for problem in problems:
        paths = [reading.written.get(path, path) for path in problem.paths]
        if any(_is_unsure(path, reading) for path in paths):
            continue
        # Complain where something is written: the other side of a clash may be a default.
        path = next((path for path in paths if path in reading.marks), paths[0])
        faults.append(FileFault(_place(path, reading), path, problem.message))
    return faults


def _is_unsure(path: str, reading: Reading) -> bool:
    """Wrong itself, or an item of a list that a wrong field decides instead of the file."""
    inherited = path not in reading.marks and path.partition("[")[0] in reading.invalid
    return path in reading.invalid or inherited


def _place(path: str, reading: Reading) -> Mark:
    while path not in reading.marks and path:
        path = path.rpartition("[" if path.endswith("]") else ".")[0]
    return reading.marks.get(path, START)
