"""Whatever a file holds, the reader gives a declaration or a list of faults, and soon."""

from __future__ import annotations

import json
import time
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from appliance.declaration import Declaration, DeclarationErrors, loads
from tests.declaration.test_faults import HEAD
from tests.declaration.test_load import ROOT

EXAMPLES = Path(ROOT, "schemas", "examples")
PROFILES = (EXAMPLES / "hardware-profile-full.yaml").read_text().partition("---\n")
FULL = (EXAMPLES / "full.yaml").read_text() + PROFILES[1] + PROFILES[2]
"""Every field of every kind, in three documents."""

words = st.sampled_from(
    "null off on true 0 -1 65536 1e999 .nan [] {} [[]] '' \"\\0\" 0.0.0.0:1 ::1 /ip4 ~ 2001-01-01 "
    "&a *a !!set ? | > - : , # % @ `".split()
)


def read(data: str | bytes) -> None:
    errors: DeclarationErrors | None = None
    try:
        assert isinstance(loads(data, environ={}), Declaration)
    except DeclarationErrors as caught:
        errors = caught
    if errors is not None:
        assert errors.faults
        assert all(fault.mark.line >= 1 and fault.mark.column >= 1 for fault in errors.faults)
        assert len(errors.message.splitlines()) == len(errors.faults)
        assert errors.message.replace("\n", "").isprintable()


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    read(data)


@given(st.text(max_size=200))
def test_any_text_below_a_good_head(text: str) -> None:
    read(HEAD.encode() + text.encode("utf-8", "replace"))


@given(st.integers(0, len(FULL.splitlines()) - 1), words | st.text(max_size=20))
def test_any_value_in_any_line_of_the_full_example(number: int, value: str) -> None:
    rows = FULL.splitlines()
    key, colon, _ = rows[number].partition(":")
    rows[number] = f"{key}{colon} {value}"
    read("\n".join(rows).encode("utf-8", "replace"))


@given(st.integers(0, len(FULL)), st.integers(0, 200))
def test_any_hole_in_the_full_example(start: int, length: int) -> None:
    read(FULL[:start] + FULL[start + length :])


@given(st.text(max_size=100))
def test_any_name_of_a_field(name: str) -> None:
    quoted = json.dumps(name.encode("utf-8", "replace").decode())
    read(HEAD + f"{quoted}: 1\nbridge: {{{quoted}: 1, {quoted}: 2}}\nnetwork: {quoted}\n")


def test_the_largest_files_take_seconds_at_most() -> None:
    begin = time.process_time()
    for row in ("a: b\n", "{", "? ", "'", "x: &a "):
        read((row * (1024 * 1024 // len(row)))[: 1024 * 1024])
    assert time.process_time() - begin < 60
