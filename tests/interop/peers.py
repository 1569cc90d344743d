"""Peers of other implementations as processes of ours, driven by JSON lines (see README.md)."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, Protocol

import trio

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parents[1]
BUILT: Final = ROOT / ".cache" / "interop"
READY: Final = 30.0
"""Seconds that a peer gets from its start to its addresses, on a busy machine."""
ANSWER: Final = 15.0
"""Seconds for a command; the peers themselves give up after 30."""
TOLD: Final = 10.0
"""Seconds for an event that a command has set off already."""
PROGRAMS: Final[dict[str, list[str]]] = {
    "go": [str(BUILT / "go-peer")],
    "js": ["node", str(BUILT / "js" / "index.mjs")],
    "py": [sys.executable, "-m", "tests.interop.py.peer"],
    # The benchmarks' own: our host as a process, and many of its clients in one.
    "load": [sys.executable, "-m", "tests.bench.load"],
    "ours": [sys.executable, "-m", "tests.bench.ours"],
    "rust": [str(BUILT / "rust" / "target" / "release" / "interop-peer")],
}

Reply = dict[str, Any]


class PeerError(Exception):
    """The peer says that it could not do it, in its own words."""


class Peer(Protocol):
    """One libp2p host, ours or another's: the same words for all."""

    kind: str
    peer_id: str

    @property
    def addr(self) -> str:
        """Where it listens, with its peer id at the end."""
        ...

    async def do(self, verb: str, **arguments: object) -> Reply:
        """One command. Raises PeerError."""
        ...

    async def event(self, name: str, **fields: object) -> Reply:
        """The next event of that name with these fields that was not taken yet."""
        ...


class Events:
    """What a peer told unasked, until somebody takes it."""

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self.seen: list[Reply] = []
        self._arrived = trio.Event()

    def add(self, event: Reply) -> None:
        self.seen.append(event)
        self._arrived.set()
        self._arrived = trio.Event()

    async def take(self, name: str, fields: dict[str, object], seconds: float = TOLD) -> Reply:
        with trio.move_on_after(seconds):
            while True:
                for event in self.seen:
                    if event["event"] == name and fields.items() <= event.items():
                        self.seen.remove(event)
                        return event
                await self._arrived.wait()
        raise PeerError(f"{self._owner}: no {name} {fields} within {seconds:g} s: {self.seen}")


class Process:
    """A peer that runs as a program; made by `running`."""

    def __init__(self, kind: str, process: trio.Process) -> None:
        self.kind = kind
        self.pid = process.pid
        self.peer_id = ""
        self._addr = ""
        self._process = process
        self._asked: dict[int, trio.MemorySendChannel[Reply]] = {}
        self._events = Events(kind)
        self._ended = False
        self._writing = trio.Lock()

    @property
    def addr(self) -> str:
        return self._addr

    async def do(self, verb: str, **arguments: object) -> Reply:
        assert self._process.stdin is not None
        number = len(self._asked)
        send, receive = trio.open_memory_channel[Reply](1)
        self._asked[number] = send
        line = json.dumps({"id": number, "do": verb, **arguments}) + "\n"
        if self._ended:
            raise PeerError(f"{self.kind} is gone")
        try:
            with trio.fail_after(ANSWER):
                async with self._writing:
                    await self._process.stdin.send_all(line.encode())
                reply = await receive.receive()
        except (trio.TooSlowError, trio.EndOfChannel, trio.BrokenResourceError) as error:
            raise PeerError(f"{self.kind} did not answer {verb}: {error!r}") from error
        if "error" in reply:
            raise PeerError(f"{self.kind} {verb}: {reply['error']}")
        return reply

    async def event(self, name: str, **fields: object) -> Reply:
        return await self._events.take(name, fields)

    async def read(self) -> None:
        """Sort what it says into answers and events, until it ends."""
        assert self._process.stdout is not None
        buffer = bytearray()
        try:
            async for data in self._process.stdout:
                buffer += data
                *lines, rest = buffer.split(b"\n")
                for line in lines:
                    self._heard(json.loads(line))
                buffer = bytearray(rest)
        finally:
            self._ended = True
            for asked in self._asked.values():
                asked.close()

    def _heard(self, message: Reply) -> None:
        if "event" in message:
            self._events.add(message)
        else:
            self._asked[message["id"]].send_nowait(message)

    async def become_ready(self) -> None:
        ready = await self._events.take("ready", {}, READY)
        self.peer_id = ready["peer"]
        suffix = f"/p2p/{self.peer_id}"
        self._addr = ready["addrs"][0].removesuffix(suffix) + suffix


def why_not(kind: str) -> str | None:
    """Why this peer cannot be run, or None."""
    stamp = BUILT / f"{kind}.stamp"
    if kind in {"load", "ours", "py"}:
        return None
    if not stamp.exists():
        return f"the {kind} peer is not built: tests/interop/build {kind}"
    built = stamp.stat().st_mtime
    sources = (path for path in (HERE / kind).rglob("*") if path.is_file())
    if any(path.stat().st_mtime > built for path in sources):
        return f"the {kind} peer is older than its source: tests/interop/build {kind}"
    return None


@asynccontextmanager
async def running(kind: str, options: dict[str, object]) -> AsyncIterator[Process]:
    """A peer, ready; killed at the end. What it wrote to standard error is printed then."""
    with tempfile.TemporaryFile() as errors:
        process = await trio.lowlevel.open_process(
            [*PROGRAMS[kind], json.dumps(options)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
        peer = Process(kind, process)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(peer.read)
                await peer.become_ready()
                yield peer
                nursery.cancel_scope.cancel()
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
                for pipe in (process.stdin, process.stdout):
                    if pipe is not None:
                        await pipe.aclose()
            errors.seek(0)
            if text := errors.read().decode(errors="replace"):
                print(f"--- standard error of the {kind} peer\n{text[-4000:]}")


def pattern(size: int) -> bytes:
    """What every peer sends: it shows a lost, repeated or moved block."""
    block = bytes(range(256))
    out = bytearray()
    for high in range(math.ceil(size / 256)):
        mask = (high ^ high >> 8) & 0xFF
        out += bytes(value ^ mask for value in block)
    return bytes(out[:size])
