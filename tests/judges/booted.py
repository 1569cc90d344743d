"""Lets Lynis look at a booted image, which has a kernel of its own, unlike the bench's machine.

    python -m tests.judges.booted IMAGE [--json]

IMAGE is what `appliance image build --keep-kernel` made; QEMU emulates it. Nothing is installed in
it: Lynis runs from /run. Exit code 1 when something fails that is not in the register of
deviations, or when the index is below 85. About half an hour.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import signal
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Final

import trio

from appliance.errors import ApplianceError
from appliance.image import netlab
from appliance.image.guest_shell import Shell, make_key
from appliance.image.imagefile import unpacked
from appliance.image.qemu import Kernel
from appliance.image.qemu_machine import GuestFailed
from tests.images.disks import DECLARATION
from tests.images.stories import Card
from tests.judges.__main__ import LEAST_INDEX
from tests.judges.register import register, unregistered
from tests.judges.verdicts import LYNIS_FINE, Verdict, lynis_verdict
from tests.roles.root import base_root

_PLACE: Final = "/run/lynis"
_AUDIT: Final = 5400.0  # seconds; it starts some ten thousand programs, under emulation
_SETTLED: Final = 900.0
# Where a standalone Lynis looks for its parts → where Debian's package has them.
_PARTS: Final = {
    "lynis": "usr/sbin/lynis",
    "include": "usr/share/lynis/include",
    "db": "usr/share/lynis/db",
    "default.prf": "etc/lynis/default.prf",
    "plugins": "etc/lynis/plugins",
}


def verdict(image: Path) -> Verdict:
    """Lynis's, of the booted image. Errors: ApplianceError when there is none."""
    base_root()  # made while there is a network
    with tempfile.TemporaryDirectory(prefix="judged-", dir="/var/tmp") as scratch:
        words = netlab.alone("tests.judges.booted", str(image), "--inside", scratch)
        done = subprocess.run(words, stdout=subprocess.PIPE, check=False)
    if done.returncode:
        raise ApplianceError("Lynis gave no verdict on the booted image")
    return Verdict(**json.loads(done.stdout))


async def _judge(card: Card) -> Verdict:
    card.files.write({"appliance.yaml": DECLARATION.encode()})
    async with card.on() as machine, card.entered(machine) as shell:
        # A machine that still starts is not the one that is to be judged.
        await shell.run("systemctl is-system-running --wait", within=_SETTLED)
        return lynis_verdict(await _report(shell))


async def _report(shell: Shell) -> str:
    unpack = f"sudo -n sh -c 'mkdir {_PLACE} && tar -x -C {_PLACE}'"
    answer = await shell.run(unpack, stdin=standalone())
    if answer.code:
        raise GuestFailed(f"Lynis cannot be put into the guest: {answer.err.strip()}")
    files = f"--logfile {_PLACE}/log --report-file {_PLACE}/report.dat"
    audit = f"sh ./lynis audit system --usecwd --quick --no-colors --quiet {files}"
    done = await shell.run(f"sudo -n sh -c 'cd {_PLACE} && {audit}'", within=_AUDIT)
    if done.code not in LYNIS_FINE:
        raise GuestFailed(f"Lynis failed: {(done.err or done.out).strip()[-500:]}")
    return await shell.output(f"sudo -n cat {_PLACE}/report.dat")


def standalone() -> bytes:
    """Lynis as a tar file to run in place, from the package that judges the bench's machine."""
    [package] = (base_root() / "var/cache/apt/archives").glob("lynis_*.deb")
    made = io.BytesIO()
    with tempfile.TemporaryDirectory() as place, tarfile.open(fileobj=made, mode="w") as archive:
        subprocess.run(["dpkg-deb", "--extract", package, place], check=True)
        for name, path in _PARTS.items():
            archive.add(Path(place, path), name, filter=_as_root)
    return made.getvalue()


def _as_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Lynis runs no file of somebody else."""
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member


def _inside(image: Path, scratch: Path) -> int:
    key = make_key(scratch)
    netlab.make_tap()
    with unpacked(image, scratch, grow_by=1 << 30) as disk:
        card = Card(disk, scratch, key, Kernel.beside(image))
        card.files.write({"authorized_keys": key.public})
        found = trio.run(_judge, card)
    sys.stdout.write(json.dumps(dataclasses.asdict(found)))
    return 0


def main(argv: list[str] | None = None) -> int:
    """Entry of the command."""
    parser = argparse.ArgumentParser(prog="python -m tests.judges.booted", description=__doc__)
    parser.add_argument("image", type=Path)
    parser.add_argument("--json", action="store_true", help="print the verdict as JSON")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    # So that what runs and lies about goes also when we are asked to end.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if given.inside:
            return _inside(given.image, given.inside)
        found = verdict(given.image)
    except ApplianceError as error:
        print(f"error: {error.message}", file=sys.stderr)
        return 1
    if given.json:
        print(json.dumps(dataclasses.asdict(found), indent=1))
    else:
        print(f"Lynis: index {found.index}, {found.passed} of {found.judged} tests without a wish")
    wrong = shortcomings(found)
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


def shortcomings(found: Verdict) -> list[str]:
    """What is wrong with a booted image, one sentence each."""
    # What the bench lacks, or a server does otherwise, is no excuse here.
    wrong = unregistered([found], (one for one in register() if one.where in {"image", "both"}))
    if found.index is None or found.index < LEAST_INDEX:
        wrong.append(f"Lynis's index is {found.index}, and should be at least {LEAST_INDEX}")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
