"""A guest that runs: started, listened to, powered down, and never left behind."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import trio

from appliance.errors import ApplianceError
from appliance.image.programs import find
from appliance.image.qemu import CARD, Guest, command, require_firmware

_MAX_LINES: Final = 4000
_MAX_LINE: Final = 4096
_MAX_REPLY: Final = 1024 * 1024
_PANIC: Final = "Kernel panic"


class GuestFailed(ApplianceError):
    """The guest ended, or did not do in time what it had to; says what its console showed last."""


@dataclass(slots=True)
class Console:
    """What the guest wrote to its serial line: the last lines, and a log if one is wanted."""

    log: Path | None
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=_MAX_LINES))
    _pending: str = ""
    _changed: trio.lowlevel.ParkingLot = field(default_factory=trio.lowlevel.ParkingLot)

    async def wait_for(self, text: str) -> None:
        """Until it stands among what is kept."""
        while text not in self.text():
            await self._changed.park()

    def take(self, data: bytes) -> None:
        """More of it."""
        if self.log is not None:
            with self.log.open("ab") as log:
                log.write(data)
        *lines, rest = (self._pending + data.decode(errors="replace")).split("\n")
        self.lines.extend(line.rstrip("\r") for line in lines)
        self._pending = rest[-_MAX_LINE:]
        self._changed.unpark_all()

    def text(self) -> str:
        """All that is kept."""
        return "\n".join([*self.lines, self._pending])

    def last(self) -> str:
        """The last line that says something."""
        return next((line for line in reversed(self.text().split("\n")) if line.strip()), "nothing")


@dataclass(slots=True)
class Machine:
    """The running guest."""

    console: Console
    _process: subprocess.Popen[bytes]
    _monitor: trio.SocketStream
    _gone: trio.Event = field(default_factory=trio.Event)

    @property
    def ended(self) -> bool:
        """QEMU is not there any more: powered off, rebooted, or crashed."""
        return self._gone.is_set()

    def check(self) -> None:
        """Raises GuestFailed if it cannot become what one waits for."""
        if self.ended:
            raise GuestFailed(f"the guest ended; its console's last line: {self.console.last()}")
        if _PANIC in self.console.text():
            line = next(line for line in self.console.text().split("\n") if _PANIC in line)
            raise GuestFailed(f"the guest's kernel panicked: {line.strip()}")

    async def wait_ended(self) -> None:
        """Until QEMU is gone."""
        await self._gone.wait()

    async def power_down(self, within: float) -> None:
        """Press its power button and wait until it is off. Raises GuestFailed."""
        with trio.move_on_after(within):
            with suppress(trio.BrokenResourceError):  # it is off already
                await self._order("system_powerdown")
            await self._gone.wait()
            return
        raise GuestFailed(
            f"the guest was not off within {within:g} s; its console's last line: "
            f"{self.console.last()}"
        )

    async def plug(self, *, connected: bool) -> None:
        """Put the network cable in, or pull it out."""
        await self._order("set_link", name=CARD, up=connected)

    async def negotiate(self) -> None:
        """QMP's first word; before it QEMU takes no other."""
        with suppress(trio.BrokenResourceError):  # QEMU has ended; `check` says why
            await self._order("qmp_capabilities")

    async def _order(self, verb: str, **arguments: object) -> None:
        message = {"execute": verb} | ({"arguments": arguments} if arguments else {})
        await self._monitor.send_all(json.dumps(message).encode() + b"\n")

    async def listen(self) -> None:
        """Takes the console until the guest ends."""
        assert self._process.stdout is not None
        async with trio.lowlevel.FdStream(os.dup(self._process.stdout.fileno())) as stream:
            async for data in stream:
                self.console.take(bytes(data))
        self._process.wait()
        self._gone.set()

    async def discard_replies(self) -> None:
        """QMP's greeting, answers and events: read, so that QEMU never waits for us."""
        try:
            while await self._monitor.receive_some(_MAX_REPLY):
                pass
        except trio.BrokenResourceError:
            pass  # killed


@asynccontextmanager
async def running(
    guest: Guest, scratch: Path, *, inside: Sequence[str] = (), log: Path | None = None
) -> AsyncIterator[Machine]:
    """The guest, from power-on until the block ends, when it is killed unless it is off.

    `inside` is put before QEMU's command line; `nsenter` there moves it to another namespace.
    Raises ApplianceError where QEMU or the firmware is missing, GuestFailed if QEMU does not start.
    """
    program = find(guest.architecture.program)
    if guest.kernel is None:
        require_firmware(guest.architecture)
    ours, theirs = socket.socketpair()
    with theirs:
        words = command(guest, program=program, monitor=theirs.fileno(), scratch=scratch)
        process = subprocess.Popen(  # noqa: ASYNC220 - it only forks; trio's does so in a thread
            [*inside, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=[theirs.fileno()],
        )
    try:
        async with trio.SocketStream(trio.socket.from_stdlib_socket(ours)) as monitor:
            machine = Machine(Console(log), process, monitor)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(machine.listen)
                nursery.start_soon(machine.discard_replies)
                await machine.negotiate()
                yield machine
                nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        # The block's own error without the nursery around it; our two tasks raise none.
        if len(group.exceptions) == 1:
            raise group.exceptions[0] from None
        raise
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
