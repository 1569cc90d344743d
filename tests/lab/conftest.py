"""Where a world cannot be made, its tests are skipped by name, with the system's own reason."""

from __future__ import annotations

import functools

import pytest

from appliance.errors import ApplianceError
from appliance.lab import world


@functools.cache
def _why_not() -> str | None:
    try:
        world.run("tests.lab.inside:dial_a_home_from_outside", {"router": "resets"}, print, 30)
    except ApplianceError as error:
        return error.message
    return None


@pytest.fixture
def lab() -> None:
    """For tests that need the laboratory's world."""
    if (reason := _why_not()) is not None:
        pytest.skip(f"no laboratory here: {reason}")
