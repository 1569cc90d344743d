"""The plan's table of unit costs against the daemon of today, and its claims at small caps.

Both run the command that a user types, which makes a network of its own.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import psutil
import pytest

from appliance.sizing.cost import Cost
from appliance.units import KIB, MIB
from tests.bench.capacity import report, table
from tests.bench.capacity.cgroup import BASE
from tests.bench.capacity.costs import Measured
from tests.bench.capacity.limited import ROOT

NO_NETWORK: Final = "no network namespace for the load"


def capacity(*arguments: str) -> tuple[int, Any]:
    """Its exit code and document; skips with the system's reason where it may not have a network
    of its own."""
    command = [sys.executable, "-m", "tests.bench.capacity", *arguments, "--json"]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            out, errors = process.communicate()
        except BaseException:  # the test's time-out too
            # It has a daemon and a control group to clear away; to be killed would leave them.
            process.send_signal(signal.SIGINT)
            process.communicate()
            raise
    if errors.startswith(NO_NETWORK):
        pytest.skip(errors.strip())
    assert out, errors
    return process.returncode, json.loads(out)


def test_no_unit_costs_more_than_the_plan_counts_with() -> None:
    """A figure beyond its tolerance means: look why, or measure the table anew."""
    code, told = capacity("--costs", "--quick")
    assert told["exceeded"] == []
    assert code == 0
    assert {*told["measured"][0]} == {*table.ORDER}


def test_at_its_caps_the_daemon_keeps_what_the_plan_promises() -> None:
    code, told = capacity("--quick")
    [outcome] = told
    assert [claim for claim in outcome["claims"] if not claim["holds"]] == []
    assert code == 0
    caps, loaded = outcome["plan"]["caps"], outcome["loaded"]
    for name in ("relay_reservations", "relay_circuits", "inbound_private", "outbound_private"):
        assert loaded[name] == caps[name] > 0
    refused = [claim["text"] for claim in outcome["claims"] if claim["text"].startswith("the next")]
    assert len(refused) == 7


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A short path: the daemon's control socket lies below it."""
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory)


def test_an_interrupted_run_leaves_nothing_behind(scratch: Path) -> None:
    """Neither the daemon nor its files nor its control group."""
    command = [sys.executable, "-m", "tests.bench.capacity", "--quick"]
    env = {**os.environ, "TMPDIR": str(scratch)}
    with subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True) as process:
        daemon = None
        while process.poll() is None and daemon is None:
            daemon = daemon_below(scratch)
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate()
    if errors.startswith(NO_NETWORK):
        pytest.skip(errors.strip())
    assert daemon is not None, errors
    assert process.returncode == 1
    assert "interrupted" in errors
    assert daemon_below(scratch) is None
    assert [*scratch.iterdir()] == []
    name = f"appliance-capacity-{process.pid}-*"
    assert [*BASE.glob(name), *BASE.glob(f"memory/{name}")] == []


def daemon_below(directory: Path) -> int | None:
    """The process of an appliance whose declaration is there."""
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "run" in words and any(word.startswith(str(directory)) for word in words):
            return int(process.pid)
    return None


def measured(units: int = 200, **fields: float) -> Measured:
    counts = {"fds": 1, "tasks": 1, "threads": 0, "conntrack": 1, "kernel_bytes": 4000}
    return Measured(units, **{"memory_bytes": 15_500, **counts, **fields})


def test_the_table_takes_the_largest_and_rounds_up() -> None:
    one = {name: measured() for name in table.ORDER}
    other = {name: measured(memory_bytes=16_000, threads=-0.01) for name in table.ORDER}
    made = table.rounded([one, other])
    assert made["connection"] == Cost(1, 16 * KIB, 4 * KIB, tasks=1, threads=0, conntrack=1)
    assert made["scraper"].memory_bytes == 32 * KIB
    assert made["process"].memory_bytes == MIB
    least = table.rounded([{name: measured(kernel_bytes=20) for name in table.ORDER}])
    assert least["circuit"].kernel_bytes == 0


@pytest.mark.parametrize(
    ("found", "fault"),
    [
        (measured(memory_bytes=1.14 * 16 * KIB), None),
        (measured(memory_bytes=1.14 * 16 * KIB, fds=0.9, tasks=0), None),
        (measured(memory_bytes=1.17 * 16 * KIB + 328), "memory_bytes"),
        (measured(kernel_bytes=5200), "kernel_bytes"),
        (measured(fds=2), "fds"),
        (measured(tasks=2), "tasks"),
        (measured(threads=1), "threads"),
        (measured(conntrack=2), "conntrack"),
    ],
)
def test_what_exceeds_the_table_is_named(found: Measured, fault: str | None) -> None:
    told = {"connection": Cost(1, 16 * KIB, 4 * KIB, tasks=1, threads=0, conntrack=1)}
    faults = [*table.exceeded([{"connection": found}], told)]
    assert len(faults) == (fault is not None)
    for words in faults:
        assert words.startswith("connection: ")
        assert str(fault) in words


def test_what_one_reading_of_several_shows_is_chance() -> None:
    told = {"connection": Cost(1, 16 * KIB, 4 * KIB, tasks=1, threads=0, conntrack=1)}
    chance = {"connection": measured(memory_bytes=30_000)}
    assert [*table.exceeded([chance, chance], told)]
    assert [*table.exceeded([chance, {"connection": measured()}, chance], told)] == []


def test_the_written_table_is_the_one_that_was_measured(tmp_path: Path) -> None:
    made = table.rounded([{name: measured() for name in table.ORDER}])
    file = tmp_path / "measured.py"
    table.write(made, file)
    found: dict[str, Any] = {}
    exec(file.read_text(), found)
    assert found["UNITS"] == made
    assert max(map(len, file.read_text().splitlines())) <= 100


def test_a_section_takes_the_place_of_its_forerunner(tmp_path: Path) -> None:
    document = tmp_path / "capacity.md"
    report.put(report.UNITS, ["former figures"], document)
    report.put(report.AT_CAPS, ["first"], document)
    report.put(report.UNITS, ["    new"], document)
    report.put(report.AT_CAPS, ["first"], document)
    text = document.read_text()
    assert text.startswith("# Capacity\n")
    assert text.index("first") < text.index("\n    new")
    assert "former figures" not in text
