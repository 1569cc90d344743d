"""The processes of a run: each can be stopped alone, all of them end with the block."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from tests.interop.peers import PeerError, Process, running, why_not


class Pool:
    """Starts and stops peers; made by `pool`."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._stops: dict[Process, trio.Event] = {}

    async def start(self, kind: str, *, relay: bool = False) -> Process:
        """A peer with the limits lifted. Raises PeerError."""
        if (reason := why_not(kind)) is not None:
            raise PeerError(reason)
        options: dict[str, object] = {"bench": True}
        if relay:
            options["relay"] = {}
        started = await self._nursery.start(self._hold, kind, options)
        if isinstance(started, PeerError):
            raise started
        assert isinstance(started, Process)
        return started

    async def _hold(
        self,
        kind: str,
        options: dict[str, object],
        *,
        task_status: trio.TaskStatus[Process | PeerError],
    ) -> None:
        stop = trio.Event()
        peer: Process | None = None
        try:
            async with running(kind, options) as peer:
                self._stops[peer] = stop
                task_status.started(peer)
                await stop.wait()
        except* (PeerError, OSError, ValueError) as group:
            if peer is None:
                words = "; ".join(str(error) for error in group.exceptions)
                task_status.started(PeerError(f"{kind} did not start: {words}"))
        finally:
            if peer is not None:
                del self._stops[peer]

    def stop(self, *peers: Process | None) -> None:
        """Kill these, if they still run."""
        for peer in peers:
            if peer is not None and peer in self._stops:
                self._stops[peer].set()


@asynccontextmanager
async def pool() -> AsyncIterator[Pool]:
    async with trio.open_nursery() as nursery:
        yield Pool(nursery)
        nursery.cancel_scope.cancel()
