"""Reservation vouchers: the library's own consumer accepts them; forgeries are refused."""

from __future__ import annotations

import random

import pytest
from libp2p.crypto.rsa import create_new_key_pair as new_rsa
from libp2p.crypto.secp256k1 import create_new_key_pair as new_secp256k1
from libp2p.peer.envelope import Envelope, make_unsigned, unmarshal_envelope
from libp2p.peer.id import ID
from libp2p.peer.pb import crypto_pb2, envelope_pb2
from libp2p.relay.circuit_v2.pb import circuit_pb2

from appliance.bridge.envelope import DOMAIN, PAYLOAD_TYPE, Voucher, open_voucher, seal_voucher
from appliance.bridge.identity import Identity
from appliance.errors import RemoteProtocolError
from appliance.reasons import Reason

RELAY, PEER, OTHER = Identity.generate(), Identity.generate(), Identity.generate()
VOUCHER = Voucher(RELAY.peer_id, PEER.peer_id, 1_900_000_000)


def payload_of(voucher: Voucher) -> bytes:
    return bytes(
        circuit_pb2.Voucher(
            relay=ID.from_string(voucher.relay).to_bytes(),
            peer=ID.from_string(voucher.peer).to_bytes(),
            expiration=voucher.expires,
        ).SerializeToString()
    )


def sealed(
    signer: Identity,
    voucher: Voucher = VOUCHER,
    *,
    domain: str = DOMAIN,
    kind: bytes = PAYLOAD_TYPE,
    claimed: Identity | None = None,
) -> bytes:
    payload = payload_of(voucher)
    signature = signer.keys.private_key.sign(make_unsigned(domain, kind, payload))
    key = (claimed or signer).keys.public_key
    return bytes(Envelope(key, kind, payload, signature).marshal_envelope())


def test_a_voucher_comes_back() -> None:
    assert open_voucher(seal_voucher(RELAY, VOUCHER)) == VOUCHER


def test_the_library_accepts_ours() -> None:
    envelope = unmarshal_envelope(seal_voucher(RELAY, VOUCHER))
    envelope.validate("libp2p-relay-rsvp")
    assert envelope.payload_type == bytes([0x03, 0x02])
    assert str(ID.from_pubkey(envelope.public_key)) == RELAY.peer_id
    message = circuit_pb2.Voucher.FromString(envelope.raw_payload)
    assert str(ID(message.relay)) == RELAY.peer_id and str(ID(message.peer)) == PEER.peer_id
    assert message.expiration == VOUCHER.expires


def test_the_payload_is_in_the_order_of_its_fields() -> None:
    """Canonical, as the specification demands: relay 1, peer 2, expiration 3."""
    voucher = Voucher(RELAY.peer_id, PEER.peer_id, 300)
    payload = unmarshal_envelope(seal_voucher(RELAY, voucher)).raw_payload
    relay, peer = RELAY.peer_id_bytes, PEER.peer_id_bytes
    assert payload == b"\x0a\x26" + relay + b"\x12\x26" + peer + b"\x18\xac\x02"


FORGED = {
    "signed by somebody else": sealed(OTHER),
    "signed by somebody else in the relay's name": sealed(OTHER, claimed=RELAY),
    "signed by the peer itself": sealed(PEER),
    "of another domain": sealed(RELAY, domain="libp2p-peer-record"),
    "of another type": sealed(RELAY, kind=b"\x03\x01"),
    "of no type": sealed(RELAY, kind=b""),
    "for another relay": sealed(RELAY, Voucher(OTHER.peer_id, PEER.peer_id, 1)),
    "empty": b"",
    "no protobuf": b"\xff" * 40,
    "too short": seal_voucher(RELAY, VOUCHER)[:-1],
}


@pytest.mark.parametrize("data", FORGED.values(), ids=FORGED)
def test_a_forged_voucher_is_refused(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        open_voucher(data)
    assert caught.value.reason is Reason.MALFORMED_MESSAGE


def test_no_byte_of_a_voucher_may_change() -> None:
    good = seal_voucher(RELAY, VOUCHER)
    for position in range(len(good)):
        bad = bytearray(good)
        bad[position] ^= 1
        with pytest.raises(RemoteProtocolError):
            open_voucher(bytes(bad))


def test_keys_from_a_stranger_never_raise_anything_else() -> None:
    """Three kinds of key, mangled: the parsers behind them have errors of their own."""
    rng = random.Random(11)
    keys = [
        RELAY.keys.public_key.to_bytes(),
        new_rsa(2048).public_key.to_bytes(),
        new_secp256k1().public_key.to_bytes(),
    ]
    for _ in range(1200):
        key = bytearray(rng.choice(keys))
        for _ in range(rng.randrange(4)):
            key[rng.randrange(len(key))] = rng.randrange(256)
        envelope = envelope_pb2.Envelope(
            public_key=crypto_pb2.PublicKey(
                Type=crypto_pb2.KeyType.Name(rng.choice(list(crypto_pb2.KeyType.values()))),
                Data=bytes(key),
            ),
            payload_type=PAYLOAD_TYPE,
            payload=payload_of(VOUCHER),
            signature=rng.randbytes(rng.choice([0, 64, 70, 256])),
        )
        with pytest.raises(RemoteProtocolError):
            open_voucher(envelope.SerializeToString())


@pytest.mark.parametrize("data", [b"", b"\x30", b"\x30\x80"], ids=["empty", "cut", "endless"])
@pytest.mark.parametrize("kind", ["RSA", "Ed25519", "Secp256k1"])
def test_a_key_that_is_none_is_malformed(kind: str, data: bytes) -> None:
    envelope = envelope_pb2.Envelope(
        public_key=crypto_pb2.PublicKey(Type=kind, Data=data),
        payload_type=PAYLOAD_TYPE,
        payload=payload_of(VOUCHER),
        signature=bytes(64),
    )
    with pytest.raises(RemoteProtocolError):
        open_voucher(envelope.SerializeToString())
