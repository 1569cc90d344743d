"""What holds for every test: nothing is skipped unseen, and where demanded nothing at all."""

from __future__ import annotations

import faulthandler
import os
from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, settings

NO_SKIPS = os.environ.get("APPLIANCE_NO_SKIPS") == "1"

# A loaded machine is not a fault: what is in force anyway (continuous integration has its own),
# without looking at the clock.
settings.register_profile(
    "patient", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("patient")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`-m netns` selects what needs the laboratory's world, that is, asks for its fixture."""
    for item in items:
        if "lab" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.netns)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test that may take long does not show its stacks because it does."""
    granted = item.get_closest_marker("timeout")
    if granted is not None and granted.args[0] > float(item.config.getini("faulthandler_timeout")):
        faulthandler.cancel_dump_traceback_later()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if not hasattr(report, "wasxfail"):
        _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _refuse_skip(report)
    return report


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """In continuous integration a skip is a failure: a machine that cannot judge must say so."""
    if not (NO_SKIPS and report.skipped):
        return
    why = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    report.outcome = "failed"
    report.longrepr = f"nothing may be skipped here, but: {why}"
