"""Reservation vouchers in signed envelopes, with every kind of key that libp2p knows.

Source: circuit-v2.md, "Reservation Vouchers": domain `libp2p-relay-rsvp`, payload type 0x0302.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from google.protobuf.message import DecodeError

from appliance.bridge.identity import Identity
from appliance.bridge.library import lean
from appliance.bridge.messages import peer_id_bytes, peer_id_text
from appliance.errors import RemoteProtocolError
from appliance.reasons import Reason
from appliance.wire import envelope
from appliance.wire.envelope import Ed25519Signer, PublicKey

with lean():
    from libp2p.exceptions import BaseLibp2pError
    from libp2p.peer.envelope import pub_key_from_protobuf
    from libp2p.peer.pb import crypto_pb2 as crypto_pb
    from libp2p.relay.circuit_v2.pb import circuit_pb2 as circuit_pb

DOMAIN: Final = "libp2p-relay-rsvp"
PAYLOAD_TYPE: Final = b"\x03\x02"

# All that a mangled key or signature can make the parsers behind the library raise.
_KEY_ERRORS: Final = (
    DecodeError,
    BaseLibp2pError,
    UnsupportedAlgorithm,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AssertionError,
)


@dataclass(frozen=True, slots=True)
class Voucher:
    """A relay's signed word that it relays for a peer; `expires` in Unix seconds."""

    relay: str
    peer: str
    expires: int


def signer_of(identity: Identity) -> Ed25519Signer:
    """Signs envelopes in our name: vouchers here, capability records elsewhere."""
    return Ed25519Signer(identity.keys.private_key.to_bytes())


def seal_voucher(identity: Identity, voucher: Voucher) -> bytes:
    """The encoded envelope, signed by `identity`, which must be the relay."""
    payload = circuit_pb.Voucher(
        relay=peer_id_bytes(voucher.relay),
        peer=peer_id_bytes(voucher.peer),
        expiration=voucher.expires,
    ).SerializeToString()
    return envelope.seal(DOMAIN, PAYLOAD_TYPE, payload, signer_of(identity))


def open_voucher(data: bytes) -> Voucher:
    """Raises RemoteProtocolError(malformed-message) unless it is signed by the relay it names."""
    sealed = envelope.decode(data)
    try:
        message = circuit_pb.Voucher.FromString(sealed.payload)
    except DecodeError as error:
        raise RemoteProtocolError(Reason.MALFORMED_MESSAGE, f"voucher: {error}") from None
    voucher = Voucher(peer_id_text(message.relay), peer_id_text(message.peer), message.expiration)
    signed = envelope.signed_bytes(DOMAIN, sealed.payload_type, sealed.payload)
    if (
        sealed.payload_type != PAYLOAD_TYPE
        or sealed.key.peer_id != message.relay
        or not verify(sealed.key, signed, sealed.signature)
    ):
        raise RemoteProtocolError(Reason.MALFORMED_MESSAGE, "voucher is not the relay's")
    return voucher


def verify(key: PublicKey, data: bytes, signature: bytes) -> bool:
    """A `wire.envelope.Verify` for all of libp2p's kinds of keys."""
    try:
        encoded = crypto_pb.PublicKey(Type=crypto_pb.KeyType.Name(key.kind), Data=key.data)
        return bool(pub_key_from_protobuf(encoded).verify(data, signature))
    except _KEY_ERRORS:
        return False
