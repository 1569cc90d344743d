"""The book's nouns: who said what of which address, and what the book answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import Final

from appliance.addresses.keys import KEY_SIZE

MAX_ADDRESSES: Final = 16  # of one peer; identify of a busy go-libp2p host announces about ten
MAX_RELAYS: Final = 8  # of one peer
MAX_TEXT: Final = 256  # characters; a circuit's multiaddr with a DNS name has about 200
MAX_PEER_ID: Final = 128  # characters; RSA and ed25519 ids have 46 and 52
MAX_ENVELOPE: Final = 4096  # bytes; as libp2p's relay messages
MAX_FAILURES: Final = 1000  # counted no further in a record of version 1
MAX_TIME: Final = 1 << 40  # Unix seconds; far beyond any clock
NEVER_EXPIRES: Final = 0xFFFFFFFF


class Source(str, Enum):
    """Who told us of a peer, from the most to the least trustworthy."""

    DECLARED = "declared"  # the operator wrote it down
    MET = "met"  # it proved its id on a connection of ours
    KASPAD = "kaspad"  # the address database of the node beside us
    GOSSIP = "gossip"  # somebody said so

    @property
    def rank(self) -> int:
        """0 for gossip, 3 for what the operator declared."""
        return _RANKED.index(self)


_RANKED: Final = tuple(reversed(Source))


def source_of(rank: int) -> Source:
    """The inverse of `Source.rank`. ValueError if there is none."""
    if not 0 <= rank < len(_RANKED):
        raise ValueError(f"{rank} is no rank of a source")
    return _RANKED[rank]


class RelayRole(IntEnum):
    """`NetAddress.relayRole` of the wire contract."""

    UNSPECIFIED = 0
    PUBLIC = 1
    PRIVATE = 2


@dataclass(frozen=True, slots=True)
class Origin:
    """Who says so: an IP address, a peer id or a name. ValueError if it is not short ASCII."""

    source: Source
    who: str

    def __post_init__(self) -> None:
        if not 0 < len(self.who) <= MAX_PEER_ID or not _is_text(self.who):
            raise ValueError("who is not printable ASCII of 1 to 128 characters")


@dataclass(frozen=True, slots=True)
class RelayClaim:
    """An unsigned claim about one address, as kaspads gossip it. ValueError if out of bounds.

    `relay_port` 0 and no `hint`: the address claims nothing, or takes back what it claimed.
    """

    address: bytes
    relay_port: int = 0
    capacity: int = 0
    ttl: int = 0  # seconds; 0: not said
    role: RelayRole = RelayRole.UNSPECIFIED
    peer_id: str = ""  # text form; not proven
    hint: str = ""  # multiaddr or ip:port of the relay that reaches a private peer

    def __post_init__(self) -> None:
        if len(self.address) != KEY_SIZE:
            raise ValueError("address is not a key")
        if not 0 <= self.relay_port < 1 << 16 or not 0 <= self.capacity < 1 << 32:
            raise ValueError("relay_port or capacity is out of range")
        if self.ttl < 0:
            raise ValueError("ttl is negative")
        if self.peer_id:
            check_peer_id(self.peer_id)
        if self.hint:
            _check_texts("hint", (self.hint,), 1)

    @property
    def is_relay(self) -> bool:
        return self.relay_port != 0 and self.role is not RelayRole.PRIVATE

    @property
    def is_private(self) -> bool:
        """A peer that is reached through the relay named in `hint`."""
        return bool(self.hint and self.peer_id) and not self.is_relay


@dataclass(frozen=True, slots=True)
class SignedClaim:
    """A verified signed record: the signature was checked before this object was made.

    With role PRIVATE it says through which relay (`hint`) the peer is reached, and `addresses` is
    not looked at. Without addresses and hint the peer takes back what it said.
    """

    peer_id: str
    seq: int
    expires: int  # Unix seconds
    addresses: tuple[bytes, ...]  # keys of where it relays
    envelope: bytes  # as it came, to hand on
    relay_port: int = 0  # 0: the addresses' own ports are the relay's
    capacity: int = 0
    role: RelayRole = RelayRole.PUBLIC
    hint: str = ""

    def __post_init__(self) -> None:
        check_peer_id(self.peer_id)
        if not 0 <= self.seq < 1 << 64 or not 0 <= self.expires < 1 << 64:
            raise ValueError("seq or expires is out of range")
        if len(self.addresses) > MAX_ADDRESSES:
            raise ValueError(f"more than {MAX_ADDRESSES} addresses")
        if any(len(address) != KEY_SIZE for address in self.addresses):
            raise ValueError("an address is not a key")
        if len(self.envelope) > MAX_ENVELOPE:
            raise ValueError(f"an envelope of more than {MAX_ENVELOPE} bytes")
        if not 0 <= self.relay_port < 1 << 16 or not 0 <= self.capacity < 1 << 32:
            raise ValueError("relay_port or capacity is out of range")
        if self.hint:
            _check_texts("hint", (self.hint,), 1)


class Learned(str, Enum):
    """What became of a signed record."""

    NEW = "new"
    REPLACED = "replaced"  # an older one of the same peer
    WITHDRAWN = "withdrawn"  # the peer took its claim back
    KNOWN = "known"  # the same record again: changes nothing, prolongs nothing
    REPLAYED = "replayed"  # older than what we have
    EXPIRED = "expired"
    BANNED = "banned"
    UNUSABLE = "unusable"  # nothing in it that we may dial
    FULL = "full"  # the quota of its source, its network or the book is used up


@dataclass(slots=True)
class Added:
    """What became of a list of addresses; `len()` is how many are new in the book."""

    added: int = 0
    known: int = 0
    not_routable: int = 0
    banned: int = 0
    over_quota: int = 0  # of the source or of the address's network
    crowded_out: int = 0  # its bucket is full of what is worth at least as much

    def __len__(self) -> int:
        return self.added


class Want(str, Enum):
    """What an address is chosen for."""

    DIRECT = "direct"  # a Kaspa connection over TCP
    RELAY = "relay"  # a relay that is declared, signed or confirmed
    CLAIMED = "claimed"  # somebody says it relays: a connection has to confirm it
    PRIVATE = "private"  # a private peer, reached through the relay of its hint


@dataclass(frozen=True, slots=True)
class Capability:
    """What is said of one address or peer, by whom, and whether it was signed or proven."""

    peer_id: str
    relay_port: int
    capacity: int
    role: RelayRole
    who: str
    heard: int
    expires: int
    signed: bool
    confirmed: int = 0  # Unix seconds; 0: never
    hint: str = ""
    seq: int = 0
    envelope: bytes = field(default=b"", repr=False)
    addresses: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Ban:
    """Until when an IP address or a peer id is refused, and why."""

    subject: str
    until: int
    reason: str


@dataclass(frozen=True, slots=True)
class PeerRecord:
    """A peer by its id: how version 1 kept it, and how the operator's relays are noted.

    ValueError if a field is out of its bounds.
    """

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
        if not (0 < len(text) <= MAX_TEXT and _is_text(text)):
            raise ValueError(f"{name}: not printable ASCII of 1 to {MAX_TEXT} characters")


def _is_text(text: str) -> bool:
    return text.isascii() and text.isprintable()
