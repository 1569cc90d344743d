"""The JSON Schema of a declaration's documents, generated from the types.

`python -m appliance.declaration.schema` prints what is committed as
`schemas/appliance.v1.schema.json`; a test fails when the committed file is stale. The schema knows
shapes, not meanings, and one document at a time: editors use it, `validate` decides.
"""

from __future__ import annotations

import json
import sys

from appliance.declaration.documents import ENVELOPE, KINDS
from appliance.declaration.kinds import Schema
from appliance.declaration.sections import section_schema


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


def main() -> None:
    json.dump(document_schema(), sys.stdout, indent=2, ensure_ascii=False)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
