"""The laboratory without root, as an ordinary user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent.parent
NOBODY = 65534
PROGRAM = """
import json
from appliance.lab import world
print(json.dumps(world.run("tests.lab.inside:how_the_relay_sees_a_home", {}, print, 30)))
"""


def interpreter_for_everybody() -> str:
    """One that any user may start: ours, unless it lies in somebody's closed home."""
    same = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for candidate in (sys.executable, f"/usr/bin/{same}", f"/usr/local/bin/{same}"):
        try:
            subprocess.run([candidate, "-c", "pass"], user=NOBODY, group=NOBODY, check=True)
        except OSError:
            continue  # not there, or not for everybody
        return candidate
    pytest.skip(f"no {same} that an ordinary user may start")


@pytest.mark.netns
@pytest.mark.usefixtures("lab")
def test_a_user_without_any_right_gets_a_world() -> None:
    """As root we become nobody first; as a user we are one already."""
    root = os.geteuid() == 0
    done = subprocess.run(
        [interpreter_for_everybody() if root else sys.executable, "-c", PROGRAM],
        cwd=PROJECT,
        env={
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": f"{PROJECT}:{sysconfig.get_path('purelib')}",
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        user=NOBODY if root else None,
        group=NOBODY if root else None,
        extra_groups=[] if root else None,
        capture_output=True,
        text=True,
        check=False,
    )
    if not root and "does not let us make user namespaces" in done.stderr:
        pytest.skip("this system forbids user namespaces to users")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout.splitlines()[-1])["seen"]) == 2
