"""A root directory in which nothing runs, with the files of its setup partition."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path
from typing import Final

from appliance.cli.main import main

HEAD: Final = "apiVersion: appliance/v1\nkind: Appliance\nmetadata:\n  name: home-box\n"
SMALL: Final = HEAD + "network: simnet\nnode:\n  kind: embedded\n"
MACHINE: Final = "---\napiVersion: appliance/v1\nkind: Machine\n"
WIFI: Final = MACHINE + "wifi:\n  country: DE\n  ssid: 'the \"house\"'\n"


def public_key(number: int) -> str:
    """A key of the right shape that nobody has the other half of."""
    blob = b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + bytes([number]) * 32
    return f"ssh-ed25519 {base64.b64encode(blob).decode()} key-{number}"


class Root:
    """A root directory with its setup partition."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.setup, self.state = path / "boot/appliance", path / "var/lib/appliance-machine"
        self.setup.mkdir(parents=True)
        self.state.mkdir(parents=True)

    def put(self, name: str, text: str | bytes) -> Path:
        path = self.setup / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    def template(self, destination: str, text: str) -> Path:
        path = self.path / f"usr/share/appliance/templates/{destination}.j2"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return self.run(destination)

    def apply(self, *options: str) -> None:
        assert main(["machine", "apply", "--root", str(self.path), *options]) == 0

    def boot(self) -> None:
        """What a restart forgets."""
        subprocess.run(["rm", "-rf", self.path / "run"], check=True)

    def run(self, name: str) -> Path:
        return self.path / "run/appliance-machine" / name

    @property
    def faults(self) -> str:
        path = self.setup / "faults.txt"
        return path.read_text() if path.exists() else ""

    @property
    def notes(self) -> str:
        return (self.setup / "state.txt").read_text()

    @property
    def console(self) -> str:
        return (self.path / "run/issue.d/50-appliance.issue").read_text()

    @property
    def in_force(self) -> str | None:
        path = self.run("appliance.yaml")
        return path.read_text() if path.exists() else None

    @property
    def keys(self) -> list[str]:
        return self.run("authorized_keys/operator").read_text().splitlines()
