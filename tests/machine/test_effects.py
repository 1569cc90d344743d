"""What a running machine is told of its new files."""

from __future__ import annotations

from pathlib import Path

from appliance.machine.effects import configured
from appliance.machine.places import Places


def test_a_unit_that_does_not_run_is_not_told(tmp_path: Path) -> None:
    """Prometheus is on few machines, and the rules for it are on all."""
    told: list[list[str]] = []
    rules = "etc/appliance/prometheus/appliance.rules.yml"
    configured(Places.below(tmp_path), [rules], told.append)
    assert told == []
