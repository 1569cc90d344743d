"""What the address book knows of one peer, how two claims merge, and whose record is worth most."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final, NamedTuple

MAX_ADDRESSES: Final = 16  # of one peer; identify of a busy go-libp2p host announces about ten
MAX_RELAYS: Final = 8  # of one peer
MAX_TEXT: Final = 256  # characters; a circuit's multiaddr with a DNS name has about 200
MAX_PEER_ID: Final = 128  # characters; RSA and ed25519 ids have 46 and 52
MAX_FAILURES: Final = 1000  # counted no further
MAX_TIME: Final = 1 << 40  # Unix seconds; far beyond any clock


class Source(str, Enum):
    """Who told us of a peer, from the most to the least trustworthy."""

    DECLARED = "declared"  # the operator wrote it down
    MET = "met"  # it proved its id on a connection of ours
    KASPAD = "kaspad"  # the address database of the node beside us
    GOSSIP = "gossip"  # somebody said so


_TRUST: Final = {source: rank for rank, source in enumerate(reversed(Source))}


@dataclass(frozen=True, slots=True)
class PeerRecord:
    """A peer as the book keeps it. ValueError if a field is out of its bounds."""

    peer_id: str  # text form
    addresses: tuple[str, ...] = ()  # multiaddrs, best first
    relays: tuple[str, ...] = ()  # multiaddrs of relays through which it is reached
    is_relay: bool = False
    last_seen: int = 0  # Unix seconds by our clock; 0: never
    last_success: int = 0  # Unix seconds; 0: never
    last_failure: int = 0  # Unix seconds; 0: never
    failures: int = 0  # in a row
    source: Source = Source.GOSSIP

    def __post_init__(self) -> None:
        check_peer_id(self.peer_id)
        _check_texts("addresses", self.addresses, MAX_ADDRESSES)
        _check_texts("relays", self.relays, MAX_RELAYS)
        for name in ("last_seen", "last_success", "last_failure"):
            if not 0 <= getattr(self, name) <= MAX_TIME:
                raise ValueError(f"{name} is not a time in Unix seconds")
        if not 0 <= self.failures <= MAX_FAILURES:
            raise ValueError(f"failures is not between 0 and {MAX_FAILURES}")


def check_peer_id(text: str) -> None:
    """ValueError unless `text` could be a peer id: 1 to 128 ASCII letters and digits."""
    if not (text.isascii() and text.isalnum() and len(text) <= MAX_PEER_ID):
        raise ValueError("peer_id is not a peer id in text form")


def _check_texts(name: str, texts: tuple[str, ...], most: int) -> None:
    if len(texts) > most:
        raise ValueError(f"more than {most} {name}")
    for text in texts:
        if not (0 < len(text) <= MAX_TEXT and text.isascii() and text.isprintable()):
            raise ValueError(f"{name}: not printable ASCII of 1 to {MAX_TEXT} characters")


def merged(known: PeerRecord, news: PeerRecord) -> PeerRecord:
    """The record of a peer of whom we knew `known` when `news` came.

    Who is less trustworthy than our present source can add addresses at the end, but neither
    reorder them nor change what the peer is said to be. Our own experience (successes and
    failures) is kept unless the news holds a later one.
    """
    trusted = _TRUST[news.source] >= _TRUST[known.source]
    first, then = (news, known) if trusted else (known, news)
    later = news.last_success > known.last_success
    return PeerRecord(
        peer_id=known.peer_id,
        addresses=_joined(first.addresses, then.addresses, MAX_ADDRESSES),
        relays=_joined(first.relays, then.relays, MAX_RELAYS),
        is_relay=first.is_relay,
        last_seen=max(known.last_seen, news.last_seen),
        last_success=max(known.last_success, news.last_success),
        last_failure=max(known.last_failure, news.last_failure),
        failures=news.failures if later else known.failures,
        source=first.source,
    )


def _joined(first: Iterable[str], then: Iterable[str], most: int) -> tuple[str, ...]:
    return tuple(dict.fromkeys([*first, *then]))[:most]


def succeeded(record: PeerRecord, now: int) -> PeerRecord:
    """After a connection to the peer at `now`, Unix seconds."""
    return replace(
        record,
        failures=0,
        last_success=max(now, record.last_success),
        last_seen=max(now, record.last_seen),
    )


def failed(record: PeerRecord, now: int) -> PeerRecord:
    """After an attempt to reach the peer that failed at `now`, Unix seconds."""
    return replace(
        record,
        failures=min(record.failures + 1, MAX_FAILURES),
        last_failure=max(now, record.last_failure),
    )


class Worth(NamedTuple):
    """Orders records; the smallest is evicted first.

    What the operator declared stays; then whom we have reached before, then who fails least, then
    relays, then the latest. So a flood of gossip can only push out other gossip.
    """

    declared: bool
    reached: bool
    minus_failures: int
    is_relay: bool
    last_success: int
    last_seen: int


def worth(record: PeerRecord) -> Worth:
    """What a record is worth to us."""
    return Worth(
        declared=record.source is Source.DECLARED,
        reached=record.last_success > 0,
        minus_failures=-record.failures,
        is_relay=record.is_relay,
        last_success=record.last_success,
        last_seen=record.last_seen,
    )
