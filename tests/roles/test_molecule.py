"""`molecule test` of each role: a real systemd, looked at from outside."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

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


@pytest.fixture
def _nothing_is_left(role: Path) -> Iterator[None]:
    yield
    world.down(role.name)


@pytest.mark.usefixtures("_nothing_is_left")
@pytest.mark.parametrize("role", roles(), ids=lambda path: path.name)
def test_role(role: Path) -> None:
    done = subprocess.run(
        [MOLECULE, "test"],
        cwd=role,
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
