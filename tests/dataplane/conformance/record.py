"""Record yamux connections of other implementations with our host.

`python -m tests.dataplane.conformance.record` needs the peers of `tests/interop/build go js rust`.
Arguments name the peers to record; all if there are none.
"""

from __future__ import annotations

import json
import re
import sys
from datetime import UTC, datetime
from typing import Final

import trio

from appliance.bridge.negotiate import NegotiatedStream
from appliance.bridge.secure import Noise
from appliance.bridge.stack import MuxedConn, Stack
from appliance.dataplane.plane import Plane
from appliance.dataplane.session import Session
from appliance.dataplane.streams import Carrier
from appliance.errors import StreamReset
from tests.dataplane.conformance.recordings import (
    AT_ONCE,
    BULK,
    DIGEST,
    ECHO,
    FOLDER,
    PEERS,
    Chunk,
    Recording,
)
from tests.interop.ours import running_ours
from tests.interop.peers import HERE as INTEROP
from tests.interop.peers import Peer, running

SECONDS: Final = 120.0
VERSION: Final = {
    "go": ("go/go.mod", r"github.com/libp2p/go-libp2p v(\S+)"),
    "js": ("js/package.json", r'"libp2p": "(\S+)"'),
    "rust": ("rust/Cargo.toml", r'libp2p = { version = "=(\S+)"'),
}
"""Where the version of each peer's libp2p is pinned."""


class Tap:
    """A carrier that notes what passes through the driven side of another."""

    def __init__(self, below: Carrier) -> None:
        self._below = below
        self.chunks: list[Chunk] = []
        self.ended = ""

    @property
    def sending(self) -> bool:
        return self._below.sending

    def receive_nowait(self, into: memoryview) -> int:
        try:
            size = self._below.receive_nowait(into)
        except StreamReset:
            self.ended = self.ended or "reset"
            raise
        if size:
            self.chunks.append(Chunk(True, bytes(into[:size])))
        else:
            self.ended = self.ended or "eof"
        return size

    async def wait_receivable(self) -> None:
        await self._below.wait_receivable()

    def send_nowait(self, data: memoryview) -> None:
        self.chunks.append(Chunk(False, bytes(data)))
        self._below.send_nowait(data)

    async def drain(self) -> None:
        await self._below.drain()

    async def receive_some(self, max_bytes: int = 65536) -> bytes:
        raise NotImplementedError("a session drives its carrier")

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        raise NotImplementedError("a session drives its carrier")

    async def send_eof(self) -> None:
        await self._below.send_eof()

    def reset(self) -> None:
        self._below.reset()

    async def aclose(self) -> None:
        await self._below.aclose()


async def converse(asking: Peer, serving: Peer) -> None:
    """Everything that one end asks of the other, once."""
    target = serving.peer_id
    # js-libp2p resets a stream that ended before it began to negotiate (tests/interop).
    agreed = serving.kind == "js"
    await asking.do("identify", peer=target)
    await asking.do("ping", peer=target)
    await asking.do("echo", peer=target, bytes=ECHO, agreed=agreed)
    await asking.do("digest", peer=target, bytes=DIGEST, agreed=agreed)
    await asking.do("reset", peer=target)
    await asking.do("be_reset", peer=target)

    async def echo(size: int) -> None:
        await asking.do("echo", peer=target, bytes=size, agreed=agreed)

    async with trio.open_nursery() as nursery:
        for size in AT_ONCE:
            nursery.start_soon(echo, size)
            if serving.kind == "rust":
                # rust drops streams that come faster than its user takes them (tests/interop).
                await trio.sleep(0.2)


def version(kind: str) -> str:
    name, pattern = VERSION[kind]
    found = re.search(pattern, (INTEROP / name).read_text())
    assert found is not None, f"{name} pins no version"
    return found[1]


async def record(kind: str, *, we_dial: bool) -> Recording:
    taps: list[tuple[Tap, bool]] = []

    def tapped(
        carrier: NegotiatedStream, *, client: bool, max_inbound: int, plane: Plane
    ) -> MuxedConn:
        tap = Tap(carrier)
        taps.append((tap, client))
        return Session(tap, client=client, max_inbound=max_inbound, plane=plane)

    with trio.fail_after(SECONDS):
        async with running_ours() as ours, running(kind, {}) as peer:
            ours.host._stack = Stack(Noise, tapped)
            dialler, listener = (ours, peer) if we_dial else (peer, ours)
            await dialler.do("connect", addr=listener.addr)
            await converse(peer, ours)
            await converse(ours, peer)
            await peer.do("echo", peer=ours.peer_id, bytes=BULK, agreed=False)
            [conn] = ours.host.connections(peer.peer_id)
            await conn.identified.wait()
            await peer.do("disconnect", peer=ours.peer_id)
            await conn.session.released.wait()
    [(tap, client)] = taps
    return Recording(client, tap.ended, tuple(tap.chunks))


async def main(kinds: list[str]) -> None:
    FOLDER.mkdir(exist_ok=True)
    for kind in kinds:
        made = [await record(kind, we_dial=we_dial) for we_dial in (True, False)]
        file = {
            "peer": f"{kind}-libp2p {version(kind)}",
            "recorded": datetime.now(UTC).date().isoformat(),
            "with": "python -m tests.dataplane.conformance.record",
            "connections": [recording.packed() for recording in made],
        }
        path = FOLDER / f"{kind}.json"
        path.write_text(json.dumps(file, indent=1) + "\n")
        print(f"{path.name}: {file['peer']}, {path.stat().st_size} bytes")


if __name__ == "__main__":
    trio.run(main, sys.argv[1:] or list(PEERS))
