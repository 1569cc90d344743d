"""The care of the address book while it is in use: what lapsed goes, what it learnt is kept.

A loss of power costs at most what the last `SYNC_EVERY` seconds brought; a crash costs the next
start no time. The disk is waited for in a thread, one at a time.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from typing import Final, TypeVar

import trio

from appliance.addresses.rocks import StoreError
from appliance.addresses.store import AddressBook
from appliance.clock import Clock
from appliance.errors import ApplianceError
from appliance.events import emit
from appliance.policy.gossip import jittered
from appliance.units import MINUTE

_log: Final = logging.getLogger("appliance.discovery")

EXPIRE_EVERY: Final = MINUTE
SYNC_EVERY: Final = 5 * MINUTE
"""As often as one peer may be asked: more is rarely learnt at once."""

T = TypeVar("T")


class Upkeep:
    """`run` until cancelled; a disk that fails is reported and tried again."""

    def __init__(self, book: AddressBook, rng: random.Random, clock: Clock) -> None:
        self._book = book
        self._rng = rng
        self._clock = clock

    async def run(self) -> None:
        """After Cancelled no thread is at the book any more."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._expire)
            nursery.start_soon(self._sync)

    async def _expire(self) -> None:
        while True:
            await trio.sleep(jittered(EXPIRE_EVERY, self._rng))
            self._tried(lambda: self._book.expire(self._clock.wall()))

    async def _sync(self) -> None:
        while True:
            await trio.sleep(jittered(SYNC_EVERY, self._rng))
            try:
                await trio.to_thread.run_sync(self._book.sync)
                if (snapshot := self._tried(self._book.snapshot)) is not None:
                    await trio.to_thread.run_sync(snapshot.write)
                    self._book.kept(snapshot)
            except (ApplianceError, StoreError, OSError) as error:
                emit(_log, logging.ERROR, "book_write_failed", error=str(error))

    def _tried(self, what: Callable[[], T]) -> T | None:
        try:
            return what()
        except ApplianceError as error:
            emit(_log, logging.ERROR, "book_write_failed", error=error.message)
            return None
