"""The addresses that an embedded node knows and passes on, in memory.

Rules after rusty-kaspa's address manager (components/addressmanager/src/lib.rs): at most 4,096,
loopback and unspecified ones are left out, what is known is not overwritten, an address that was
never reached counts as one failure, and more than three failures drop it.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Final

from appliance.wire.kaspa_messages import MAX_ADDRESSES_SENT, IpAddress, NetAddress

MAX_ADDRESSES: Final = 4096
MAX_FAILURES: Final = 3

_Key = tuple[IpAddress, int]


class AddressList:
    """Bounded; nothing here is proof that anybody is there."""

    def __init__(self, rng: random.Random, limit: int = MAX_ADDRESSES) -> None:
        self._rng = rng
        self._limit = limit
        # Two tables, so that making room never has to look at the proven ones.
        self._proven: dict[_Key, NetAddress] = {}
        self._claimed: dict[_Key, tuple[NetAddress, int]] = {}

    def __len__(self) -> int:
        return len(self._proven) + len(self._claimed)

    def add(self, addresses: Iterable[NetAddress]) -> None:
        """Learn claims. The oldest claim makes room; addresses that we have reached stay."""
        for address in addresses:
            key = (address.ip, address.port)
            if address.ip.is_loopback or address.ip.is_unspecified or not address.port:
                continue
            if key in self._proven or key in self._claimed:
                continue
            if len(self) >= self._limit:
                if not self._claimed:
                    return
                del self._claimed[next(iter(self._claimed))]
            self._claimed[key] = (address, 1)

    def reached(self, ip: IpAddress, port: int) -> None:
        """A dial came through; does nothing for an unknown address."""
        claim = self._claimed.pop((ip, port), None)
        if claim is not None:
            self._proven[ip, port] = claim[0]

    def failed(self, ip: IpAddress, port: int) -> None:
        """A dial did not come through; does nothing for an unknown address."""
        key = (ip, port)
        if key in self._proven:
            self._claimed[key] = (self._proven.pop(key), 1)
        elif key in self._claimed:
            address, failures = self._claimed.pop(key)
            if failures < MAX_FAILURES:
                self._claimed[key] = (address, failures + 1)

    def remove_ip(self, ip: IpAddress) -> None:
        """Forget all that is at `ip`."""
        for table in (self._proven, self._claimed):
            for key in [key for key in table if key[0] == ip]:
                del table[key]

    def sample(self) -> list[NetAddress]:
        """At most 1,000, drawn at random: the answer to a peer's question."""
        known = [*self._proven.values(), *(address for address, _ in self._claimed.values())]
        return self._rng.sample(known, min(len(known), MAX_ADDRESSES_SENT))
