"""What the judges say of a machine, as the ids of what fails."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from appliance.errors import ApplianceError
from tests.judges.content import data_stream
from tests.judges.machine import Machine

PROFILES: Final = {"cis": "cis_level1_server", "anssi": "anssi_bp28_intermediary"}
PREFIX: Final = "xccdf_org.ssgproject.content_"
XCCDF: Final = "{http://checklists.nist.gov/xccdf/1.2}"
FAILS: Final = frozenset({"fail", "error", "unknown"})
# `oscap` ends with 2 when a rule failed.
JUDGED: Final = frozenset({0, 2})
LYNIS_FINE: Final = frozenset({0, 1, 78})
"""Lynis's exit codes; other than 0, it warned of something."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One judge's: how much is right, of how much, and what is not (id to its title)."""

    judge: str
    passed: int
    judged: int
    failed: Mapping[str, str]
    index: int | None = None
    """Lynis's hardening index; None with the others."""


def verdicts(machine: Machine) -> list[Verdict]:
    """Every judge's. Errors: ApplianceError when one of them breaks down."""
    content = data_stream()
    machine.put(content, "/run/content.xml")
    titles = _titles(content.read_text())
    found = [_openscap(machine, judge, titles) for judge in PROFILES]
    return [*found, _lynis(machine)]


def _titles(content: str) -> dict[str, str]:
    rules = re.finditer(
        rf'<xccdf-1\.2:Rule [^>]*id="{PREFIX}rule_(\w[\w.-]*)".*?<xccdf-1\.2:title[^>]*>(.*?)</',
        content,
        re.DOTALL,
    )
    return {rule[1]: rule[2] for rule in rules}


def _openscap(machine: Machine, judge: str, titles: Mapping[str, str]) -> Verdict:
    profile = f"{PREFIX}profile_{PROFILES[judge]}"
    machine.run(
        *("oscap", "xccdf", "eval", "--profile", profile, "--results", "/run/results.xml"),
        "/run/content.xml",
        fine=JUDGED,
    )
    results: dict[str, str] = {}
    for result in ET.fromstring(machine.run("cat", "/run/results.xml")).iter(f"{XCCDF}rule-result"):
        outcome = result.findtext(f"{XCCDF}result", "")
        results[result.attrib["idref"].removeprefix(f"{PREFIX}rule_")] = outcome
    failed = {rule: titles.get(rule, "") for rule, told in results.items() if told in FAILS}
    passed = sum(told == "pass" for told in results.values())
    if not passed:
        raise ApplianceError(f"OpenSCAP judged nothing by {PROFILES[judge]}")
    return Verdict(judge, passed, passed + len(failed), failed)


def _lynis(machine: Machine) -> Verdict:
    machine.run(
        *("lynis", "audit", "system", "--quick", "--no-colors", "--quiet"),
        fine=LYNIS_FINE,
    )
    return lynis_verdict(machine.run("cat", "/var/log/lynis-report.dat"))


def lynis_verdict(report: str) -> Verdict:
    """What a report of Lynis's says. Errors: ApplianceError when it has no index."""
    failed = suggestions(report)
    index = re.search(r"(?m)^hardening_index=(\d+)", report)
    if index is None:
        raise ApplianceError("Lynis gave no index")
    done = int(match[1]) if (match := re.search(r"(?m)^lynis_tests_done=(\d+)", report)) else 0
    tests = {name.partition(":")[0] for name in failed}
    return Verdict("lynis", done - len(tests), done, failed, int(index[1]))


def suggestions(report: str) -> dict[str, str]:
    """What Lynis's report finds fault with: `TEST` or, where it names settings, `TEST:SETTING`."""
    settings: dict[str, dict[str, str]] = {}
    for test, name, wish, value in re.findall(
        r"(?m)^details\[\]=([^|]+)\|[^|]*\|.*?field:([^;]*);prefval:([^;]*);value:([^;]*);", report
    ):
        settings.setdefault(test, {})[f"{test}:{name}"] = f"{value}, and should be {wish or 'else'}"
    found: dict[str, str] = {}
    for test, title in re.findall(r"(?m)^(?:warning|suggestion)\[\]=([^|]+)\|([^|]*)\|", report):
        if test in settings:
            found |= settings[test]
        else:
            found[test] = f"{found[test]}; {title}" if test in found else title
    return found
