"""Kaspa's P2P messages as frozen values, and their encoding.

Only the subset of `proto/kaspa_p2p.proto` is read. Any other payload becomes `Opaque`, carried as
bytes. Fields that we do not know are kept as bytes in `extra`: those of an address and of a version
in their own, all others in the message's. Encoding puts them back where they were.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address
from typing import Final

IpAddress = IPv4Address | IPv6Address

# rusty-kaspa, protocol/flows/src/v7/address.rs.
MAX_ADDRESSES_SENT: Final = 1000
MAX_ADDRESSES_RECEIVED: Final = 2500
# rusty-kaspa, protocol/p2p/src/convert/model/version.rs: longer ones are cut, not refused.
MAX_USER_AGENT_BYTES: Final = 256
# rusty-kaspa, protocol/p2p/src/common.rs: longer ones are cut.
MAX_REJECT_REASON_BYTES: Final = 2048
PEER_ID_BYTES: Final = 16
SUBNETWORK_ID_BYTES: Final = 20
# proto/kaspa_p2p.proto, LabChunkMessage.
MAX_LAB_CHUNK: Final = 64 * 1024
SHA256_BYTES: Final = 32


class RelayRole(IntEnum):
    """What a relay-capable node says of itself in a NetAddress."""

    UNSPECIFIED = 0
    PUBLIC = 1
    PRIVATE = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class NetAddress:
    """Where a node listens. A stock node knows `ip` and `port` and sends the rest as zero."""

    ip: IpAddress  # never an IPv4-mapped IPv6 address once decoded
    port: int
    timestamp_ms: int = 0
    services: int = 0
    relay_port: int = 0
    relay_capacity: int = 0
    relay_ttl_ms: int = 0
    relay_role: int = RelayRole.UNSPECIFIED  # an int: a later version may know more roles
    libp2p_peer_id: str = ""
    relay_circuit_hint: str = ""
    extra: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """The first message of either side."""

    protocol_version: int
    network: str  # "kaspa-mainnet", …
    peer_id: bytes  # 16 random bytes per process
    user_agent: str
    timestamp_ms: int
    services: int = 0
    address: NetAddress | None = None
    disable_relay_tx: bool = False
    subnetwork_id: bytes | None = None
    extra: bytes = b""


@dataclass(frozen=True, slots=True)
class Verack:
    """The answer to a `Version`."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The sender has its flows in place and may be asked things."""


@dataclass(frozen=True, slots=True)
class Ping:
    nonce: int


@dataclass(frozen=True, slots=True)
class Pong:
    nonce: int


@dataclass(frozen=True, slots=True)
class Reject:
    """The sender is about to close the connection."""

    reason: str


@dataclass(frozen=True, slots=True)
class RequestAddresses:
    include_all_subnetworks: bool = False
    subnetwork_id: bytes | None = None


@dataclass(frozen=True, slots=True)
class Addresses:
    addresses: tuple[NetAddress, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabChunk:
    """Ours, for the laboratory: a piece of a checked payload. Chunks come in order, no gaps."""

    echo: bool
    total: int
    offset: int
    data: bytes
    sha256: bytes = b""  # of the whole payload; in the last chunk only


@dataclass(frozen=True, slots=True)
class Opaque:
    """A payload that we do not speak. The message's `extra` is the whole message as it came."""

    number: int
    size: int


Payload = (
    Version
    | Verack
    | Ready
    | Ping
    | Pong
    | Reject
    | RequestAddresses
    | Addresses
    | LabChunk
    | Opaque
)


@dataclass(frozen=True, slots=True)
class Message:
    """A `KaspadMessage`. Ids route answers to questions inside one connection; 0 is none."""

    payload: Payload
    request_id: int = 0
    response_id: int = 0
    extra: bytes = b""
