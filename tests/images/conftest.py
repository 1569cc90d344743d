"""The image that tests boot: $APPLIANCE_X86_IMAGE, or one that is built for them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from appliance.image.build import Request, build
from appliance.image.cache import default

PROJECT = Path(__file__).resolve().parents[2]
EPOCH = 1_767_225_600
"""2026-01-01: the same in every run, so that the cache holds what the sources did not change."""


def request(example: str, target: str, out: Path) -> Request:
    """What of schemas/examples becomes an image."""
    file = PROJECT / f"schemas/examples/{example}.yaml"
    return Request(
        file=file, out=out, cache=default(), epoch=EPOCH, target=target, keep_kernel=True
    )


@pytest.fixture(scope="session")
def x86_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An .img.zst of `appliance image build --keep-kernel`."""
    if named := os.environ.get("APPLIANCE_X86_IMAGE"):
        return Path(named)
    return build(request("public-relay", "x86-64", tmp_path_factory.mktemp("images"))).image
