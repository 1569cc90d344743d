"""The root of an image, as the roles leave it: its own programs run, under emulation."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import appliance
from appliance.image import foreign
from appliance.image.build import provisioned
from appliance.image.chamber import inside
from appliance.image.targets import TARGETS
from tests.images.conftest import request


@pytest.mark.timeout(3600)
def test_the_arm64_root_holds_an_appliance_that_runs(tmp_path: Path) -> None:
    root = provisioned(request("router", "arm64", tmp_path))
    with foreign.enabled(TARGETS["arm64"]):
        runs = inside(root, ["sh", "-c", "uname -m && appliance --version"])
        said = subprocess.run(runs, capture_output=True, text=True, check=True).stdout.split()
    assert said[0] == "aarch64"
    assert said[-1] == appliance.__version__
    enabled = {path.name for path in (root / "etc/systemd/system").glob("*.wants/*.service")}
    assert {"appliance.service", "appliance-machine.service", "ssh.service"} <= enabled
