"""Recorded yamux connections of other implementations with our host, as files.

One file a peer, JSON. A connection is what our muxer received and sent behind the noise channel,
in order: `chunks` are the sizes of what came (positive) and went (negative), `received` and
`sent` the bytes themselves, compressed (lzma, base64).
"""

from __future__ import annotations

import base64
import json
import lzma
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

FOLDER: Final = Path(__file__).parent / "recordings"
PEERS: Final = ("go", "js", "rust")

# What each connection holds, besides identify, pings and resets, in both directions.
ECHO: Final = 3000
DIGEST: Final = 2500
AT_ONCE: Final = (1500, 1600, 1700, 1800)
BULK: Final = 300_000
"""One echo that the peer asks for: more than a window."""


@dataclass(frozen=True)
class Chunk:
    received: bool
    data: bytes


@dataclass(frozen=True)
class Recording:
    """One connection. `client`: our role in yamux."""

    client: bool
    ended: str
    chunks: tuple[Chunk, ...]

    def joined(self) -> Iterator[Chunk]:
        """The same with chunks of one direction in a row made one."""
        pending: Chunk | None = None
        for chunk in self.chunks:
            if pending is not None and pending.received == chunk.received:
                pending = Chunk(chunk.received, pending.data + chunk.data)
                continue
            if pending is not None:
                yield pending
            pending = chunk
        if pending is not None:
            yield pending

    def packed(self) -> dict[str, Any]:
        return {
            "we_are": "client" if self.client else "server",
            "ended": self.ended,
            "chunks": [len(c.data) if c.received else -len(c.data) for c in self.chunks],
            "received": _pack(b"".join(c.data for c in self.chunks if c.received)),
            "sent": _pack(b"".join(c.data for c in self.chunks if not c.received)),
        }


def load(peer: str) -> list[Recording]:
    """The connections of one peer. KeyError, ValueError if the file is not one of these."""
    file = json.loads((FOLDER / f"{peer}.json").read_text())
    return [_unpacked(connection) for connection in file["connections"]]


def _unpacked(packed: dict[str, Any]) -> Recording:
    bytes_of = {True: _unpack(packed["received"]), False: _unpack(packed["sent"])}
    at = {True: 0, False: 0}
    chunks = []
    for size in packed["chunks"]:
        received = size > 0
        start = at[received]
        at[received] = start + abs(size)
        chunks.append(Chunk(received, bytes_of[received][start : at[received]]))
    assert all(at[way] == len(data) for way, data in bytes_of.items())
    return Recording(packed["we_are"] == "client", packed["ended"], tuple(chunks))


def _pack(data: bytes) -> str:
    return base64.b64encode(lzma.compress(data, preset=9)).decode()


def _unpack(text: str) -> bytes:
    return lzma.decompress(base64.b64decode(text))
