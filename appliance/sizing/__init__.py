"""Hardware profile + wishes → a plan of budgets and caps, each number with its derivation."""

from __future__ import annotations

from appliance.sizing.catalogue import CATALOGUE
from appliance.sizing.model import (
    Bandwidth,
    Budget,
    Caps,
    Infeasible,
    Kaspad,
    Machine,
    Plan,
    Step,
    Wishes,
)
from appliance.sizing.profile import Profile
from appliance.sizing.solver import plan

__all__ = [
    "CATALOGUE",
    "Bandwidth",
    "Budget",
    "Caps",
    "Infeasible",
    "Kaspad",
    "Machine",
    "Plan",
    "Profile",
    "Step",
    "Wishes",
    "plan",
]
