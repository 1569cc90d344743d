"""The images that slow tests boot: built before, and named by the environment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture
def x86_image() -> Path:
    """$APPLIANCE_X86_IMAGE: an .img.zst of `appliance image build --keep-kernel`."""
    named = os.environ.get("APPLIANCE_X86_IMAGE", "")
    if not Path(named).is_file():
        pytest.fail("APPLIANCE_X86_IMAGE names no image; `appliance image build` makes one")
    return Path(named)
