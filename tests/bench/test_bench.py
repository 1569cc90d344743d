"""The harness of the benchmarks, end to end on a tiny run of our own peers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import trio

from tests.bench.__main__ import measure, parse, settings_of
from tests.bench.cells import Cell
from tests.bench.report import Measured, Results, render

TINY = "--quick --kinds ours --relays ours --pairs ours --streams 1,2 --seconds 0.2 --counts 2,4"


async def test_a_tiny_run_becomes_a_document(tmp_path: Path) -> None:
    """Bulk through a relay, and units held: measured, written, read back."""
    results = Results({"CPU": "of a test"}, {"ours": "this"})
    sections = ["relayed", "memory"]
    with trio.fail_after(60):
        settings = replace(settings_of(parse(TINY.split())), warm_up=0.1)
        await measure(settings, sections, "make bench", results)
    for measured in results.sections.values():
        assert not [fault for cell in measured.cells for fault in cell.faults]
    relayed, memory = (results.sections[name].cells for name in sections)
    assert [cell.key["streams"] for cell in relayed] == [1, 2]
    for cell in relayed:
        [run] = cell.runs
        assert run["mb_s"] > 0 and "relay_ms_mb" in run
        assert ("fairness" in run) == (cell.key["streams"] > 1)
    assert {cell.key["unit"] for cell in memory} == {
        "connection", "reservation", "stream", "circuit"
    }  # fmt: skip

    (tmp_path / "benchmarks").mkdir()
    file = tmp_path / "benchmarks" / "results.json"
    results.save(file)
    again = Results.load(file)
    assert [cell.key for cell in again.sections["memory"].cells] == [cell.key for cell in memory]
    render(again, tmp_path)
    text = (tmp_path / "benchmarks.md").read_text()
    assert "## Relayed bulk" in text and "| of a test |" in text
    for name in ("relayed-ours", "relay-cpu-ours", "memory"):
        assert f"benchmarks/{name}.svg" in text
        ET.parse(tmp_path / "benchmarks" / f"{name}.svg")


def test_a_failure_is_shown_in_the_peers_words(tmp_path: Path) -> None:
    """A cell that failed is neither left out nor drawn as a number."""
    cells = [
        Cell({"kind": "ours", "streams": 1}, [{"mb_s": 10.0}, {"mb_s": 30.0}, {"mb_s": 20.0}]),
        Cell(
            {"kind": "go", "streams": 1}, [], ["go ebb: stream <reset>", "go ebb: stream <reset>"]
        ),
    ]
    render(Results({}, {}, {"direct": Measured("make bench", "today", cells)}), tmp_path)
    text = (tmp_path / "benchmarks.md").read_text()
    assert "| ours | 1 | 20.0 (10.0–30.0) |" in text
    assert "| go-libp2p | 1 | – |" in text
    assert "kind go, streams 1: failed 2 times: `go ebb: stream <reset>`" in text
    drawing = (tmp_path / "benchmarks" / "direct.svg").read_text()
    assert "failed" in drawing and drawing.count("<rect") == 1
