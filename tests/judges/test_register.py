"""The register of deviations is whole, and the judges agree with it."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from appliance.errors import ApplianceError
from tests.judges.__main__ import judge, shortcomings
from tests.judges.register import Deviation, faults, register
from tests.judges.verdicts import Verdict

KNOWN = Deviation("su", ("cis",), "a", "b", "c", date(2027, 5, 1), "server")
ONLY_IMAGE = Deviation("usb", ("cis",), "a", "b", "c", date(2027, 5, 1), "image")


def verdict(*failed: str) -> Verdict:
    return Verdict("cis", 10, 10 + len(failed), dict.fromkeys(failed, "a title"))


def test_every_entry_is_whole_and_stands_once() -> None:
    entries = register()
    names = [(judge, entry.id) for entry in entries for judge in entry.judge]
    assert len(names) == len(set(names))
    assert all(entry.wish and entry.ours and len(entry.reason) > 20 for entry in entries)


def test_an_unfinished_entry_is_named(tmp_path: Path) -> None:
    path = tmp_path / "deviations.yaml"
    path.write_text("- {id: su, judge: [cis], wish: a}\n")
    with pytest.raises(ApplianceError, match="su: not a whole entry"):
        register(path)


def test_what_fails_and_is_not_registered_is_a_fault() -> None:
    assert faults([verdict("su", "new")], [KNOWN]) == ["cis: new fails: a title"]


def test_what_is_registered_and_no_longer_fails_is_a_fault() -> None:
    (fault,) = faults([verdict()], [KNOWN, ONLY_IMAGE])
    assert fault.startswith("su no longer fails")


@pytest.mark.slow
@pytest.mark.judges
@pytest.mark.timeout(3600)
def test_nothing_fails_that_is_not_registered() -> None:
    _, after = judge()
    assert not shortcomings(after)
