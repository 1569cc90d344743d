"""The laboratory's own declarations: what a scenario waits for, its relay has to carry in time."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.cli.plan import choose_profile
from appliance.declaration.load import loads
from appliance.declaration.wishes import wishes
from appliance.lab import declarations, two_homes
from appliance.lab.scenarios import SCENARIOS, Outcome, TwoHomes
from appliance.sizing import plan

RELAYED = [
    scenario
    for scenario in SCENARIOS.values()
    if isinstance(scenario, TwoHomes) and scenario.outcome is Outcome.RELAYED
]


@pytest.mark.parametrize("scenario", RELAYED, ids=lambda scenario: scenario.name)
def test_a_relay_carries_the_payload_both_ways_long_before_the_deadline(
    scenario: TwoHomes, tmp_path: Path
) -> None:
    declared = loads(declarations.relay(scenario, tmp_path, "info"))
    found = plan(choose_profile(declared)[0], wishes(declared))
    both_ways = 2 * scenario.payload
    assert both_ways / found.caps.relay_bytes_per_second < two_homes.PAYLOAD / 4
