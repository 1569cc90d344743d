"""When we may dial: so many sockets at once, so many new connections a second."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from appliance.policy.dialling import DialBudget


class Dialling:
    """The limits of everything that one host dials."""

    def __init__(self, at_once: int, per_second: float) -> None:
        self._sockets = trio.CapacityLimiter(at_once)
        self._per_second = per_second
        self._budget: DialBudget | None = None

    async def ready(self) -> None:
        """Wait until the router upstream has caught up with what we began."""
        await trio.sleep(self._ours().wait(trio.current_time()))

    async def turn(self) -> None:
        """Wait for the turn of one ordinary dial. After `Cancelled` the turn is used up."""
        delay = self._ours().wait(trio.current_time())
        self.spend(1)  # before the wait, so that whoever comes next waits for longer
        await trio.sleep(delay)

    def spend(self, count: int) -> None:
        """`count` connections begin now, whether or not the budget has room for them."""
        self._ours().spend(count, trio.current_time())

    @asynccontextmanager
    async def socket(self) -> AsyncIterator[None]:
        """Waits until one more socket may be connecting, for as long as the block lasts."""
        async with self._sockets:
            yield

    def _ours(self) -> DialBudget:
        # A host is made before trio runs.
        if self._budget is None:
            self._budget = DialBudget(self._per_second, trio.current_time())
        return self._budget
