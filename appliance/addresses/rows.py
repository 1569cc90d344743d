"""What a row of the tables says: its columns as they are stored, its flags, its role."""

from __future__ import annotations

import struct
from typing import Final

from appliance.addresses.model import Source

ROLES: Final = 3
RELAY, CLAIMED, PRIVATE = range(ROLES)
NO_ROLE: Final = -1

# Flags of an entry. The lowest two bits are the rank of its best source.
RANK: Final = 0b11
F_CLAIMED: Final = 1 << 2  # somebody says that it relays
F_SIGNED: Final = 1 << 3  # its peer signed that it relays
F_CONFIRMED: Final = 1 << 4  # a connection proved that it relays
F_PRIVATE: Final = 1 << 5  # a private peer under a synthetic address
F_CAPABLE: Final = F_CLAIMED | F_SIGNED | F_CONFIRMED | F_PRIVATE

CORE: Final = struct.Struct("<IIIIIIIBB")
"""What of a row is stored: bucket, group, source, heard, success, attempt, expires, failures,
flags. A group or source is 32 bits of its keyed hash; times are Unix seconds."""
DERIVED: Final = 0xFFFFFFFF
"""Stored in the place of the bucket, with group 0: both follow from the address and the source. So
the values of one message are the same."""
Core = tuple[int, int, int, int, int, int, int, int, int]

_DECLARED: Final = Source.DECLARED.rank


def role_of(flags: int) -> int:
    """RELAY, CLAIMED, PRIVATE or NO_ROLE."""
    if flags & F_PRIVATE:
        return PRIVATE
    if flags & (F_SIGNED | F_CONFIRMED):
        return RELAY
    if not flags & F_CLAIMED:
        return NO_ROLE
    return RELAY if flags & RANK == _DECLARED else CLAIMED
