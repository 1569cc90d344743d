"""Signed envelopes, without I/O: a payload, who signed it, and in which domain.

Source: libp2p/specs, RFC/0002-signed-envelopes.md. The domain is not in the envelope: bytes that
were signed for one purpose cannot be shown for another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from google.protobuf.message import DecodeError

from appliance.errors import RemoteProtocolError
from appliance.reasons import Reason
from appliance.wire import peer_ids
from appliance.wire.framing import encode_varint
from appliance.wire.pb import libp2p_envelope_pb2 as pb

ED25519: Final[int] = pb.KeyType.ED25519
_ED25519_SIZE: Final = 32


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key as libp2p writes it: the kind is a number of `KeyType`, `data` depends on it."""

    kind: int
    data: bytes

    @property
    def peer_id(self) -> bytes:
        """The multihash by which its owner is known."""
        return peer_ids.of_key(_write_key(self).SerializeToString())


@dataclass(frozen=True, slots=True)
class Envelope:
    """What came, or goes. Nothing in it is true before its signature was checked."""

    key: PublicKey
    payload_type: bytes
    payload: bytes
    signature: bytes


Verify = Callable[[PublicKey, bytes, bytes], bool]
"""Key, signed bytes, signature: whether they belong together. Never raises."""


class Signer(Protocol):
    """Whoever holds a private key."""

    @property
    def key(self) -> PublicKey: ...

    def sign(self, data: bytes) -> bytes: ...


class Ed25519Signer:
    """Signs with a 32-byte ed25519 seed. The key never shows in a repr."""

    def __init__(self, seed: bytes) -> None:
        self._private = Ed25519PrivateKey.from_private_bytes(seed)
        self.key = PublicKey(ED25519, self._private.public_key().public_bytes_raw())

    def sign(self, data: bytes) -> bytes:
        return self._private.sign(data)


def verify_ed25519(key: PublicKey, data: bytes, signature: bytes) -> bool:
    """A `Verify` that knows ed25519 keys and no others."""
    if key.kind != ED25519 or len(key.data) != _ED25519_SIZE:
        return False
    try:
        Ed25519PublicKey.from_public_bytes(key.data).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True


def signed_bytes(domain: str, payload_type: bytes, payload: bytes) -> bytes:
    """What the signature is over: each part behind its length."""
    parts = (domain.encode(), payload_type, payload)
    return b"".join(encode_varint(len(part)) + part for part in parts)


def seal(domain: str, payload_type: bytes, payload: bytes, signer: Signer) -> bytes:
    """An envelope around `payload`, encoded."""
    signature = signer.sign(signed_bytes(domain, payload_type, payload))
    return encode(Envelope(signer.key, payload_type, payload, signature))


def encode(envelope: Envelope) -> bytes:
    """The bytes of an envelope: the only ones that there are for it."""
    return pb.Envelope(
        public_key=_write_key(envelope.key),
        payload_type=envelope.payload_type,
        payload=envelope.payload,
        signature=envelope.signature,
    ).SerializeToString()


def decode(data: bytes) -> Envelope:
    """The unproven content of an envelope, whose size the caller has bounded.

    Raises RemoteProtocolError (malformed-message).
    """
    message = pb.Envelope()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise RemoteProtocolError(Reason.MALFORMED_MESSAGE, f"envelope: {error}") from None
    key = PublicKey(message.public_key.type, message.public_key.data)
    return Envelope(key, message.payload_type, message.payload, message.signature)


def check(envelope: Envelope, domain: str, verify: Verify) -> None:
    """Raises RemoteProtocolError (bad-signature) unless the key signed this, in this domain."""
    signed = signed_bytes(domain, envelope.payload_type, envelope.payload)
    if not verify(envelope.key, signed, envelope.signature):
        raise RemoteProtocolError(Reason.BAD_SIGNATURE, f"not signed for {domain}")


def _write_key(key: PublicKey) -> pb.PublicKey:
    kind: pb.KeyType = key.kind  # type: ignore[assignment]  # proto3 enums are open
    return pb.PublicKey(type=kind, data=key.data)
