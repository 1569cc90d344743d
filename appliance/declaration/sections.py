"""The kind of value that is a mapping of fields, and what follows from its fields: the way through
them, their JSON Schema, their defaults in words.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from enum import Enum
from typing import Any, Final

from appliance.declaration.kinds import INVALID, Kind, ListOf, Reading, Schema, suggestion
from appliance.declaration.nodes import Mapping, Node, Scalar, child
from appliance.declaration.settings import Computed, Setting, settings_of


class Section(Kind):
    """A mapping whose fields are the settings of a dataclass; an empty value is an empty one."""

    noun = "a mapping of fields"

    def __init__(self, cls: type, *, secret: bool = False) -> None:
        self.cls, self._secret = cls, secret

    @property
    def secret(self) -> bool:
        return self._secret or any(
            setting.kind.secret for setting in settings_of(self.cls).values()
        )

    def read(self, node: Node, path: str, reading: Reading) -> Any:
        if isinstance(node, Scalar) and node.tag == "null":
            node = Mapping(node.mark, ())
        if not isinstance(node, Mapping):
            return self.bad(node, path, reading)
        self.read_fields(node, path, reading)
        return None

    def read_fields(self, node: Mapping, path: str, reading: Reading) -> None:
        """Each field's value goes to `reading.values` under its path, its place to `marks`."""
        known = settings_of(self.cls)
        kinds = [setting.kind for setting in known.values()]
        holds_secret = self._secret or any(
            kind.secret for kind in kinds if not isinstance(kind, Section)
        )
        seen: set[str] = set()
        for key, value_node in node.entries:
            below = child(path, key.text)
            if key.text not in known:
                if holds_secret and not _FIELD_NAME.fullmatch(key.text):
                    below = child(path, "?")  # `{key:SECRET}` lacks a space
                hint = _ELSEWHERE.get(below) or suggestion(key.text, known)
                reading.wrong(key.mark, below, "unknown field" + hint)
                continue
            seen.add(key.text)
            reading.marks[below] = value_node.mark
            kind = known[key.text].kind
            empty = isinstance(value_node, Scalar) and value_node.tag == "null"
            if empty and isinstance(kind, ListOf):
                continue
            value = kind.read(value_node, below, reading)
            if value is not INVALID and not isinstance(kind, Section):
                reading.values[below] = value
        for name, setting in known.items():
            if setting.required and name not in seen:
                reading.wrong(node.mark, child(path, name), "is missing")

    def schema(self) -> Schema:
        return section_schema(self.cls)


def walk(cls: type, prefix: str = "") -> Iterator[tuple[str, Setting]]:
    """Every setting below `cls` with its dotted path; a section before its fields."""
    for name, setting in settings_of(cls).items():
        path = f"{prefix}{name}"
        yield path, setting
        if isinstance(setting.kind, Section):
            yield from walk(setting.kind.cls, f"{path}.")


def section_schema(cls: type) -> Schema:
    """The schema of the mapping whose fields are the settings of `cls`."""
    settings = settings_of(cls)
    required = [name for name, setting in settings.items() if setting.required]
    schema: Schema = {
        "type": "object" if required else ["object", "null"],
        "additionalProperties": False,
        "properties": {name: _field_schema(setting) for name, setting in settings.items()},
    }
    return schema | ({"required": required} if required else {})


def default_text(setting: Setting) -> str:
    """The default in words, as a file would spell it; empty for sections and required fields."""
    default = setting.default
    if isinstance(default, Computed):
        return default.text
    if setting.required or isinstance(setting.kind, Section):
        return ""
    return spell(default)


def spell(value: object) -> str:
    """A typed value as YAML would have it."""
    if isinstance(value, tuple):
        return "[" + ", ".join(spell(item) for item in value) + "]"
    if isinstance(value, bool | type(None)):
        return json.dumps(value)
    if isinstance(value, float):
        return f"{value:g}"
    return str(value.value if isinstance(value, Enum) else value)


def _field_schema(setting: Setting) -> Schema:
    schema: Schema = {"description": _description(setting)}
    default = setting.default
    if not (setting.required or isinstance(default, Computed) or isinstance(setting.kind, Section)):
        schema["default"] = _plain(default)
    return schema | setting.kind.schema()


def _description(setting: Setting) -> str:
    parts = [setting.doc]
    if setting.unit:
        parts.append(f"Unit: {setting.unit}.")
    if text := default_text(setting):
        because = f" ({setting.because})" if setting.because else ""
        parts.append(f"Default: {text}{because}.")
    if setting.example:
        parts.append(f"Example: {setting.example}")
    return " ".join(parts)


def _plain(value: object) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, bool | int | float | type(None)):
        return value
    return spell(value)


# Names that are close to another field than the one that is meant.
_ELSEWHERE: Final = {
    "caps.inbound_private": "; this is bridge.private_inbound_target",
    "caps.per_relay_inbound": "; this is bridge.per_relay_inbound",
    "spec": "; what it holds belongs beside metadata",
    **dict.fromkeys(
        ("wifi.passphrase", "wifi.password", "wifi.psk"),
        "; the passphrase is the content of the file wifi-passphrase beside this one",
    ),
}

_FIELD_NAME: Final = re.compile(r"[a-z][a-z_-]{0,30}")
