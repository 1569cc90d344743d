"""The laboratory's checked payload: bytes that go to a peer and come back.

Only between two embedded nodes that were both started for it, and say so in their user agents:
rusty-kaspa ends a connection on a payload that it does not know. The node that dialled sends, the
other one hashes, checks and sends each chunk back. Memory: one chunk each way.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final

from appliance.errors import RemoteProtocolError
from appliance.reasons import Reason
from appliance.wire.kaspa_messages import MAX_LAB_CHUNK, LabChunk

MARK: Final = "lab-payload"
"""A comment in the user agent, where kaspad's own `--uacomment` goes."""
SEED: Final = 16111
"""The payload is the same on every run: a failure can be looked at twice."""


def speaks_it(user_agent: str) -> bool:
    """Whether a peer was started with the laboratory's switch."""
    return user_agent.startswith("/kaspa-appliance:") and f"({MARK})" in user_agent


@dataclass(frozen=True, slots=True)
class PayloadResult:
    """What one side knows at the end."""

    size: int  # bytes that arrived here
    sha256: str  # of those
    intact: bool


class _Checker:
    """Hashes chunks that must come in order and without gaps."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._offset = 0

    def add(self, chunk: LabChunk) -> bool:
        """True with the last chunk. Raises RemoteProtocolError."""
        end = self._offset + len(chunk.data)
        if chunk.offset != self._offset or not chunk.data or end > chunk.total:
            raise RemoteProtocolError(Reason.MALFORMED_MESSAGE, "a lab chunk out of order")
        self._offset = end
        self._hash.update(chunk.data)
        return end == chunk.total

    def result(self, expected: bytes) -> PayloadResult:
        digest = self._hash.digest()
        return PayloadResult(self._offset, digest.hex(), digest == expected)


class LabExchange:
    """One connection's payloads. `send` waits for room; `done` is told this side's result.

    Only the side that did not dial sends chunks back: if both did, both could wait for each other.
    """

    def __init__(
        self,
        *,
        dialled: bool,
        send: Callable[[LabChunk], Awaitable[None]],
        done: Callable[[PayloadResult], None],
    ) -> None:
        self._dialled = dialled
        self._send = send
        self._done = done
        self._arriving: _Checker | None = None
        self._returning: _Checker | None = None
        self._sent_digest = b""

    async def originate(self, total: int) -> None:
        """Send `total` bytes of seeded pseudo-random data. Raises what `send` raises."""
        source = random.Random(SEED)
        digest = hashlib.sha256()
        self._returning = _Checker()
        for offset in range(0, total, MAX_LAB_CHUNK):
            data = source.randbytes(min(MAX_LAB_CHUNK, total - offset))
            digest.update(data)
            chunk = LabChunk(echo=False, total=total, offset=offset, data=data)
            if offset + len(data) == total:
                self._sent_digest = digest.digest()
                chunk = replace(chunk, sha256=self._sent_digest)
            await self._send(chunk)

    async def receive(self, chunk: LabChunk) -> None:
        """Check a chunk, and send it back if it is not one of ours. Raises RemoteProtocolError."""
        if chunk.echo:
            if self._returning is None:
                raise RemoteProtocolError(Reason.UNEXPECTED_MESSAGE, "an echo of nothing")
            if self._returning.add(chunk):
                result = self._returning.result(self._sent_digest)
                self._returning = None
                self._done(result)
            return
        if self._dialled:
            raise RemoteProtocolError(
                Reason.UNEXPECTED_MESSAGE, "a payload for the node that dialled"
            )
        self._arriving = self._arriving or _Checker()
        last = self._arriving.add(chunk)
        await self._send(replace(chunk, echo=True))
        if last:
            result = self._arriving.result(chunk.sha256)
            self._arriving = None
            self._done(result)
