"""The machine that is judged: booted untouched, and then provisioned by the roles."""

from __future__ import annotations

import hashlib
import json
import re
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
PLAYBOOK: Final = PROJECT / "playbooks/site.yaml"
DECLARATION: Final = PROJECT / "schemas/examples/public-relay.yaml"
# Stands for the binary that an operator supplies: it takes kaspad's flags, and listens.
KASPAD: Final = PROJECT / "roles/kaspad/molecule/default/listener"


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

    def pass_over_the_host(self) -> None:
        """Keeps Lynis from judging kernel settings that a machine in namespaces shares with its
        host, and can neither have nor set."""
        known = self.run("cat", "/etc/lynis/default.prf")
        settings = re.findall(r"(?m)^config-data=sysctl;([^;]+);", known)
        skipped = [name for name in settings if not name.startswith(("net.ipv4.", "net.ipv6."))]
        lines = "".join(f"skip-test=KRNL-6000:{name}\n" for name in skipped)
        profile = self.place / "custom.prf"
        profile.write_text(lines)
        self.put(profile, "/etc/lynis/custom.prf")

    def provision(self) -> None:
        """Applies every role. Errors: ApplianceError with what Ansible said."""
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
        told = {
            "ansible_connection": "community.general.chroot",
            "ansible_host": str(self.place / "root"),
            "ansible_chroot_exe": str(PROJECT / "tests/roles/enter"),
            "ansible_python_interpreter": "/usr/bin/python3",
            "base_operator_keys": [(self.place / "key.pub").read_text().strip()],
            "appliance_declaration": str(DECLARATION),
            "kaspad_binary": str(KASPAD),
            "kaspad_sha256": hashlib.sha256(KASPAD.read_bytes()).hexdigest(),
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
        machine.pass_over_the_host()
        yield machine
    finally:
        world.down(NAME)
