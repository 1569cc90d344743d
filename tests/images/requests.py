"""Which images tests ask for."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from appliance.image.build import Request
from appliance.image.cache import default

PROJECT: Final = Path(__file__).resolve().parents[2]
EPOCH: Final = 1_767_225_600
"""2026-01-01: the same in every run, so that the cache holds what the sources did not change."""


def wanted(example: str, target: str, out: Path) -> Request:
    """What of schemas/examples becomes an image."""
    file = PROJECT / f"schemas/examples/{example}.yaml"
    return Request(
        file=file, out=out, cache=default(), epoch=EPOCH, target=target, keep_kernel=True
    )
