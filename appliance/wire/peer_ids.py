"""Peer ids: the multihash of a public key, as bytes on the wire and as base58 text for people.

Source: libp2p/specs, peer-ids/peer-ids.md. Keys of at most 42 encoded bytes (ed25519: 36) are
inlined behind an identity hash, others are hashed with SHA-256.
"""

from __future__ import annotations

import hashlib
from typing import Final

import base58

from appliance.errors import RemoteProtocolError
from appliance.reasons import Reason

MAX_TEXT: Final = 64
"""Characters; ed25519 ids have 52, SHA-256 ones 46, the longest inlined key gives 61."""

_IDENTITY: Final = 0x00
_SHA2_256: Final = 0x12
_MAX_INLINE: Final = 42
_ED25519_KEY: Final = b"\x08\x01\x12\x20"  # PublicKey{type: Ed25519, data: the 32 bytes behind it}


def of_key(encoded: bytes) -> bytes:
    """The id of a public key in its protobuf encoding."""
    if len(encoded) <= _MAX_INLINE:
        return bytes((_IDENTITY, len(encoded))) + encoded
    return bytes((_SHA2_256, 32)) + hashlib.sha256(encoded).digest()


def of_ed25519(key: bytes) -> bytes:
    """The id of an ed25519 key of 32 bytes."""
    return of_key(_ED25519_KEY + key)


def to_text(multihash: bytes) -> str:
    """The base58 form. Raises RemoteProtocolError (malformed-message) unless it is a peer id."""
    inline = len(multihash) >= 2 and multihash[0] == _IDENTITY and 0 < multihash[1] <= _MAX_INLINE
    hashed = len(multihash) == 34 and multihash[0] == _SHA2_256
    if not (inline or hashed) or len(multihash) != multihash[1] + 2:
        raise _malformed()
    text: str = base58.b58encode(multihash).decode()
    return text


def to_bytes(text: str) -> bytes:
    """The multihash behind `text`. Raises RemoteProtocolError (malformed-message)."""
    if not 0 < len(text) <= MAX_TEXT:
        raise _malformed()
    try:
        multihash = bytes(base58.b58decode(text.encode("ascii")))
    except ValueError:
        raise _malformed() from None
    if to_text(multihash) != text:  # the decoder lets white space pass
        raise _malformed()
    return multihash


def _malformed() -> RemoteProtocolError:
    return RemoteProtocolError(Reason.MALFORMED_MESSAGE, "not a peer id")
