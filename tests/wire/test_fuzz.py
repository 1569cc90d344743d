"""A short part of `tests/fuzz/wire.py`, and whether it would notice anything."""

from __future__ import annotations

import pytest

from appliance.wire import envelope
from tests.fuzz.running import Broken
from tests.fuzz.wire import TARGETS, main, try_input

KEEPS_SILENT = {"multiaddrs"}  # what it does not understand it skips


@pytest.mark.parametrize("target", TARGETS)
def test_hostile_input_is_refused_or_keeps_the_promises(target: str) -> None:
    refused = sum(try_input(target, 2026, number) for number in range(1000))
    assert refused < 950, "some are taken"
    assert refused > 50 or target in KEEPS_SILENT


def breaks(target: str, seed: int, number: int) -> bool:
    try:
        try_input(target, seed, number)
    except Broken:
        return True
    return False


def test_a_forged_record_that_is_believed_is_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(envelope, "check", lambda *_: None)
    number = next(number for number in range(2000) if breaks("records", 1, number))
    with pytest.raises(Broken, match=f"records, seed 1, input {number}: forged"):
        try_input("records", 1, number)


def test_the_runner_tells_what_it_did(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--inputs", "20", "--seed", "3", "--first", "100", "--target", "hints"]) == 0
    assert "hints: 20 inputs in " in capsys.readouterr().out
