"""Fixtures of the bridge's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from trio.testing import MockClock

from tests.bridge.world import World, small_world


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """An empty world; everything in it ends with the test."""
    async with small_world() as made:
        yield made


@pytest.fixture
def fast_clock(mock_clock: MockClock) -> MockClock:
    """Virtual time that jumps once the sockets have been silent for a moment.

    Make the world inside the test then (`small_world(float("inf"))`): its limit counts hours too.
    """
    mock_clock.autojump_threshold = 0.02
    return mock_clock
