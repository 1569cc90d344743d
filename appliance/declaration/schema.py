"""The JSON Schema of a declaration's documents, generated from the types.

`python -m appliance.declaration.schema` prints what is committed as
`schemas/appliance.v1.schema.json`; a test fails when the committed file is stale. The schema knows
shapes, not meanings, and one document at a time: editors use it, `validate` decides.
"""

from __future__ import annotations

import json
import sys
from enum import Enum
from typing import Any

from appliance.declaration.documents import ENVELOPE, KINDS
from appliance.declaration.kinds import Schema, Section
from appliance.declaration.settings import Computed, Setting, settings_of


def document_schema() -> Schema:
    """The schema of one document: `kind` decides which of `$defs` it must obey.

    Conditions instead of `oneOf`: with these, an editor shows the faults of the kind at hand.
    """
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Kaspa network appliance declaration, version 1",
        "type": "object",
        "required": [*ENVELOPE],
        "properties": {"kind": {"enum": [*ENVELOPE["kind"]]}},
        "allOf": [
            {
                "if": {"properties": {"kind": {"const": kind}}, "required": ["kind"]},
                "then": {"$ref": f"#/$defs/{kind}"},
            }
            for kind in KINDS
        ],
        "$defs": {kind: _kind_schema(kind, cls) for kind, cls in KINDS.items()},
    }


def _kind_schema(kind: str, cls: type) -> Schema:
    body = section_schema(cls)
    envelope: Schema = {
        "apiVersion": {"description": "Version of this format.", "enum": [*ENVELOPE["apiVersion"]]},
        "kind": {"description": "What the document describes.", "const": kind},
    }
    return {
        "description": cls.__doc__,
        **body,
        "type": "object",
        "required": [*envelope, *body.get("required", ())],
        "properties": {**envelope, **body["properties"]},
    }


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


def main() -> None:
    json.dump(document_schema(), sys.stdout, indent=2, ensure_ascii=False)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
