"""The machine that is judged: booted untouched, and then provisioned by the roles."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from appliance.errors import ApplianceError
from tests.roles import world
from tests.roles.root import JUDGES, PROJECT

NAME: Final = "judged"
PLAYBOOK: Final = PROJECT / "tests/judges/provision.yaml"
DECLARATION: Final = "schemas/examples/public-relay.yaml"


@dataclass(frozen=True, slots=True)
class Machine:
    """A running machine; `place` is its directory on this side."""

    place: Path

    def run(self, *command: str, fine: frozenset[int] = frozenset({0})) -> str:
        """Standard output. Errors: ApplianceError when the exit code is not in `fine`."""
        done = subprocess.run(
            [str(PROJECT / "tests/roles/enter"), str(self.place / "root"), *command],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode not in fine:
            raise ApplianceError(f"{' '.join(command)}: {(done.stderr or done.stdout)[-1000:]}")
        return done.stdout

    def put(self, file: Path, where: str) -> None:
        """Copies `file` to the path `where` inside."""
        with file.open("rb") as content:
            subprocess.run(
                [
                    *(str(PROJECT / "tests/roles/enter"), str(self.place / "root")),
                    *("dd", f"of={where}", "status=none"),
                ],
                stdin=content,
                check=True,
            )

    def provision(self) -> None:
        """Applies the roles. Errors: ApplianceError with what Ansible said."""
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.place / "key")],
            check=True,
        )
        (self.place / "inventory.json").write_text(json.dumps(self._inventory()))
        ansible = shutil.which("ansible-playbook", path=str(Path(sys.executable).parent))
        if ansible is None:
            raise ApplianceError("no ansible-playbook beside this Python", hint="make venv")
        done = subprocess.run(
            [ansible, f"--inventory={self.place}/inventory.json", str(PLAYBOOK)],
            cwd=PROJECT,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise ApplianceError(f"the roles failed:\n{done.stdout[-3000:]}{done.stderr[-1000:]}")

    def _inventory(self) -> Mapping[str, object]:
        plan = subprocess.run(
            [sys.executable, "-m", "appliance", "plan", DECLARATION, "--json"],
            cwd=PROJECT,
            capture_output=True,
            check=True,
        ).stdout
        told = {
            "ansible_connection": "community.general.chroot",
            "ansible_host": str(self.place / "root"),
            "ansible_chroot_exe": str(PROJECT / "tests/roles/enter"),
            "ansible_python_interpreter": "/usr/bin/python3",
            "base_operator_keys": [(self.place / "key.pub").read_text().strip()],
            "appliance_plan": json.loads(plan),
        }
        return {"all": {"hosts": {NAME: told}}}


@contextmanager
def untouched() -> Iterator[Machine]:
    """Boots a machine with the judges installed in it; ends it in any case."""
    world.down(NAME)
    machine = Machine(world.up(NAME))
    try:
        apt = ("apt-get", "--yes", "-qq", "--no-install-recommends", "install")
        machine.run("env", "DEBIAN_FRONTEND=noninteractive", *apt, *JUDGES)
        yield machine
    finally:
        world.down(NAME)
