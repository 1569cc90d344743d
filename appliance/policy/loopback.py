"""A loopback address for each remote peer, so that the node's list, logs and bans tell them apart.

Inside 127.64.0.0/10: 22 bits of SHA-256 of the peer id. kaspad groups inbound peers by their IPv4
address and bans by IP; with one address each, banning one bridge peer bans no other.
"""

from __future__ import annotations

import hashlib
import ipaddress
from typing import Final

NETWORK: Final = ipaddress.ip_network("127.64.0.0/10")


def loopback_of(peer_id: str) -> str:
    """The peer's own source address; two peers share one with a chance of 1 in 4 million.

    Never the first or the last address of the range.
    """
    digest = hashlib.sha256(peer_id.encode()).digest()
    offset = int.from_bytes(digest[:4], "big") % (NETWORK.num_addresses - 2) + 1
    return str(NETWORK[offset])
