"""`molecule test` of each scenario: a real systemd, looked at from outside.

Every role has one of its own, `default`; role appliance has `site` too, the whole playbook.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from appliance.errors import ApplianceError
from tests.roles import world
from tests.roles.readme import roles

MOLECULE = Path(sys.executable).parent / "molecule"
NEEDED = ("mmdebstrap", "systemd-nspawn", "unshare", "nsenter", "nft", "ssh")

pytestmark = [pytest.mark.roles, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module", autouse=True)
def _machines_can_be_made() -> None:
    if os.geteuid():
        pytest.skip("only root can boot machines in namespaces")
    if missing := [name for name in NEEDED if shutil.which(name) is None]:
        pytest.skip(f"not installed: {' '.join(missing)}")


SCENARIOS = [
    path.parent for role in roles() for path in sorted(role.glob("molecule/*/molecule.yml"))
]


@pytest.fixture
def _nothing_is_left(scenario: Path) -> Iterator[None]:
    yield
    for platform in yaml.safe_load((scenario / "molecule.yml").read_text())["platforms"]:
        world.down(platform["name"])


@pytest.mark.usefixtures("_nothing_is_left")
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda path: f"{path.parts[-3]}-{path.name}")
def test_scenario(scenario: Path) -> None:
    done = subprocess.run(
        [MOLECULE, "test", f"--scenario-name={scenario.name}"],
        cwd=scenario.parents[1],
        env=os.environ | {"PATH": f"{MOLECULE.parent}:{os.environ['PATH']}", "NO_COLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:]


def test_a_machine_ends_with_everything_it_had() -> None:
    """Mounts, wire and processes belong to the world, and the world ends whole."""
    before = Path("/proc/self/mounts").read_text(), sorted(Path("/sys/class/net").iterdir())
    world.up("leaving")
    try:
        with pytest.raises(ApplianceError, match="runs already"):
            world.up("leaving")
        inside = (world.WORLDS / "leaving/leader").read_text()
    finally:
        world.down("leaving")
    assert not Path(f"/proc/{inside}").exists()
    assert not (world.WORLDS / "leaving").exists()
    after = Path("/proc/self/mounts").read_text(), sorted(Path("/sys/class/net").iterdir())
    assert after == before
