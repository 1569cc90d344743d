"""Who is refused until when: by IP address and by peer id, in memory and as rows to write."""

from __future__ import annotations

import contextlib
import heapq
from collections.abc import Iterable

from appliance.addresses.fields import CodecError
from appliance.addresses.keys import host_of, pack_ip
from appliance.addresses.model import MAX_TEXT, Ban, check_peer_id
from appliance.addresses.rocks import Change
from appliance.addresses.values import IP, PEER, decode_ban, encode_ban


class Bans:
    """At most `limit` bans; the one that ends first gives way to another. Times: Unix seconds."""

    def __init__(self, rows: Iterable[tuple[bytes, bytes]], limit: int) -> None:
        self._limit = limit
        self._until: dict[bytes, tuple[int, str]] = {}
        for key, value in rows:
            try:
                ban = decode_ban(key, value)
            except CodecError:
                continue
            self._until[key] = (ban.until, ban.reason)

    def __len__(self) -> int:
        return len(self._until)

    def holds_ip(self, address: bytes, now: float) -> bool:
        """Whether the host of an address is refused."""
        return bool(self._until) and self._until.get(IP + address[:16], (0, ""))[0] > now

    def holds_peer(self, peer_id: str, now: float) -> bool:
        if not (peer_id and self._until):
            return False
        return self._until.get(PEER + peer_id.encode("ascii"), (0, ""))[0] > now

    def ban_ip(self, octets: bytes, ban: Ban) -> list[Change]:
        return self._ban(IP + octets, ban)

    def ban_peer(self, ban: Ban) -> list[Change]:
        """ValueError if the subject is no peer id."""
        check_peer_id(ban.subject)
        return self._ban(PEER + ban.subject.encode("ascii"), ban)

    def _ban(self, key: bytes, ban: Ban) -> list[Change]:
        reason = "".join(c for c in ban.reason if c.isascii() and c.isprintable())[:MAX_TEXT]
        changes: list[Change] = []
        if key not in self._until and len(self._until) >= self._limit:
            soonest = min(self._until, key=self._until.__getitem__)
            del self._until[soonest]
            changes.append(("bans", soonest, None))
        self._until[key] = (ban.until, reason)
        changes.append(("bans", key, encode_ban(Ban(ban.subject, ban.until, reason))))
        return changes

    def lift(self, subject: str) -> list[Change]:
        keys = [PEER + subject.encode("utf-8")]
        with contextlib.suppress(ValueError):  # not an address: a peer id then
            keys.append(IP + pack_ip(subject))
        found = [key for key in keys if self._until.pop(key, None)]
        return [("bans", key, None) for key in found]

    def expire(self, now: float) -> list[Change]:
        gone = [key for key, (until, _) in self._until.items() if until <= now]
        for key in gone:
            del self._until[key]
        return [("bans", key, None) for key in gone]

    def all(self) -> list[Ban]:
        """Those that last longest first."""
        rows = heapq.nlargest(len(self._until), self._until.items(), key=lambda row: row[1][0])
        return [
            Ban(host_of(key[1:]) if key[:1] == IP else key[1:].decode("ascii"), until, reason)
            for key, (until, reason) in rows
        ]
