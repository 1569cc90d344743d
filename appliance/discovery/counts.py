"""What discovery counts: plain numbers that status and metrics read."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from appliance.reasons import Reason


@dataclass(slots=True)
class DiscoveryCounts:
    """Since the start of the process.

    `way` is of a closed list: gossip (our protocol), kaspa (direct TCP), kaspa-stream (inside
    libp2p), rpc (the kaspad beside us), dns, relay (is it one?).
    """

    asked: Counter[str] = field(default_factory=Counter)
    """By way; `answered` too."""
    answered: Counter[str] = field(default_factory=Counter)
    failed: Counter[tuple[str, Reason]] = field(default_factory=Counter)
    """By way and reason; a failed dial counts here as well."""
    served: int = 0
    """Questions of others that got an answer."""
    refused: Counter[str] = field(default_factory=Counter)
    """Questions of others that did not: too-soon, other-network."""
    records: Counter[str] = field(default_factory=Counter)
    """Signed records heard, by what became of them: new, replaced, withdrawn, known, full, …"""
    records_rejected: Counter[Reason] = field(default_factory=Counter)
    addresses: Counter[str] = field(default_factory=Counter)
    """Addresses heard: added, known, not_routable, banned, over_quota, crowded_out, malformed."""
    relays_confirmed: int = 0
    relays_denied: int = 0
    book_faults: int = 0
    """Writes that the disk refused."""
