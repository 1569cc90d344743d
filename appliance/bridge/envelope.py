"""Reservation vouchers: signed envelopes of libp2p RFC 0002.

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

with lean():
    from libp2p.exceptions import BaseLibp2pError
    from libp2p.peer.envelope import Envelope, make_unsigned, unmarshal_envelope
    from libp2p.peer.id import ID
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


def seal_voucher(identity: Identity, voucher: Voucher) -> bytes:
    """The marshalled envelope, signed by `identity`, which must be the relay."""
    payload = circuit_pb.Voucher(
        relay=peer_id_bytes(voucher.relay),
        peer=peer_id_bytes(voucher.peer),
        expiration=voucher.expires,
    ).SerializeToString()
    key = identity.keys.private_key
    signature = key.sign(make_unsigned(DOMAIN, PAYLOAD_TYPE, payload))
    envelope = Envelope(key.get_public_key(), PAYLOAD_TYPE, payload, signature)
    return bytes(envelope.marshal_envelope())


def open_voucher(data: bytes) -> Voucher:
    """Raises RemoteProtocolError(malformed-message) unless it is signed by the relay it names."""
    try:
        envelope = unmarshal_envelope(data)
        envelope.validate(DOMAIN)
        message = circuit_pb.Voucher.FromString(envelope.raw_payload)
        signer = str(ID.from_pubkey(envelope.public_key))
    except _KEY_ERRORS as error:
        raise RemoteProtocolError(Reason.MALFORMED_MESSAGE, f"voucher: {error}") from error
    voucher = Voucher(peer_id_text(message.relay), peer_id_text(message.peer), message.expiration)
    if envelope.payload_type != PAYLOAD_TYPE or signer != voucher.relay:
        raise RemoteProtocolError(Reason.MALFORMED_MESSAGE, "voucher is not the relay's")
    return voucher
