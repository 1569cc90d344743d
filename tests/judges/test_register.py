"""The register of deviations is whole, and the judges agree with it."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

import pytest
import yaml

from appliance.errors import ApplianceError
from tests.judges.__main__ import LEAST_INDEX, judge, shortcomings
from tests.judges.booted import shortcomings as booted_shortcomings
from tests.judges.register import Deviation, faults, register
from tests.judges.verdicts import Verdict, suggestions
from tests.roles.root import PROJECT

KNOWN = Deviation("su", ("cis",), "a", "b", "c", date(2027, 5, 1), "server")
ONLY_IMAGE = Deviation("usb", ("cis",), "a", "b", "c", date(2027, 5, 1), "image")
ONLY_BENCH = Deviation("oops", ("cis",), "a", "b", "c", date(2027, 5, 1), "bench")
REPORT = """\
suggestion[]=FILE-6310|Place /home on a separate partition|-|-|
suggestion[]=FILE-6310|Place /var on a separate partition|-|-|
details[]=KRNL-6000|sysctl|desc:No description;field:kernel.core_uses_pid;prefval:1;value:0;|
details[]=KRNL-6000|sysctl|desc:Filtering;field:net.ipv4.conf.all.rp_filter;prefval:1;value:2;|
suggestion[]=KRNL-6000|One or more sysctl values differ||Change sysctl value|
"""


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
    (fault,) = faults([verdict()], [KNOWN, ONLY_IMAGE, ONLY_BENCH])
    assert fault.startswith("su no longer fails")


def test_a_setting_that_lynis_names_is_judged_by_itself() -> None:
    assert suggestions(REPORT) == {
        "FILE-6310": "Place /home on a separate partition; Place /var on a separate partition",
        "KRNL-6000:kernel.core_uses_pid": "0, and should be 1",
        "KRNL-6000:net.ipv4.conf.all.rp_filter": "2, and should be 1",
    }


def test_a_setting_that_only_the_bench_lacks_is_one_that_the_role_makes() -> None:
    """So that an entry for the bench cannot hide a setting that was forgotten."""
    defaults = yaml.safe_load((PROJECT / "roles/hardening/defaults/main.yaml").read_text())
    made = set(defaults["hardening_sysctl"])
    rules = {f"sysctl_{re.sub('[.-]', '_', name)}" for name in made}
    lacking = {found.id for found in register() if found.where == "bench"}
    assert {name for name in lacking if name.startswith("sysctl_")} <= rules


def test_what_the_bench_lacks_is_no_excuse_for_a_booted_image() -> None:
    of_bench = next(one.id for one in register() if one.where == "bench" and "lynis" in one.judge)
    of_both = next(one.id for one in register() if one.where == "both" and "lynis" in one.judge)
    found = Verdict("lynis", 8, 10, {of_bench: "a title", of_both: "another"}, LEAST_INDEX - 1)
    assert booted_shortcomings(found) == [
        f"lynis: {of_bench} fails: a title",
        f"Lynis's index is {LEAST_INDEX - 1}, and should be at least {LEAST_INDEX}",
    ]


@pytest.mark.slow
@pytest.mark.judges
@pytest.mark.timeout(3600)
def test_nothing_fails_that_is_not_registered() -> None:
    _, after = judge()
    assert not shortcomings(after)
