"""The addresses that an embedded node knows and passes on, in memory.

Rules after rusty-kaspa's address manager (components/addressmanager/src/lib.rs): at most 4,096,
loopback and unspecified ones are left out, what is known is not overwritten, an address that was
never reached counts as one failure, and more than three failures drop it.

Unlike there, what an address claims of itself ages: it is passed on with what is left of its life,
is replaced when that is over, and is told only to peers that understand it.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from appliance.wire.capability import aged, makes_claim
from appliance.wire.kaspa_messages import MAX_ADDRESSES_SENT, IpAddress, NetAddress
from appliance.wire.synthetic import is_synthetic

MAX_ADDRESSES: Final = 4096
MAX_FAILURES: Final = 3

_Key = tuple[IpAddress, int]


@dataclass(slots=True)
class _Entry:
    address: NetAddress
    heard: float
    failures: int = 1

    def told(self, now: float) -> NetAddress | None:
        return aged(self.address, now - self.heard)


class AddressList:
    """Bounded; nothing here is proof that anybody is there."""

    def __init__(self, rng: random.Random, limit: int = MAX_ADDRESSES) -> None:
        self._rng = rng
        self._limit = limit
        # Two tables, so that making room never has to look at the proven ones.
        self._proven: dict[_Key, _Entry] = {}
        self._claimed: dict[_Key, _Entry] = {}

    def __len__(self) -> int:
        return len(self._proven) + len(self._claimed)

    def add(self, addresses: Iterable[NetAddress], now: float) -> None:
        """Learn claims. The oldest claim makes room; addresses that we have reached stay."""
        for address in addresses:
            key = (address.ip, address.port)
            if address.ip.is_loopback or address.ip.is_unspecified or not address.port:
                continue
            known = self._proven.get(key) or self._claimed.get(key)
            if known is not None:
                told = known.told(now)
                if told is None or not makes_claim(told):
                    known.address, known.heard = address, now
                continue
            if aged(address, 0) is None:
                continue
            if len(self) >= self._limit:
                if not self._claimed:
                    return
                del self._claimed[next(iter(self._claimed))]
            self._claimed[key] = _Entry(address, now)

    def reached(self, ip: IpAddress, port: int) -> None:
        """A dial came through; does nothing for an unknown address."""
        claim = self._claimed.pop((ip, port), None)
        if claim is not None:
            self._proven[ip, port] = claim

    def failed(self, ip: IpAddress, port: int) -> None:
        """A dial did not come through; does nothing for an unknown address."""
        key = (ip, port)
        if key in self._proven:
            entry = self._claimed[key] = self._proven.pop(key)
            entry.failures = 1
        elif key in self._claimed:
            entry = self._claimed.pop(key)
            if entry.failures < MAX_FAILURES:
                entry.failures += 1
                self._claimed[key] = entry

    def remove_ip(self, ip: IpAddress) -> None:
        """Forget all that is at `ip`."""
        for table in (self._proven, self._claimed):
            for key in [key for key in table if key[0] == ip]:
                del table[key]

    def sample(
        self, now: float, *, claims: bool, limit: int = MAX_ADDRESSES_SENT
    ) -> list[NetAddress]:
        """At most `limit`, drawn at random: the answer to a peer's question.

        Without `claims`, for a stock peer, synthetic addresses are left out.
        """
        known = [*self._proven.values(), *self._claimed.values()]
        chosen = self._rng.sample(known, min(len(known), limit))
        told = (entry.told(now) for entry in chosen)
        return [at for at in told if at is not None and (claims or not is_synthetic(at.ip))]
