"""Whatever ends a run, nothing of its world stays: no process, namespace, mount or file."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance.lab import world

pytestmark = [pytest.mark.netns, pytest.mark.usefixtures("lab")]

# Runs a lingering world and prints what it says, as a shell's user would start the laboratory.
OUTER = """
import json, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # also where the tests run with nohup
from appliance.lab import world
order = json.loads(sys.argv[1])
world.run("tests.lab.inside:linger", order, lambda m: print(json.dumps(m), flush=True), 60)
"""
PROJECT = Path(__file__).parent.parent.parent


def processes_named(marker: str) -> list[Path]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if marker.encode() in (entry / "cmdline").read_bytes():
                    found.append(entry)
            except OSError:
                continue  # it ended while we looked
    return found


def net_namespaces(processes: Iterable[Path]) -> set[str]:
    found = set()
    for entry in processes:
        try:
            found.add(str((entry / "ns/net").readlink()))
        except OSError:
            continue  # it ended, or is not ours to see
    return found


def lab_mounts() -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if "- tmpfs lab " in line]


class Footprint:
    """What can be seen of one world from outside; other worlds may run at the same time."""

    def __init__(self) -> None:
        self.marker = f"linger-{secrets.token_hex(8)}"
        self.namespaces: set[str] = set()
        self.scratch = Path("/nonexistent")

    def saw(self, message: dict[str, Any]) -> None:
        assert message["kind"] == "settled"
        self.scratch = Path(message["scratch"])
        processes = processes_named(self.marker)
        self.namespaces = net_namespaces(processes) - net_namespaces([Path("/proc/self")])
        assert len(processes) >= 6
        assert len(self.namespaces) >= 6

    def assert_gone(self) -> None:
        assert self.namespaces, "the world never stood"
        deadline = time.monotonic() + 10
        while self._remains():
            assert time.monotonic() < deadline, self._remains()
            time.sleep(0.02)  # after SIGKILL nobody is left to tell us when the kernel is done
        assert not lab_mounts()
        assert not any(Path("/sys/class/net", name).exists() for name in ("wan0", "to-relay"))
        assert self.scratch.is_dir()
        assert not (self.scratch / self.marker).exists()

    def _remains(self) -> list[object]:
        everyone = (entry for entry in Path("/proc").iterdir() if entry.name.isdigit())
        return [*processes_named(self.marker), *self.namespaces & net_namespaces(everyone)]


@pytest.fixture
def footprint() -> Footprint:
    return Footprint()


@pytest.fixture
def outer(footprint: Footprint) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", OUTER, json.dumps({"marker": footprint.marker})],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        assert process.stdout is not None
        footprint.saw(json.loads(process.stdout.readline()))
        yield process
        process.kill()


def test_after_sigkill_of_the_outer_process(
    footprint: Footprint, outer: subprocess.Popen[str]
) -> None:
    outer.kill()
    outer.wait()
    footprint.assert_gone()


def test_after_sigterm_of_the_outer_process(
    footprint: Footprint, outer: subprocess.Popen[str]
) -> None:
    outer.terminate()
    outer.wait()
    footprint.assert_gone()


def test_after_ctrl_c(footprint: Footprint, outer: subprocess.Popen[str]) -> None:
    os.killpg(outer.pid, signal.SIGINT)  # as a terminal does: to the whole group
    outer.wait(5)
    footprint.assert_gone()


def test_after_a_bug_in_the_laboratory(
    footprint: Footprint, capfd: pytest.CaptureFixture[str]
) -> None:
    order = {"marker": footprint.marker, "raise": True}
    with pytest.raises(world.WorldFailed, match=r"ended without a result \(exit code 1\)"):
        world.run("tests.lab.inside:linger", order, footprint.saw, 30)
    assert "RuntimeError: a bug in the laboratory" in capfd.readouterr().err
    footprint.assert_gone()


def test_a_crash_is_told_by_its_signal() -> None:
    with pytest.raises(world.WorldFailed, match=rf"\(signal {signal.SIGSEGV:d}\)"):
        world.run("tests.lab.inside:crash", {}, print, 30)


def test_after_the_time_limit(footprint: Footprint) -> None:
    with pytest.raises(world.WorldFailed, match="did not end in time"):
        world.run("tests.lab.inside:linger", {"marker": footprint.marker}, footprint.saw, 3)
    footprint.assert_gone()


def test_when_the_listener_fails(footprint: Footprint) -> None:
    def fails(message: dict[str, Any]) -> None:
        footprint.saw(message)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        world.run("tests.lab.inside:linger", {"marker": footprint.marker}, fails, 30)
    footprint.assert_gone()
