"""What happens to a machine whose owner, disk or network fails it; each story boots an image.

`python -m tests.images.stories NAME IMAGE SCRATCH` plays one where nothing else is (see
`netlab.alone`), and prints as JSON what the machine showed. The tests judge it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import trio

from appliance.image import netlab
from appliance.image.guest_shell import Door, Key, Shell, logged_in, make_key
from appliance.image.imagefile import unpacked
from appliance.image.partitions import FatFiles, read_table
from appliance.image.qemu import ARCHITECTURES, Guest, Kernel
from appliance.image.qemu_machine import Machine, running
from tests.images.disks import DECLARATION

WRONG: Final = DECLARATION.replace("simnet", "simnett")
SETUP: Final = "/boot/appliance"

_LOGIN: Final = 1500.0  # seconds, on an emulated machine
_MENDED: Final = 600.0
_OFF: Final = 300.0


@dataclass(frozen=True, slots=True)
class Card:
    """A flashed disk, and what its owner can do with it on another computer."""

    disk: Path
    scratch: Path
    key: Key
    kernel: Kernel

    @property
    def files(self) -> FatFiles:
        return FatFiles(self.disk, read_table(self.disk).setup)

    @asynccontextmanager
    async def on(self, *, connected: bool = True) -> AsyncIterator[Machine]:
        """The machine runs with it."""
        guest = Guest(ARCHITECTURES["x86-64"], self.disk, netlab.WIRE, self.kernel)
        async with running(guest, self.scratch, log=self.scratch / "console.log") as machine:
            if not connected:
                await machine.plug(connected=False)
            yield machine

    @asynccontextmanager
    async def entered(self, machine: Machine) -> AsyncIterator[Shell]:
        """Its owner is logged in."""
        door = Door(netlab.GUEST, self.key, self.scratch)
        async with logged_in(door, machine, _LOGIN) as shell:
            yield shell


async def wrong_declaration(card: Card) -> dict[str, Any]:
    """Mended over SSH, while it runs."""
    card.files.write({"appliance.yaml": WRONG.encode()})
    return await _mended_by(card, lambda shell: _put(shell, "appliance.yaml", DECLARATION))


async def no_declaration(card: Card) -> dict[str, Any]:
    """The same, with no file at all."""
    if card.files.has("appliance.yaml"):
        card.files.remove("appliance.yaml")
    return await _mended_by(card, lambda shell: _put(shell, "appliance.yaml", DECLARATION))


async def mended_on_another_computer(card: Card) -> dict[str, Any]:
    """The card is taken out and back: its owner sees the files as any computer shows them."""
    card.files.write({"appliance.yaml": WRONG.encode()})
    async with card.on() as machine:
        async with card.entered(machine):
            pass
        await machine.power_down(_OFF)
    faults = _text(card.files.read("faults.txt"))
    state = _text(card.files.read("state.txt"))
    card.files.write({"appliance.yaml": DECLARATION.encode()})
    async with card.on() as machine, card.entered(machine) as shell:
        await _until_running(shell)
        await machine.power_down(_OFF)
    return {"faults": faults, "state": state, "faults_after": _text(card.files.read("faults.txt"))}


async def full_disk(card: Card) -> dict[str, Any]:
    """/var is filled to the last block before the machine starts again with a new declaration."""
    card.files.write({"appliance.yaml": DECLARATION.encode()})
    async with card.on() as machine, card.entered(machine) as shell:
        await _until_running(shell)
        await shell.run(
            "sudo -n sh -c 'fallocate -l $(df -B1 --output=avail /var | tail -n 1) /var/filling; "
            "dd if=/dev/zero of=/var/filling-too bs=4k; sync'",
            within=600,
        )
        await machine.power_down(_OFF)
    card.files.write({"appliance.yaml": DECLARATION.replace("at-home", "elsewhere").encode()})
    async with card.on() as machine, card.entered(machine) as shell:
        faults = await _faults(shell)
        await shell.output("sudo -n rm -f /var/filling /var/filling-too")
        await shell.output(f"sudo -n touch {SETUP}/appliance.yaml")
        status = await _until_running(shell)
        await _until_mended(shell)
    return {"faults": faults, "name": status["name"]}


async def dead_network(card: Card) -> dict[str, Any]:
    """No cable at first."""
    card.files.write({"appliance.yaml": DECLARATION.encode()})
    async with card.on(connected=False) as machine:
        with trio.fail_after(_LOGIN):
            await machine.console.wait_for("no network yet")
        shown = machine.console.text()
        await machine.plug(connected=True)
        async with card.entered(machine) as shell:
            status = await _until_running(shell)
            state = await _until(shell, f"sudo -n grep -F {netlab.GUEST} {SETUP}/state.txt")
    return {"console": shown[-4000:], "name": status["name"], "state": state}


STORIES: Final[Mapping[str, Callable[[Card], Awaitable[dict[str, Any]]]]] = {
    story.__name__: story
    for story in (
        wrong_declaration,
        no_declaration,
        mended_on_another_computer,
        full_disk,
        dead_network,
    )
}


async def _mended_by(card: Card, mend: Callable[[Shell], Awaitable[None]]) -> dict[str, Any]:
    async with card.on() as machine, card.entered(machine) as shell:
        faults = await _faults(shell)
        shown = machine.console.text()
        before = await shell.run("appliance status --json")
        await mend(shell)
        status = await _until_running(shell)
        await _until_mended(shell)
    return {
        "faults": faults,
        "console": shown[-4000:],
        "status_before": before.code,
        "name": status["name"],
    }


async def _put(shell: Shell, name: str, text: str) -> None:
    await shell.run(f"sudo -n tee {SETUP}/{name}", stdin=text.encode())


async def _faults(shell: Shell) -> str:
    """The file beside the declaration, once it is there."""
    return await _until(shell, f"sudo -n cat {SETUP}/faults.txt")


async def _until_mended(shell: Shell) -> None:
    await _until(shell, f"sudo -n test ! -e {SETUP}/faults.txt")


async def _until_running(shell: Shell) -> dict[str, Any]:
    status: dict[str, Any] = json.loads(await _until(shell, "appliance status --json"))
    return status


async def _until(shell: Shell, command: str) -> str:
    """Repeat it in the guest until it succeeds."""
    loop = f"until {command} 2>/dev/null; do sleep 2; done"
    return (await shell.run(loop, within=_MENDED)).out


def _text(content: bytes | None) -> str:
    return "" if content is None else content.decode()


def main(argv: list[str]) -> int:
    """Play one."""
    story, image, scratch = STORIES[argv[0]], Path(argv[1]), Path(argv[2])
    key = make_key(scratch)
    netlab.make_tap()
    with unpacked(image, scratch, grow_by=1 << 30) as disk:
        card = Card(disk, scratch, key, Kernel.beside(image))
        card.files.write({"authorized_keys": key.public})
        result = trio.run(story, card)
    sys.stdout.write(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
