"""`appliance image test`: an image boots in QEMU, and is checked from outside.

Two processes. The outer one (`test`) looks at what is needed and makes the scratch directory; the
inner one (`python -m appliance.image.boot_test`) has a network and a process tree of its own, so
that nothing of it can stay or be seen by others.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import trio

from appliance.declaration.hardware import DETECT
from appliance.declaration.load import loads
from appliance.errors import ApplianceError
from appliance.image import netlab, pi_check
from appliance.image.boot_checks import CHECKS, OFF, Booted, Check, Wrong
from appliance.image.guest_shell import Door, logged_in, make_key
from appliance.image.imagefile import unpacked
from appliance.image.partitions import ESP, FatFiles, Table, read_table
from appliance.image.programs import require
from appliance.image.qemu import ARCHITECTURES, Architecture, Guest, Kernel, require_firmware
from appliance.image.qemu_machine import GuestFailed, running
from appliance.sizing.catalogue import CATALOGUE
from appliance.sizing.profile import Profile
from appliance.units import GIB, MIB

LOGIN: Final = 1800.0
"""Seconds until SSH lets us in: several times what emulating arm64 takes on an idle machine."""
_OFF: Final = 180.0
_ROOM_TO_GROW: Final = GIB
_SMALLEST: Final = 2048  # MiB; what a declaration with `detect` gets
# Not /tmp, which is often in memory; file-hierarchy(7).
_BIG_FILES: Final = "/var/tmp"  # noqa: S108 - the directory made in it is our own

_LOADERS: Final = {"bootx64.efi": "x86-64", "bootaa64.efi": "arm64"}


@dataclass(frozen=True, slots=True)
class Order:
    """What the inner process is to do."""

    image: Path
    as_json: bool = False
    console: Path | None = None
    """Where the console's output is left."""
    kernel: Kernel | None = None
    """None: the image boots through its own loader."""


@dataclass(slots=True)
class Report:
    """What came out; `as_json` is the document of `--json`."""

    image: str
    architecture: str = ""
    time_to_ssh_s: float | None = None
    checks: list[dict[str, Any]] = field(default_factory=list)

    @property
    def first_wrong(self) -> str | None:
        """The sentence about it."""
        wrong = (f"{one['name']}: {one['said']}" for one in self.checks if not one["passed"])
        return next(wrong, None)

    def as_json(self) -> dict[str, Any]:
        return {"passed": self.first_wrong is None, **asdict(self)}


def test(order: Order) -> int:
    """Exit code: 0 all is as it must be, 1 it is not. Raises ApplianceError: it cannot be told."""
    require(
        ["blkid", "dnsmasq", "ip", "mcopy", "setpriv", "sfdisk", "ssh", "ssh-keygen", "unshare"]
    )
    if not order.image.is_file():
        raise ApplianceError(f"{order.image}: there is no such image")
    # So that what runs and lies about goes also when we are asked to end.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    place = None if "TMPDIR" in os.environ else _BIG_FILES
    with tempfile.TemporaryDirectory(prefix="appliance-image-", dir=place) as scratch:
        words = netlab.alone(__name__, json.dumps(asdict(order), default=str), scratch)
        return subprocess.run(words, check=False).returncode


# --- inside


def main(argv: list[str]) -> int:
    """Entry of the inner process."""
    given = json.loads(argv[0])
    kernel = given["kernel"]
    order = Order(
        image=Path(given["image"]),
        as_json=given["as_json"],
        console=Path(given["console"]) if given["console"] else None,
        kernel=kernel
        and Kernel(Path(kernel["image"]), Path(kernel["initrd"]), kernel["arguments"]),
    )
    report = Report(str(order.image))
    try:
        trio.run(_perform, order, Path(argv[1]), report)
    except ApplianceError as error:
        _tell(order, report, "boot", error.message, passed=False)
        if error.hint:
            _complain(f"hint: {error.hint}")
    if order.as_json:
        _say(json.dumps(report.as_json(), indent=2))
    if report.first_wrong is None:
        return 0
    _complain(f"appliance: {order.image.name} is not as it must be: {report.first_wrong}")
    return 1


async def _perform(order: Order, scratch: Path, report: Report) -> None:
    key = make_key(scratch)
    with unpacked(order.image, scratch, grow_by=_ROOM_TO_GROW) as disk:
        table = read_table(disk)
        setup = FatFiles(disk, table.setup)
        kernel = order.kernel
        if pi_check.is_pi(table):
            kernel = _pi(order, report, disk, table, scratch)
        architecture = _architecture(disk, table, kernel)
        require([architecture.program])
        if kernel is None:
            require_firmware(architecture)
        report.architecture = architecture.name
        setup.write({"authorized_keys": key.public})
        netlab.make_tap()
        guest = Guest(architecture, disk, netlab.WIRE, kernel, memory_for(setup))
        if not order.as_json:
            _say(f"{order.image.name} boots on an emulated {architecture.name} machine")
        began = trio.current_time()
        door = Door(netlab.GUEST, key, scratch)
        async with running(guest, scratch, log=order.console) as machine:
            async with logged_in(door, machine, LOGIN) as shell:
                report.time_to_ssh_s = round(trio.current_time() - began, 1)
                said = f"the first login after {report.time_to_ssh_s:.0f} s"
                _tell(order, report, "boot", said, passed=True)
                booted = Booted(shell, table.data, machine.console.text)
                for check in CHECKS:
                    machine.check()
                    await _judge(order, report, check, booted)
            await machine.power_down(_OFF)
            await _judge(order, report, OFF, booted)


def _pi(order: Order, report: Report, disk: Path, table: Table, scratch: Path) -> Kernel:
    """Judge what a Pi's firmware needs, and take the kernel out: no such board is emulated."""
    found = pi_check.examine(disk, table)
    for line in found.seen:
        _tell(order, report, "firmware", line, passed=True)
    for line in found.wrong:
        _tell(order, report, "firmware", line, passed=False)
    console = ARCHITECTURES["arm64"].console
    kernel, initrd, arguments = pi_check.generic(FatFiles(disk, table.setup), console)
    (scratch / "kernel").write_bytes(kernel)
    (scratch / "initrd").write_bytes(initrd)
    return Kernel(scratch / "kernel", scratch / "initrd", arguments)


async def _judge(order: Order, report: Report, check: Check, booted: Booted) -> None:
    try:
        said, passed = await check.judge(booted), True
    except Wrong as error:
        said, passed = str(error), False
    except GuestFailed as error:
        said, passed = error.message, False
    except (KeyError, ValueError) as error:  # a document of another shape than it must have
        said, passed = f"its answer is not understood: {error!r}", False
    _tell(order, report, check.name, said, passed=passed)


def _tell(order: Order, report: Report, name: str, said: str, *, passed: bool) -> None:
    report.checks.append({"name": name, "passed": passed, "said": said})
    if not order.as_json:
        _say(f"{'ok   ' if passed else 'WRONG'}  {name:<9}  {said}")


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _complain(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _architecture(disk: Path, table: Table, kernel: Kernel | None) -> Architecture:
    """By the boot loader on the EFI partition; a Pi's is arm64. Raises ApplianceError."""
    esp = next((one for one in table.partitions if one.kind == ESP), None)
    if esp is not None:
        for name in FatFiles(disk, esp).names("EFI/BOOT"):
            if found := _LOADERS.get(name.lower()):
                return ARCHITECTURES[found]
    if kernel is not None:
        return ARCHITECTURES["arm64" if pi_check.is_pi(table) else "x86-64"]
    raise ApplianceError("it has no UEFI boot loader")


def memory_for(setup: FatFiles) -> int:
    """MiB, as the declaration says that its machine has: the daemon refuses a smaller one."""
    text = setup.read("appliance.yaml")
    wanted = DETECT if text is None else loads(text, file="appliance.yaml").hardware.profile
    profile = wanted if isinstance(wanted, Profile) else CATALOGUE.get(wanted)
    return _SMALLEST if profile is None else max(profile.memory_bytes // MIB, 512)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
