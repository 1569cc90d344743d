"""The machine's own programs: nothing on their input, all they say taken, ended in time."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from typing import Final

from appliance.errors import ApplianceError

DEADLINE: Final = 60.0
"""Seconds for one that changes something: many times what a Raspberry Pi Zero 2 takes."""
LOOK: Final = 10.0
"""Seconds for one that only tells something."""


def run(command: Sequence[str], *, within: float = DEADLINE) -> subprocess.CompletedProcess[str]:
    """Whatever its exit code is. Raises ApplianceError: it cannot be started, or took too long."""
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=within,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise ApplianceError(f"{command[0]}: {error}") from None


def output(command: Sequence[str]) -> str:
    """What it printed; nothing where it cannot be run."""
    try:
        return run(command, within=LOOK).stdout
    except ApplianceError:
        return ""


def state_of(unit: str) -> str:
    """`ActiveState` of a unit, as `active`; empty where there is no systemd to ask."""
    return output(["systemctl", "show", "--property=ActiveState", "--value", unit]).strip()
