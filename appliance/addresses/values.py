"""What the rows of each column family hold, typed: encoded and decoded.

| family | key | value |
|---|---|---|
| addresses | 18 bytes, `keys.py` | `AddressValue` |
| capabilities | `a` + an address: unsigned; `p` + a peer id: signed or declared | `Capability` |
| bans | `i` + 16 bytes of IP, `p` + a peer id | `Ban` |
| metadata | a name | text or bytes |
"""

from __future__ import annotations

from typing import Final, NamedTuple

from appliance.addresses.fields import (
    VERSION,
    CodecError,
    Tag,
    decode,
    encode,
    field,
    number,
    text,
    u64,
)
from appliance.addresses.keys import KEY_SIZE, host_of
from appliance.addresses.model import (
    MAX_ADDRESSES,
    Ban,
    Capability,
    RelayRole,
    check_peer_id,
)
from appliance.addresses.rows import CORE

ADDRESS: Final = b"a"
PEER: Final = b"p"
IP: Final = b"i"

HEAD: Final = bytes([VERSION, Tag.CORE]) + CORE.size.to_bytes(2, "little")
"""What stands before the core in the value of an address."""


class AddressValue(NamedTuple):
    """The stored part of a row, who told us first and when, and who proved to be there."""

    core: bytes
    who: str
    first_heard: int
    peer_id: str = ""


def address_tail(who: str, first_heard: int, peer_id: str = "") -> bytes:
    """What stands after the core: the same for all addresses of one message."""
    tail = field(Tag.WHO, who.encode("ascii")) + field(Tag.FIRST_HEARD, u64(first_heard))
    return tail + field(Tag.PEER_ID, peer_id.encode("ascii")) if peer_id else tail


def encode_address(value: AddressValue) -> bytes:
    return HEAD + value.core + address_tail(value.who, value.first_heard, value.peer_id)


def decode_address(value: bytes) -> AddressValue:
    """The inverse of `encode_address`. Raises CodecError, and nothing else."""
    fields = decode(value)
    core = fields.get(Tag.CORE, b"")
    if len(core) != CORE.size:
        raise CodecError(f"a core of {len(core)} bytes, not {CORE.size}")
    return AddressValue(
        core, text(fields, Tag.WHO), number(fields, Tag.FIRST_HEARD), _peer_id(fields)
    )


def core_of(value: bytes) -> bytes:
    """Only the core, fast. Raises CodecError, and nothing else."""
    if value.startswith(HEAD) and len(value) >= len(HEAD) + CORE.size:
        return value[len(HEAD) : len(HEAD) + CORE.size]
    return decode_address(value).core


def with_core(value: bytes, core: bytes) -> bytes:
    """The value of the same address with another core. Raises CodecError."""
    if value.startswith(HEAD):
        return HEAD + core + value[len(HEAD) + CORE.size :]
    return encode_address(decode_address(value)._replace(core=core))


def encode_capability(found: Capability, texts: tuple[str, ...] = ()) -> bytes:
    fields = [
        (Tag.WHO, found.who.encode("ascii")),
        (Tag.HEARD, u64(found.heard)),
        (Tag.EXPIRES, u64(found.expires)),
        (Tag.RELAY_PORT, found.relay_port.to_bytes(2, "little")),
        (Tag.CAPACITY, found.capacity.to_bytes(4, "little")),
        (Tag.ROLE, bytes([found.role])),
        (Tag.CONFIRMED, u64(found.confirmed)),
        (Tag.PEER_ID, found.peer_id.encode("ascii")),
        (Tag.HINT, found.hint.encode("ascii")),
        (Tag.ADDRESSES, b"".join(found.addresses)),
    ]
    if found.signed:
        fields += [(Tag.SEQ, u64(found.seq)), (Tag.ENVELOPE, found.envelope)]
    if texts:
        fields.append((Tag.TEXTS, "\n".join(texts).encode("ascii")))
    return encode((tag, payload) for tag, payload in fields if payload)


def decode_capability(value: bytes) -> Capability:
    """The inverse of `encode_capability`. Raises CodecError, and nothing else."""
    fields = decode(value)
    role = number(fields, Tag.ROLE, width=1)
    if role not in tuple(RelayRole):
        raise CodecError(f"role {role}")
    addresses, envelope = fields.get(Tag.ADDRESSES, b""), fields.get(Tag.ENVELOPE, b"")
    if len(addresses) % KEY_SIZE or len(addresses) > KEY_SIZE * MAX_ADDRESSES:
        raise CodecError(f"{len(addresses)} bytes of addresses")
    return Capability(
        peer_id=_peer_id(fields),
        relay_port=number(fields, Tag.RELAY_PORT, width=2),
        capacity=number(fields, Tag.CAPACITY, width=4),
        role=RelayRole(role),
        who=text(fields, Tag.WHO),
        heard=number(fields, Tag.HEARD),
        expires=number(fields, Tag.EXPIRES),
        signed=bool(envelope),
        confirmed=number(fields, Tag.CONFIRMED),
        hint=text(fields, Tag.HINT),
        seq=number(fields, Tag.SEQ) if envelope else 0,
        envelope=envelope,
        addresses=tuple(addresses[at : at + KEY_SIZE] for at in range(0, len(addresses), KEY_SIZE)),
    )


def texts_of(value: bytes) -> tuple[str, ...]:
    """The multiaddrs of a peer that are no literal addresses. Raises CodecError."""
    found = text(decode(value), Tag.TEXTS)
    return tuple(found.split("\n")) if found else ()


def encode_ban(ban: Ban) -> bytes:
    return encode([(Tag.EXPIRES, u64(ban.until)), (Tag.REASON, ban.reason.encode("ascii"))])


def decode_ban(key: bytes, value: bytes) -> Ban:
    """The inverse of `encode_ban`. Raises CodecError, and nothing else."""
    fields = decode(value)
    if key[:1] == IP and len(key) == 17:
        subject = host_of(key[1:])
    elif key[:1] == PEER:
        try:
            subject = key[1:].decode("ascii")
            check_peer_id(subject)
        except ValueError:
            raise CodecError("a ban of no peer id") from None
    else:
        raise CodecError("a ban of nothing we know")
    return Ban(subject, number(fields, Tag.EXPIRES), text(fields, Tag.REASON))


def _peer_id(fields: dict[int, bytes]) -> str:
    found = text(fields, Tag.PEER_ID)
    if found:
        try:
            check_peer_id(found)
        except ValueError as error:
            raise CodecError(str(error)) from None
    return found
