"""SSH to a guest: one connection that is kept, and commands over it."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

from appliance.image.programs import find
from appliance.image.qemu_machine import GuestFailed, Machine

USER: Final = "operator"
_AGAIN: Final = 2.0  # seconds between two attempts to log in
_ONE_LOGIN: Final = 60.0
"""Seconds: key exchange and login take more than ten under emulation."""
_COMMAND: Final = 120.0
_UP: Final = b"logged in\n"


@dataclass(frozen=True, slots=True)
class Key:
    """A throw-away key pair."""

    private: Path
    public: bytes


def make_key(directory: Path) -> Key:
    """A new one in `directory`. Raises ApplianceError where ssh-keygen is missing."""
    path = directory / "key"
    words = [
        find("ssh-keygen"),
        "-q",
        "-t",
        "ed25519",
        "-N",
        "",
        "-C",
        "image test",
        "-f",
        str(path),
    ]
    subprocess.run(words, check=True)
    return Key(path, path.with_suffix(".pub").read_bytes())


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command came to."""

    code: int
    out: str
    err: str


@dataclass(frozen=True, slots=True)
class Door:
    """Where a guest's SSH is, and how we get there."""

    address: str
    key: Key
    scratch: Path
    inside: Sequence[str] = ()
    """As in `qemu_machine.running`."""

    def words(self, *options: str, user: str = USER) -> list[str]:
        """An `ssh` command line to it, without the command."""
        settings = {
            "IdentitiesOnly": "yes",
            "IdentityAgent": "none",
            "StrictHostKeyChecking": "accept-new",
            "UserKnownHostsFile": str(self.scratch / "known_hosts"),
            "BatchMode": "yes",
            "ConnectTimeout": f"{_ONE_LOGIN:g}",
            "LogLevel": "ERROR",
        }
        named = [word for pair in settings.items() for word in ("-o", "=".join(pair))]
        target = f"{user}@{self.address}"
        return [
            *(*self.inside, find("ssh"), "-F", "none", "-i", str(self.key.private)),
            *(*named, *options, target),
        ]

    async def refusal(self, user: str, *options: str) -> str:
        """What the server says to a login that it must refuse; empty: it let us in."""
        done = await _run([*self.words(*options, user=user), "true"], b"", _COMMAND)
        return "" if done.code == 0 else done.err.strip()


@dataclass(frozen=True, slots=True)
class Shell:
    """A session; commands run as the user that logs in."""

    door: Door
    _master: str

    async def run(self, command: str, *, stdin: bytes = b"", within: float = _COMMAND) -> Answer:
        """Run a command of the guest's shell. Raises GuestFailed when it takes longer."""
        words = [*self.door.words("-S", self._master, "-o", "ControlMaster=no"), command]
        return await _run(words, stdin, within)

    async def output(self, command: str) -> str:
        """Its standard output. Raises GuestFailed if it fails."""
        answer = await self.run(command)
        if answer.code != 0:
            said = (answer.err.strip() or answer.out.strip() or "nothing").splitlines()[-1]
            raise GuestFailed(f"`{command}` failed in the guest: {said}")
        return answer.out


@asynccontextmanager
async def logged_in(door: Door, machine: Machine, within: float) -> AsyncIterator[Shell]:
    """Wait until the guest lets us in, and keep that one connection: its firewall counts new ones.

    Raises GuestFailed.
    """
    master, complaints = str(door.scratch / "ssh"), door.scratch / "ssh.log"
    words = [*door.words("-M", "-S", master), f"echo {_UP.decode().strip()}; exec cat"]
    with trio.move_on_after(within) as patience:
        while True:
            machine.check()
            with complaints.open("wb") as log:
                process = await trio.lowlevel.open_process(
                    words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
                )
            try:
                assert process.stdout is not None
                if await _says(process.stdout, _UP):
                    patience.deadline = float("inf")
                    yield Shell(door, master)
                    return
            finally:
                process.kill()
                with trio.CancelScope(shield=True):
                    await process.wait()
            await trio.sleep(_AGAIN)
    said = (complaints.read_text(errors="replace").strip().splitlines() or ["nothing"])[-1]
    raise GuestFailed(
        f"nobody could log in within {within:g} s: ssh said {said!r}, the console at last "
        f"{machine.console.last()!r}"
    )


async def _says(stream: trio.abc.ReceiveStream, expected: bytes) -> bool:
    heard = b""
    while expected not in heard:
        data = await stream.receive_some(1024)
        if not data:
            return False
        heard += data
    return True


async def _run(words: Sequence[str], stdin: bytes, within: float) -> Answer:
    with trio.move_on_after(within):
        done = await trio.run_process(
            words, stdin=stdin, capture_stdout=True, capture_stderr=True, check=False
        )
        out, err = (text.decode(errors="replace") for text in (done.stdout, done.stderr))
        return Answer(done.returncode, out, err)
    raise GuestFailed(f"no answer within {within:g} s to `{words[-1]}`")
