"""An image's root, booted with systemd-nspawn, and a wire to it; gone whole when its test ends."""

from __future__ import annotations

import os
import select
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.processes import comm, descendants

LIFE: Final = "900"  # seconds; a machine that nobody ends, ends itself
PATIENCE: Final = 120.0  # seconds for something to come about on a busy computer
OUTSIDE: Final = "192.0.2.1/24"
ADDRESS: Final = "192.0.2.10"

_ENVIRONMENT: Final = (
    "HOME=/root",
    "LANG=C.UTF-8",
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
)
PACKAGE: Final = "/opt/appliance/venv/lib/python3.13/site-packages/appliance"
"""Where the root has our code: the working tree's lies over it."""


@dataclass(frozen=True, slots=True)
class Machine:
    """A booted machine; `setup` is its setup partition."""

    setup: Path
    nspawn: int
    leader: int
    console: Path

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """A shell command inside, as root."""
        enter = ["nsenter", f"--target={self.leader}", "--mount", "--uts", "--ipc", "--net"]
        return subprocess.run(
            [
                *enter,
                "--pid",
                "--root",
                "--wd",
                "--",
                "env",
                "-i",
                *_ENVIRONMENT,
                "sh",
                "-c",
                command,
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def says(self, command: str) -> str:
        return self.run(command).stdout.strip()

    def outside(self, *command: str) -> subprocess.CompletedProcess[str]:
        """A command at the other end of the wire."""
        return subprocess.run(
            ["nsenter", f"--target={self.nspawn}", "--net", "--", *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def ssh(self, key: Path, command: str) -> subprocess.CompletedProcess[str]:
        options = ["BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null"]
        return self.outside(
            *("ssh", "-q", "-i", str(key), "-o", "ConnectTimeout=10"),
            *(word for option in options for word in ("-o", option)),
            *(f"operator@{ADDRESS}", command),
        )

    def until(self, what: str, happened: Callable[[], bool]) -> None:
        """Waits until it has; what the machine says of itself if it does not."""
        end = time.monotonic() + PATIENCE
        while not happened():
            if time.monotonic() > end:
                told = self.says("systemctl --failed; journalctl -b -n 60 --no-pager -o cat")
                raise AssertionError(f"{what}: it did not happen\n{told}")
            time.sleep(0.3)

    def edit(self, text: str) -> None:
        """As an editor saves: a new file under the old name."""
        written = f"cat > /boot/appliance/new && mv /boot/appliance/new {_DECLARATION}"
        self.run(f"printf %s {shlex.quote(text)} | {{ {written}; }}")


_DECLARATION: Final = "/boot/appliance/appliance.yaml"


@contextmanager
def booted(root: Path, setup: Path, *options: str) -> Iterator[Machine]:
    """The machine, once its boot has ended, well or not."""
    project = Path(__file__).resolve().parents[2]
    console = setup.with_name("console.log")
    with console.open("wb") as log:
        world = subprocess.Popen(
            [
                *("timeout", "--signal=KILL", LIFE),
                *("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child=SIGKILL"),
                "--mount-proc",
                *("systemd-nspawn", "--boot", "--quiet", "--register=no", "--keep-unit"),
                *("--directory", str(root), "--volatile=overlay", "--machine=image"),
                *("--network-veth", "--link-journal=no", "--resolv-conf=off", "--timezone=off"),
                *("--console=read-only", "--system-call-filter=@keyring bpf"),
                f"--bind={setup}:/boot/appliance",
                f"--bind-ro={project / 'appliance'}:{PACKAGE}",
                *options,
            ],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        machine = _found(world, setup, console)
        for command in (
            ("link", "set", "ve-image", "up"),
            ("addr", "add", OUTSIDE, "dev", "ve-image"),
        ):
            machine.outside("ip", *command)
        machine.until(
            "its systemd answers", lambda: bool(machine.says("systemctl is-system-running"))
        )
        machine.run("systemctl is-system-running --wait")
        yield machine
    finally:
        watched = [os.pidfd_open(pid) for pid in (world.pid, *descendants(world.pid))]
        os.killpg(world.pid, signal.SIGKILL)  # the last of the group takes the machine along
        for descriptor in watched:
            select.select([descriptor], [], [], PATIENCE)
            os.close(descriptor)
        world.wait()


def _found(world: subprocess.Popen[bytes], setup: Path, console: Path) -> Machine:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and world.poll() is None:
        pids = list(descendants(world.pid))
        nspawn = next((pid for pid in pids if comm(pid) == "systemd-nspawn"), None)
        leader = next((pid for pid in pids if comm(pid) == "systemd"), None)
        if nspawn is not None and leader is not None:
            return Machine(setup, nspawn, leader, console)
        time.sleep(0.1)
    raise AssertionError(f"no machine came up:\n{console.read_text(errors='replace')[-3000:]}")


if __name__ == "__main__":
    from tests.machine.image_root import image_root

    directory = Path(sys.argv[1]).resolve()
    with booted(image_root(), directory) as up:
        print(f"{up.leader} is the first process of the machine; Enter ends it")
        input()
