"""The image that tests boot, and the root of another machine's: made side by side."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from appliance.image.build import build
from tests.images.requests import PROJECT, wanted


@dataclass(frozen=True, slots=True)
class _Making:
    """A root that another process provisions."""

    process: subprocess.Popen[str]
    told: Path


@pytest.fixture(scope="session")
def arm64_in_the_making(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[_Making | None]:
    """The arm64 root on its way, if any test asks for it: its steps, and those of the image, keep
    one core busy each."""
    if not any("arm64_root" in getattr(item, "fixturenames", ()) for item in request.session.items):
        yield None
        return
    place = tmp_path_factory.mktemp("arm64")
    told = place / "told"
    command = [sys.executable, "-m", "tests.images.roots", "router", "arm64", str(place)]
    with (
        told.open("w") as log,
        subprocess.Popen(
            command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=log, text=True
        ) as process,
    ):
        yield _Making(process, told)
        if process.poll() is None:
            process.send_signal(signal.SIGINT)  # after which it unmounts what it mounted


@pytest.fixture(scope="session")
def arm64_root(arm64_in_the_making: _Making) -> Path:
    """What `provisioned` leaves, for the example of a router: not to be changed."""
    said, _ = arm64_in_the_making.process.communicate()
    assert arm64_in_the_making.process.returncode == 0, arm64_in_the_making.told.read_text()
    return Path(said.strip())


@pytest.fixture(scope="session")
def x86_image(
    tmp_path_factory: pytest.TempPathFactory, arm64_in_the_making: _Making | None
) -> Path:
    """$APPLIANCE_X86_IMAGE, or an .img.zst of `appliance image build --keep-kernel`."""
    if named := os.environ.get("APPLIANCE_X86_IMAGE"):
        return Path(named)
    return build(wanted("public-relay", "x86-64", tmp_path_factory.mktemp("images"))).image
