"""Cancellation that leaves time for last words."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio


async def with_grace(
    work: Callable[[], Awaitable[None]], stop: Callable[[], None], seconds: float
) -> None:
    """Run `work`. When we are cancelled, call `stop` and give `work` that long to end by itself.

    What `work` raises comes out in an ExceptionGroup. After Cancelled `work` has ended.
    """
    shield = trio.CancelScope(shield=True)

    async def shielded() -> None:
        with shield:
            await work()
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(shielded)
        try:
            await trio.sleep_forever()
        finally:
            stop()
            shield.deadline = trio.current_time() + seconds
