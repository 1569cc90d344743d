"""Signed records: what is believed, and every trick that must not work."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv6Address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.peer.envelope import Envelope, make_unsigned, unmarshal_envelope
from libp2p.peer.id import ID

from appliance.errors import RemoteProtocolError
from appliance.network import Endpoint, Network
from appliance.reasons import Reason
from appliance.wire import envelope, peer_ids
from appliance.wire.circuit import Limit
from appliance.wire.pb import appliance_capability_pb2 as pb
from appliance.wire.records import (
    DOMAIN,
    LIFETIME,
    MAX_LIFETIME,
    MAX_RECORD,
    MAX_SKEW,
    PAYLOAD_TYPE,
    CapabilityRecord,
    RelayOffer,
    expiry,
    forget_after,
    next_sequence,
    seal,
    unseal,
    withdrawal,
)
from appliance.wire.ways import RelayWay
from tests.wire.signing import NOW, peer, private, record, resigned, signer


def opened(data: bytes, now: float = NOW, **options: Any) -> CapabilityRecord:
    return unseal(data, now=now, network=Network.SIMNET, **options)


def refusal(data: bytes, now: float = NOW, **options: Any) -> Reason:
    with pytest.raises(RemoteProtocolError) as caught:
        opened(data, now, **options)
    return caught.value.reason


def payload(**fields: Any) -> dict[str, Any]:
    """The fields of an honest record of alice's, as protobuf, some changed."""
    honest = envelope.decode(seal(record(), signer("alice")))
    message = pb.CapabilityRecord.FromString(honest.payload)
    return {field.name: value for field, value in message.ListFields()} | fields


def forged(
    domain: str = DOMAIN, kind: bytes = PAYLOAD_TYPE, signed_by: str = "alice", **fields: Any
) -> bytes:
    """What a peer can sign that does not use our code."""
    message = pb.CapabilityRecord(**payload(**fields))
    return envelope.seal(domain, kind, message.SerializeToString(), signer(signed_by))


@pytest.mark.parametrize("name", ["relay", "private", "withdrawn", "plain"])
def test_what_is_sealed_is_what_is_opened(name: str) -> None:
    said = {
        "relay": record(),
        "private": private("alice", relays=(RelayWay(Endpoint("203.0.113.9", 1), peer("bob")),)),
        "withdrawn": withdrawal(peer("alice"), Network.SIMNET, next_sequence(NOW)),
        "plain": record(offer=None, node=None),
    }[name]
    assert opened(seal(said, signer("alice"))) == said
    assert said.is_relay is (name == "relay")
    assert said.withdrawn is (name == "withdrawn")


def test_the_library_accepts_ours_and_we_accept_what_it_signs() -> None:
    theirs = unmarshal_envelope(seal(record(), signer("alice")))
    theirs.validate("kaspa-appliance-capability")
    assert theirs.payload_type == b"/kaspa-appliance/capability-record"
    assert str(ID.from_pubkey(theirs.public_key)) == peer("alice")
    keys = create_new_key_pair()
    who = ID.from_pubkey(keys.public_key)
    message = pb.CapabilityRecord(**payload(peer_id=who.to_bytes())).SerializeToString()
    signature = keys.private_key.sign(make_unsigned(DOMAIN, PAYLOAD_TYPE, message))
    data = bytes(Envelope(keys.public_key, PAYLOAD_TYPE, message, signature).marshal_envelope())
    assert opened(data) == replace(record(), peer_id=str(who))


def test_no_byte_of_a_record_may_change() -> None:
    good = seal(record(), signer("alice"))
    for position in range(len(good)):
        for bit in (1, 128):
            bad = bytearray(good)
            bad[position] ^= bit
            refusal(bytes(bad))


TRICKS: dict[str, tuple[bytes, Reason]] = {
    "signed again by another": (
        resigned(seal(record(), signer("alice")), "mallory"),
        Reason.BAD_SIGNATURE,
    ),
    "in the name of another": (
        forged(peer_id=signer("bob").key.peer_id),
        Reason.BAD_SIGNATURE,
    ),
    "signed by another with its own name in it": (
        forged(signed_by="mallory"),
        Reason.BAD_SIGNATURE,
    ),
    "of another domain": (forged(domain="libp2p-peer-record"), Reason.BAD_SIGNATURE),
    "a relay's voucher's domain": (forged(domain="libp2p-relay-rsvp"), Reason.BAD_SIGNATURE),
    "of another type": (forged(kind=b"\x03\x01"), Reason.BAD_SIGNATURE),
    "of no type": (forged(kind=b""), Reason.BAD_SIGNATURE),
    "for another network": (forged(network="kaspa-mainnet"), Reason.WRONG_NETWORK),
    "for no network": (forged(network=""), Reason.WRONG_NETWORK),
    "issued in the future": (
        forged(sequence=int((NOW + MAX_SKEW) * 1000) + 1, expires=int((NOW + 9000) * 1000)),
        Reason.RECORD_FROM_FUTURE,
    ),
    "issued at the end of time": (
        forged(sequence=2**64 - 2, expires=2**64 - 1),
        Reason.RECORD_FROM_FUTURE,
    ),
    "living too long": (
        forged(expires=expiry(next_sequence(NOW), MAX_LIFETIME) + 1),
        Reason.RECORD_LIVES_TOO_LONG,
    ),
    "living for ever": (forged(expires=2**64 - 1), Reason.RECORD_LIVES_TOO_LONG),
    "without an issue": (forged(sequence=0), Reason.RECORD_LIVES_TOO_LONG),
    "without an end": (forged(expires=0), Reason.RECORD_EXPIRED),
    "over before it began": (
        forged(sequence=int((NOW + 60) * 1000), expires=int((NOW + 59) * 1000)),
        Reason.RECORD_LIVES_TOO_LONG,
    ),
    "with too many addresses": (
        forged(addresses=[b"\x04\xcb\x00\x71" + bytes([i]) + b"\x06\x3e\xf0" for i in range(17)]),
        Reason.TOO_MANY_ADDRESSES,
    ),
    "with too many addresses of a kind that we do not know": (
        forged(addresses=[b"\xff"] * 17),
        Reason.TOO_MANY_ADDRESSES,
    ),
    "with too many relays": (forged(relays=[b""] * 9), Reason.TOO_MANY_ADDRESSES),
    "larger than it may be": (forged(addresses=[bytes(MAX_RECORD)]), Reason.MESSAGE_TOO_LARGE),
    "at a synthetic address": (
        forged(addresses=[bytes.fromhex("04f0000001063ef0")]),
        Reason.MALFORMED_MESSAGE,
    ),
    "at a synthetic address, mapped": (
        forged(addresses=[b"\x29" + IPv6Address("::ffff:240.0.0.1").packed + b"\x06\x3e\xf0"]),
        Reason.MALFORMED_MESSAGE,
    ),
    "at a multicast address": (
        forged(addresses=[bytes.fromhex("04e0000001063ef0")]),
        Reason.MALFORMED_MESSAGE,
    ),
    "at no port": (forged(addresses=[bytes.fromhex("04cb007107060000")]), Reason.MALFORMED_MESSAGE),
    "with a node nowhere": (
        forged(node=bytes.fromhex("0400000000063eef")),
        Reason.MALFORMED_MESSAGE,
    ),
    "reached through itself": (
        forged(
            relays=[
                bytes.fromhex("04cb007107063ef0a50326") + signer("alice").key.peer_id,
            ]
        ),
        Reason.MALFORMED_MESSAGE,
    ),
    "by no peer": (forged(peer_id=b""), Reason.BAD_SIGNATURE),
    "empty": (b"", Reason.MALFORMED_MESSAGE),
    "no protobuf": (b"\xff" * 40, Reason.MALFORMED_MESSAGE),
    "padded": (seal(record(), signer("alice")) + b"\x32\x01x", Reason.MALFORMED_MESSAGE),
    "said twice in one": (seal(record(), signer("alice")) * 2, Reason.MALFORMED_MESSAGE),
}


@pytest.mark.parametrize(("data", "reason"), TRICKS.values(), ids=TRICKS)
def test_a_trick_is_refused_by_its_name(data: bytes, reason: Reason) -> None:
    assert refusal(data) is reason


def test_repetition_keeps_nothing_alive() -> None:
    data = seal(record(), signer("alice"))
    assert opened(data, NOW + LIFETIME - 1) == record()
    assert refusal(data, NOW + LIFETIME) is Reason.RECORD_EXPIRED
    assert refusal(data, NOW + 10 * LIFETIME) is Reason.RECORD_EXPIRED


def test_an_older_record_never_comes_back() -> None:
    """Not against a newer one, not against a withdrawal, and not when those are over."""
    signs = signer("alice")
    old = seal(record(expires=expiry(next_sequence(NOW), MAX_LIFETIME)), signs)
    gone = withdrawal(peer("alice"), Network.SIMNET, next_sequence(NOW + 1))
    heard = opened(seal(gone, signs), NOW + 1)
    assert heard.withdrawn

    def newest(peer_id: str) -> int:
        return heard.sequence if peer_id == heard.peer_id else 0

    assert refusal(old, NOW + 2, newest=newest) is Reason.RECORD_SUPERSEDED
    assert refusal(seal(gone, signs), NOW + 2, newest=newest) is Reason.RECORD_SUPERSEDED
    assert (
        opened(seal(private(), signer("bob")), newest=newest) == private()
    )  # others are not affected
    # The withdrawal can be passed on for as long as the old one could be believed, …
    assert heard.expires / 1000 > NOW + MAX_LIFETIME
    # … and once it may be forgotten, time alone refuses the old one.
    assert refusal(old, forget_after(heard.sequence)) is Reason.RECORD_EXPIRED


def test_a_newer_record_replaces() -> None:
    newer = replace(record(issued=NOW + 60), addresses=(Endpoint("203.0.113.99", 1),))
    data = seal(newer, signer("alice"))
    assert opened(data, NOW + 60, newest=lambda _: record().sequence) == newer


def test_sequences_grow_even_when_a_clock_goes_back() -> None:
    first = next_sequence(NOW)
    assert first == int(NOW * 1000)
    assert next_sequence(NOW - 3600, first) == first + 1
    assert next_sequence(NOW + 1, first) == int((NOW + 1) * 1000)


def test_a_clock_a_little_ahead_is_forgiven() -> None:
    early = record(issued=NOW + MAX_SKEW)
    assert opened(seal(early, signer("alice"))) == early


def test_an_address_that_we_cannot_read_is_skipped_and_ipv4_mapped_means_ipv4() -> None:
    quic = bytes.fromhex("04cb007107910203e8cd03")
    mapped = b"\x29" + IPv6Address("::ffff:203.0.113.7").packed + b"\x06\x3e\xf0"
    plain = bytes.fromhex("04cb007107063ef0")
    heard = opened(forged(addresses=[quic, mapped, plain]))
    assert heard.addresses == (Endpoint("203.0.113.7", 16112),)


def test_fields_of_a_later_version_are_signed_and_do_no_harm() -> None:
    later = pb.CapabilityRecord(**payload()).SerializeToString() + b"\xa2\x06\x02hi"
    data = envelope.seal(DOMAIN, PAYLOAD_TYPE, later, signer("alice"))
    assert opened(data) == record()
    sealed = envelope.decode(data)
    assert refusal(envelope.encode(replace(sealed, payload=later[:-5]))) is Reason.BAD_SIGNATURE


def test_what_is_stale_or_known_costs_no_cryptography() -> None:
    def never(*_: object) -> bool:
        raise AssertionError("a signature was checked")

    data = seal(record(), signer("alice"))
    assert refusal(data, NOW + LIFETIME, verify=never) is Reason.RECORD_EXPIRED
    assert refusal(data, newest=lambda _: 2**63, verify=never) is Reason.RECORD_SUPERSEDED


def test_nobody_seals_what_nobody_would_take() -> None:
    for wrong in (
        record(expires=1),
        record("bob"),
        record(addresses=(Endpoint("240.0.0.1", 1),)),
        record(addresses=tuple(Endpoint("203.0.113.7", port) for port in range(1, 18))),
        private("alice", relays=(RelayWay(Endpoint("203.0.113.7", 1)),)),
    ):
        with pytest.raises(RemoteProtocolError):
            seal(wrong, signer("alice"))


ADDRESSES = st.builds(
    Endpoint,
    st.one_of(
        st.ip_addresses(v=4, network="203.0.113.0/24"),
        st.ip_addresses(v=6, network="2001:db8::/32"),
    ).map(str),
    st.integers(1, 65535),
)
PEERS = st.sampled_from([peer(name) for name in ("bob", "carol", "dave")])
RECORDS = st.builds(
    record,
    issued=st.floats(NOW - LIFETIME + 1, NOW + MAX_SKEW),
    addresses=st.lists(ADDRESSES, max_size=16, unique=True).map(tuple),
    offer=st.none()
    | st.builds(
        RelayOffer,
        st.integers(0, 2**32 - 1),
        st.builds(Limit, st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)),
    ),
    relays=st.lists(st.builds(RelayWay, ADDRESSES, PEERS), max_size=8, unique=True).map(tuple),
    node=st.none() | ADDRESSES,
)


@given(RECORDS)
def test_any_record_comes_back(said: CapabilityRecord) -> None:
    data = seal(said, signer("alice"))
    assert opened(data) == said
    assert len(data) <= MAX_RECORD


@pytest.mark.parametrize("text", ["", "x", "0" * 52, peer("alice") + " ", " " + peer("alice"), "ä"])
def test_text_that_is_no_peer_id(text: str) -> None:
    with pytest.raises(RemoteProtocolError):
        peer_ids.to_bytes(text)


def test_peer_ids_of_all_kinds_of_keys() -> None:
    for encoded in (b"\x08\x01\x12\x20" + bytes(32), bytes(42), bytes(43), bytes(300)):
        multihash = peer_ids.of_key(encoded)
        assert peer_ids.to_bytes(peer_ids.to_text(multihash)) == multihash
    ours = signer("alice").key
    assert peer_ids.of_ed25519(ours.data) == ours.peer_id
    # An example of libp2p/specs, peer-ids/peer-ids.md.
    assert peer_ids.to_bytes("QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N")[:2] == b"\x12\x20"
