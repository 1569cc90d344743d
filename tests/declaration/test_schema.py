"""The JSON Schema: fresh, well formed, and of one mind with the reader about shapes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from appliance.declaration.model import Declaration
from appliance.declaration.nodes import compose, plain
from appliance.declaration.reference import insert
from appliance.declaration.schema import document_schema
from appliance.declaration.settings import walk
from tests.declaration.test_faults import DOCUMENT_FAULTS, FIELD_FAULTS, HEAD
from tests.declaration.test_impossible import IMPOSSIBLE
from tests.declaration.test_load import EXAMPLES, ROOT

SCHEMA = ROOT / "schemas" / "appliance.v1.schema.json"

# What a schema cannot see, because YAML or a check sum says it.
BEYOND_A_SCHEMA = {
    "duplicate key",
    "duplicate key below",
    "port too large",
    "relay that must never be dialled",
    "peer id cut short",
}


def accepts(text: str) -> bool:
    document: Any = plain(compose(text.encode())[0])
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text()))
    return bool(validator.is_valid(document))


def test_the_committed_schema_is_what_the_types_say() -> None:
    committed = json.loads(SCHEMA.read_text())
    assert committed == document_schema(), "run `python -m appliance.declaration.schema`"
    jsonschema.Draft202012Validator.check_schema(committed)


def test_the_committed_reference_is_what_the_types_say() -> None:
    page = (ROOT / "schemas" / "README.md").read_text()
    assert page == insert(page), "run `python -m appliance.declaration.reference schemas/README.md`"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_the_schema_accepts_every_example(path: Path) -> None:
    assert accepts(path.read_text())


@pytest.mark.parametrize("name", FIELD_FAULTS)
def test_reader_and_schema_refuse_the_same_shapes(name: str) -> None:
    body, _ = FIELD_FAULTS[name]
    assert accepts(HEAD + body + "\n") is (name in BEYOND_A_SCHEMA)


@pytest.mark.parametrize(
    "name", ["unknown kind", "unknown version", "no envelope", "no name", "no metadata"]
)
def test_reader_and_schema_refuse_the_same_documents(name: str) -> None:
    text, _ = DOCUMENT_FAULTS[name]
    assert isinstance(text, str)
    assert not accepts(text)


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_impossible_files_are_well_shaped(name: str) -> None:
    """Else the test of the combination would only test a shape."""
    assert accepts(HEAD + IMPOSSIBLE[name][0] + "\n")


@pytest.mark.parametrize(
    "body",
    [
        "bridge: {external: [203.0.113.7, '203.0.113.7:80', '2001:db8::7', '[2001:db8::7]:80']}",
        "bridge:\n  relays:\nlog:\n",
        "metrics: {listen: off}",
        "bridge: {relay_mode: off, private_inbound_target: null, drain: 0.5}",
        "control: {socket: null, group: null}",
        "hardware: {profile: detect}",
    ],
)
def test_the_schema_accepts_what_the_reader_accepts(body: str) -> None:
    assert accepts(HEAD + body + "\n")


def test_the_full_example_names_every_field() -> None:
    document: Any = plain(compose((ROOT / "schemas/examples/full.yaml").read_bytes())[0])
    for path, _ in walk(Declaration):
        value = document
        for name in path.split("."):
            assert name in value, f"{path} is not in full.yaml"
            value = value[name]


def test_every_field_is_explained() -> None:
    for path, setting in walk(Declaration):
        assert setting.doc.endswith("."), path
