"""Banned IP addresses: for 24 hours, by IP, as kaspad does it (components/addressmanager)."""

from __future__ import annotations

from typing import Final

from appliance.units import HOUR

BAN_TIME: Final = 24 * HOUR
MAX_BANS: Final = 4096


class BanList:
    """Bounded; the oldest ban makes room."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    def add(self, host: str, now: float) -> None:
        """Ban `host` from now on."""
        self._until.pop(host, None)
        if len(self._until) >= MAX_BANS:
            del self._until[next(iter(self._until))]
        self._until[host] = now + BAN_TIME

    def holds(self, host: str, now: float) -> bool:
        """Whether `host` is banned."""
        until = self._until.get(host)
        if until is None:
            return False
        if now >= until:
            del self._until[host]
            return False
        return True
