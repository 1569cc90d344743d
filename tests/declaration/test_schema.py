"""The JSON Schema: fresh, well formed, and of one mind with the reader about shapes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from appliance.declaration.documents import KINDS, MACHINE_KIND, PROFILE_KIND
from appliance.declaration.model import KIND
from appliance.declaration.nodes import compose, plain
from appliance.declaration.reference import insert
from appliance.declaration.schema import document_schema
from appliance.declaration.sections import walk
from appliance.declaration.settings import settings_of
from tests.declaration.test_faults import HEAD
from tests.declaration.test_load import EXAMPLES, ROOT
from tests.declaration.test_wrong import WRONG

SCHEMA = ROOT / "schemas" / "appliance.v1.schema.json"

VALIDATOR = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text()))


def accepts(text: str | bytes) -> bool:
    """Whether the schema accepts every document, one by one, as an editor asks it."""
    data = text.encode() if isinstance(text, str) else text
    documents: list[Any] = [plain(document.root) for document in compose(data)]
    return all(VALIDATOR.is_valid(document) for document in documents)


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


@pytest.mark.parametrize("path", sorted(WRONG.glob("shape/*.yaml")), ids=lambda path: path.stem)
def test_the_schema_refuses_a_wrong_shape(path: Path) -> None:
    assert not accepts(path.read_bytes())


@pytest.mark.parametrize("path", sorted(WRONG.glob("meaning/*.yaml")), ids=lambda path: path.stem)
def test_the_schema_accepts_what_only_the_reader_can_refuse(path: Path) -> None:
    """Else the test of the meaning would only test a shape."""
    assert accepts(path.read_bytes())


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (HEAD + "network: maimnet\n", ["network"]),
        (HEAD.replace("Appliance", "HardwareProfile") + "cores: 0\n", ["cores"]),
        (HEAD.replace("Appliance", "Applience"), ["kind"]),
    ],
)
def test_the_schema_speaks_of_the_kind_at_hand(text: str, path: list[str]) -> None:
    """An editor underlines the field, and nothing of the other kind."""
    (document,) = compose(text.encode())
    found = [list(error.absolute_path) for error in VALIDATOR.iter_errors(plain(document.root))]
    assert path in found
    assert all(not other for other in found if other != path)


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


@pytest.mark.parametrize(
    ("example", "kind"),
    [("full", KIND), ("hardware-profile-full", PROFILE_KIND), ("machine-full", MACHINE_KIND)],
)
def test_the_full_examples_name_every_field(example: str, kind: str) -> None:
    data = (ROOT / "schemas" / "examples" / f"{example}.yaml").read_bytes()
    documents: list[Any] = [plain(document.root) for document in compose(data)]
    (document, *_) = [document for document in documents if document["kind"] == kind]
    for path, _ in walk(KINDS[kind]):
        value = document
        for name in path.split("."):
            assert name in value, f"{path} is not in {example}.yaml"
            value = value[name]


@pytest.mark.parametrize(
    ("example", "kind"),
    [
        ("minimal", KIND),
        ("hardware-profile-minimal", PROFILE_KIND),
        ("machine-minimal", MACHINE_KIND),
    ],
)
def test_the_minimal_examples_need_all_that_they_say(example: str, kind: str) -> None:
    """Of the kind's required fields; the rest of `minimal.yaml` is so that it harms nobody."""
    data = (ROOT / "schemas" / "examples" / f"{example}.yaml").read_bytes()
    documents: list[Any] = [plain(document.root) for document in compose(data)]
    (document, *_) = [document for document in documents if document["kind"] == kind]
    required = {"apiVersion", "kind"}
    required |= {name for name, setting in settings_of(KINDS[kind]).items() if setting.required}
    assert required <= set(document)
    for name in required:
        assert not VALIDATOR.is_valid({key: document[key] for key in document if key != name})


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_is_explained(kind: str) -> None:
    for path, setting in walk(KINDS[kind]):
        assert setting.doc.endswith("."), path
