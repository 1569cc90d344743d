"""A machine to try roles on: a booted Debian in systemd-nspawn, inside a world that dies whole.

The world is a process in namespaces of its own (processes, mounts, network). Its network is the
outside: a wire joins it to the machine, and what is asked from there is what a stranger sees.
The root is the cached one under an overlay in memory. When the world's first process ends, by
`down`, by its time limit or by a kill, the kernel takes machine, mounts and wire along.

    python -m tests.roles.world up NAME      boots it and returns once systemd is up
    python -m tests.roles.world down NAME    ends it; fine if there is none
    python -m tests.roles.world outside NAME COMMAND...   runs a command outside, on the wire
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from appliance.errors import ApplianceError
from tests.processes import comm, descendants
from tests.roles.root import PROJECT, base_root

WORLDS: Final = PROJECT / ".cache/molecule"
ENTER: Final = PROJECT / "tests/roles/enter"
LIFE: Final = "3600"  # seconds; a world that nobody ends, ends itself
BOOT: Final = 60.0  # seconds that systemd may take to come up; it takes one or two

WIRE: Final = "wire"  # the outside's end; nspawn would name it after the machine, cut short
# The machine on the wire, as the internet and as its own network see it.
INSIDE: Final = ("192.0.2.2/24", "192.168.77.2/24", "2001:db8:77::2/64")
OUTSIDE: Final = ("192.0.2.1/24", "192.168.77.1/24", "2001:db8:77::1/64")
# Every address of these is the outside's as well: neighbours of one prefix, and many prefixes.
STRANGERS: Final = ("198.51.100.0/24", "198.18.0.0/15", "2001:db8:78::/48")


def up(name: str) -> Path:
    """Boots the machine `name`; its directory holds `root`, `leader`, `world` and `log`.

    Errors: ApplianceError when it runs already, or does not come up.
    """
    place = WORLDS / name
    if _alive(place) is not None:
        raise ApplianceError(
            f"the machine {name} runs already", hint=f"python -m tests.roles.world down {name}"
        )
    root = base_root()
    shutil.rmtree(place, ignore_errors=True)
    # What Ansible's chroot connection looks for before it runs `enter`.
    (place / "root/bin").mkdir(parents=True)
    (place / "root/bin/sh").symlink_to("/bin/sh")
    with tempfile.TemporaryDirectory() as directory, (place / "log").open("wb") as log:
        notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        notices.bind(f"{directory}/notify")
        notices.settimeout(BOOT)
        world = subprocess.Popen(
            [
                *("timeout", "--signal=KILL", LIFE),
                *("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child=SIGKILL"),
                "--mount-proc",
                *("systemd-nspawn", "--boot", "--quiet", "--register=no", "--keep-unit"),
                *("--directory", str(root), "--volatile=overlay", f"--machine={name}"),
                *(f"--network-veth-extra={WIRE}:host0", "--notify-ready=yes", "--link-journal=no"),
                *("--resolv-conf=off", "--timezone=off", "--console=passive"),
                "--system-call-filter=@keyring bpf",
            ],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "NOTIFY_SOCKET": f"{directory}/notify"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        (place / "world").write_text(str(world.pid))
        try:
            _wait_until_ready(notices)
            leader = _leader(world.pid)
        except TimeoutError:
            down(name)
            shown = (place / "log").read_text(errors="replace")[-3000:]
            raise ApplianceError(f"the machine {name} did not come up:\n{shown}") from None
        finally:
            notices.close()
    (place / "leader").write_text(str(leader))
    _wire(name, leader)
    # However old the root is, its lists of packages count as fresh: there is no network to ask.
    _run([str(ENTER), str(place / "root"), "touch", "/var/lib/apt/periodic/update-success-stamp"])
    return place


def down(name: str) -> None:
    """Ends the machine `name` and everything it had; returns once the kernel has taken it."""
    place = WORLDS / name
    if (pid := _alive(place)) is not None:
        watched = [os.pidfd_open(found) for found in (pid, *descendants(pid))]
        os.killpg(pid, signal.SIGKILL)  # timeout, unshare, nspawn; the last takes the machine along
        for descriptor in watched:
            select.select([descriptor], [], [], BOOT)
            os.close(descriptor)
    shutil.rmtree(place, ignore_errors=True)


def outside(name: str, command: list[str]) -> list[str]:
    """The command line that runs `command` on the wire, outside the machine `name`."""
    place = WORLDS / name
    if (pid := _alive(place)) is None:
        raise ApplianceError(f"the machine {name} does not run")
    nspawn = next(found for found in descendants(pid) if comm(found) == "systemd-nspawn")
    return ["nsenter", f"--target={nspawn}", "--net", "--", *command]


def _wait_until_ready(notices: socket.socket) -> None:
    while b"READY=1" not in notices.recv(4096).split(b"\n"):
        pass


def _alive(place: Path) -> int | None:
    """The world's first process, if it is still the one that was started."""
    try:
        pid = int((place / "world").read_text())
    except (OSError, ValueError):
        return None
    return pid if comm(pid) == "timeout" else None


def _leader(world: int) -> int:
    """The machine's systemd: the process that is the first of a namespace within the world's."""
    for pid in descendants(world):
        if comm(pid) == "systemd":
            status = Path(f"/proc/{pid}/status").read_text()
            seen = next(line for line in status.splitlines() if line.startswith("NSpid:"))
            if seen.split()[-1] == "1":
                return pid
    raise ApplianceError("no systemd runs in the machine")


def _wire(name: str, leader: int) -> None:
    """Addresses on both ends of the wire. `nodad`: usable at once."""
    inside = ["nsenter", f"--target={leader}", "--net", "--"]
    _run([*inside, "ip", "link", "set", "host0", "up"])
    for address in INSIDE:
        _run([*inside, "ip", "address", "add", address, "dev", "host0", *_at_once(address)])
    there = outside(name, [])
    _run([*there, "ip", "link", "set", "lo", "up"])
    _run([*there, "ip", "link", "set", WIRE, "up"])
    for address in OUTSIDE:
        _run([*there, "ip", "address", "add", address, "dev", WIRE, *_at_once(address)])
    _run([*there, "sysctl", "--quiet", "--write", "net.ipv6.ip_nonlocal_bind=1"])
    for prefix in STRANGERS:
        _run([*there, "ip", "route", "add", "local", prefix, "dev", "lo"])
    for address in OUTSIDE[0], OUTSIDE[2]:
        gateway = address.partition("/")[0]
        _run([*inside, "ip", "route", "add", "default", "via", gateway, "dev", "host0"])


def _at_once(address: str) -> list[str]:
    return ["nodad"] if ":" in address else []


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ApplianceError(f"{' '.join(command)}: {done.stderr.strip()}")


def main(arguments: list[str]) -> int:
    match arguments:
        case ["up", name]:
            print(up(name))
        case ["down", name]:
            down(name)
        case ["outside", name, *command] if command:
            os.execvp("nsenter", outside(name, command))
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except ApplianceError as error:
        sys.exit(f"error: {error.message}")
