"""A file → a `Declaration`, or one error that lists every fault with its place."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from appliance.declaration import checks
from appliance.declaration.faults import START, DeclarationErrors, FileFault, Mark
from appliance.declaration.kinds import Reading, Section
from appliance.declaration.model import API_VERSION, KIND, Declaration
from appliance.declaration.nodes import (
    MAX_BYTES,
    Scalar,
    UnreadableError,
    compose,
    describe,
)
from appliance.declaration.nodes import Mapping as MappingNode
from appliance.declaration.settings import Computed, settings_of
from appliance.errors import ApplianceError
from appliance.network import Endpoint

ENVELOPE: Final = {"apiVersion": (API_VERSION,), "kind": (KIND,)}
"""The two fields that say what a document is, and the values that this version reads."""

_STAND_IN: Final = "unnamed"
"""The name, where it is wrong or missing, while the rest of the file is checked."""


def load(path: str | os.PathLike[str], *, environ: Mapping[str, str] | None = None) -> Declaration:
    """Read a file. Raises `DeclarationErrors`, or `ApplianceError` if it cannot be read.

    `environ` (the process's own if None) gives `STATE_DIRECTORY` and `HOME` for the defaults.
    """
    file = os.fspath(path)
    try:
        with Path(file).open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
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
    return loads(data, file=file, environ=environ)


def loads(
    text: str | bytes, *, file: str = "<text>", environ: Mapping[str, str] | None = None
) -> Declaration:
    """Read `text`; `file` is its name in messages. Raises `DeclarationErrors`."""
    data = text.encode() if isinstance(text, str) else text
    try:
        root, duplicates = compose(data)
    except UnreadableError as error:
        raise DeclarationErrors(file, [error.fault]) from None
    reading = Reading(faults=list(duplicates))
    _read_envelope(root, reading)
    body = tuple((key, node) for key, node in root.entries if key.text not in ENVELOPE)
    Section(Declaration).read_fields(MappingNode(root.mark, body), "", reading)
    _fill(Declaration, "", reading, os.environ if environ is None else environ)
    declaration: Declaration = _build(Declaration, "", reading.values)
    reading.faults.extend(_impossible(declaration, reading))
    if reading.faults:
        raise DeclarationErrors(file, reading.faults)
    return declaration


def _read_envelope(root: MappingNode, reading: Reading) -> None:
    given = {key.text: node for key, node in root.entries}
    for name, known in ENVELOPE.items():
        node = given.get(name)
        if node is None:
            reading.wrong(root.mark, name, f"is missing; write '{name}: {known[0]}'")
        elif not isinstance(node, Scalar) or node.text not in known:
            reading.wrong(node.mark, name, f"{describe(node)} is not {' or '.join(known)}")


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
        if isinstance(default, Computed):
            if values.get(path) is None:
                values[path] = default.of(values)
                if any(below in invalid for below in default.depends):
                    invalid.add(path)
        elif path not in values:
            values[path] = _STAND_IN if setting.required else default
        _finish(path, values, environ)


def _finish(path: str, values: dict[str, Any], environ: Mapping[str, str]) -> None:
    if path == "bridge.external":
        port = next((endpoint.port for endpoint in values["bridge.listen"] if endpoint.port), 0)
        values[path] = tuple(
            Endpoint(host, port if given is None else given) for host, given in values[path]
        )
    elif path in ("state.dir", "control.socket"):
        values[path] = _expand(values[path], environ)


def _default_state(name: str, environ: Mapping[str, str]) -> Path:
    # systemd.exec(5): several directories are separated by colons; the first is the state's.
    given = environ.get("STATE_DIRECTORY", "").split(":")[0]
    return Path(given) if given else Path("~/.local/state/appliance") / name


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


def _impossible(declaration: Declaration, reading: Reading) -> list[FileFault]:
    """The cross-checks' problems at their places; those that lean on a wrong field are dropped."""
    faults = []
    for problem in checks.problems(declaration):
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
