"""Kaspa's messages on the wire: against hand-made bytes and against stock's own descriptors."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message as PbMessage

from appliance.errors import RemoteProtocolError
from appliance.reasons import Reason
from appliance.wire import kaspa_codec
from appliance.wire.kaspa_messages import (
    Addresses,
    LabChunk,
    Message,
    NetAddress,
    Opaque,
    Payload,
    Ping,
    Pong,
    Ready,
    Reject,
    RelayRole,
    RequestAddresses,
    Verack,
    Version,
)

STOCK_ADDRESS = NetAddress(ip=IPv4Address("203.0.113.7"), port=16111)
RELAY_ADDRESS = NetAddress(
    ip=IPv6Address("2001:db8::1"),
    port=16111,
    services=1,
    relay_port=16112,
    relay_capacity=64,
    relay_ttl_ms=3_600_000,
    relay_role=RelayRole.PUBLIC,
    libp2p_peer_id="12D3KooWTest",
    relay_circuit_hint="203.0.113.9:16112",
)
VERSION = Version(
    protocol_version=10,
    network="kaspa-simnet",
    peer_id=bytes(range(16)),
    user_agent="/kaspad:1.1.0/kaspad:1.1.0/",
    timestamp_ms=1_700_000_000_000,
    address=STOCK_ADDRESS,
)
PAYLOADS: list[Payload] = [
    VERSION,
    replace(VERSION, address=RELAY_ADDRESS, services=1, subnetwork_id=bytes(20)),
    replace(VERSION, address=None, disable_relay_tx=True),
    Verack(),
    Ready(),
    Ping(0),
    Ping(2**64 - 1),
    Pong(7),
    Reject("LOOPBACK_CONNECTION"),
    RequestAddresses(),
    RequestAddresses(include_all_subnetworks=True, subnetwork_id=bytes(20)),
    Addresses(()),
    Addresses((STOCK_ADDRESS, RELAY_ADDRESS)),
    LabChunk(echo=True, total=10, offset=4, data=b"abcdef", sha256=bytes(32)),
]


def stock_messages() -> dict[str, type[PbMessage]]:
    """What a stock kaspad knows, built without our .proto: the oracle of these tests."""
    kinds = descriptor_pb2.FieldDescriptorProto
    scalar = {
        "u32": kinds.TYPE_UINT32,
        "u64": kinds.TYPE_UINT64,
        "i64": kinds.TYPE_INT64,
        "bytes": kinds.TYPE_BYTES,
        "str": kinds.TYPE_STRING,
        "bool": kinds.TYPE_BOOL,
    }
    layout: dict[str, list[tuple[str, int, str]]] = {
        "SubnetworkId": [("bytes", 1, "bytes")],
        "NetAddress": [("timestamp", 1, "i64"), ("ip", 3, "bytes"), ("port", 4, "u32")],
        "AddressesMessage": [("addressList", 1, "*NetAddress")],
        "RequestAddressesMessage": [
            ("includeAllSubnetworks", 1, "bool"),
            ("subnetworkId", 2, "SubnetworkId"),
        ],
        "PingMessage": [("nonce", 1, "u64")],
        "PongMessage": [("nonce", 1, "u64")],
        "VerackMessage": [],
        "ReadyMessage": [],
        "RejectMessage": [("reason", 1, "str")],
        "VersionMessage": [
            ("protocolVersion", 1, "u32"),
            ("services", 2, "u64"),
            ("timestamp", 3, "i64"),
            ("address", 4, "NetAddress"),
            ("id", 5, "bytes"),
            ("userAgent", 6, "str"),
            ("disableRelayTx", 8, "bool"),
            ("subnetworkId", 9, "SubnetworkId"),
            ("network", 10, "str"),
        ],
        "KaspadMessage": [
            ("addresses", 1, "AddressesMessage"),
            ("requestAddresses", 6, "RequestAddressesMessage"),
            ("ping", 16, "PingMessage"),
            ("pong", 17, "PongMessage"),
            ("verack", 19, "VerackMessage"),
            ("version", 20, "VersionMessage"),
            ("reject", 22, "RejectMessage"),
            ("ready", 50, "ReadyMessage"),
            ("response_id", 101, "u32"),
            ("request_id", 102, "u32"),
        ],
    }
    file = descriptor_pb2.FileDescriptorProto(name="stock.proto", package="stock", syntax="proto3")
    for name, fields in layout.items():
        message = file.message_type.add(name=name)
        for field_name, number, kind in fields:
            field = message.field.add(name=field_name, number=number, label=kinds.LABEL_OPTIONAL)
            if kind in scalar:
                field.type = scalar[kind]
                continue
            field.type = kinds.TYPE_MESSAGE
            field.type_name = ".stock." + kind.lstrip("*")
            if kind.startswith("*"):
                field.label = kinds.LABEL_REPEATED
            elif name == "KaspadMessage":
                field.oneof_index = 0
    file.message_type[-1].oneof_decl.add(name="payload")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"stock.{name}"))
        for name in layout
    }


STOCK = stock_messages()


@pytest.mark.parametrize("payload", PAYLOADS, ids=lambda payload: type(payload).__name__)
def test_what_we_say_is_what_we_read(payload: Payload) -> None:
    message = Message(payload, request_id=3)
    assert kaspa_codec.decode(kaspa_codec.encode(message)) == message


def test_bytes_of_the_short_messages() -> None:
    # Tag 19, 50, 6: length-delimited and empty. Made by hand from the encoding's specification.
    assert kaspa_codec.encode(Message(Verack())) == bytes.fromhex("9a0100")
    assert kaspa_codec.encode(Message(Ready())) == bytes.fromhex("920300")
    assert kaspa_codec.encode(Message(RequestAddresses())) == bytes.fromhex("3200")
    assert kaspa_codec.encode(Message(Ping(300))) == bytes.fromhex("82010308ac02")
    assert kaspa_codec.encode(Message(Pong(1), response_id=5)) == bytes.fromhex("8a01020801a80605")


def test_a_version_is_byte_for_byte_what_stock_encodes() -> None:
    stock = STOCK["KaspadMessage"]()
    version = stock.version  # type: ignore[attr-defined] # a class made here
    version.protocolVersion = 10
    version.timestamp = VERSION.timestamp_ms
    version.address.ip = bytes([203, 0, 113, 7])
    version.address.port = 16111
    version.id = bytes(range(16))
    version.userAgent = VERSION.user_agent
    version.network = "kaspa-simnet"
    assert kaspa_codec.encode(Message(VERSION)) == stock.SerializeToString()


def test_stock_reads_a_relay_address_as_ip_and_port() -> None:
    stock = STOCK["KaspadMessage"]()
    stock.ParseFromString(kaspa_codec.encode(Message(Addresses((RELAY_ADDRESS,)))))
    (address,) = stock.addresses.addressList  # type: ignore[attr-defined] # the same
    assert address.ip == IPv6Address("2001:db8::1").packed
    assert address.port == 16111


def test_an_ipv4_mapped_address_means_the_ipv4_one() -> None:
    stock = STOCK["KaspadMessage"]()
    address = stock.addresses.addressList.add()  # type: ignore[attr-defined] # the same
    address.ip = IPv6Address("::ffff:203.0.113.7").packed
    address.port = 16111
    assert kaspa_codec.decode(stock.SerializeToString()).payload == Addresses((STOCK_ADDRESS,))


def test_a_payload_that_we_do_not_speak_goes_through_untouched() -> None:
    block = bytes.fromhex("1204deadbeef") + bytes.fromhex("b00607")  # block = 2; request_id = 7
    message = kaspa_codec.decode(block)
    assert message.payload == Opaque(number=2, size=4)
    assert message.request_id == 7
    assert kaspa_codec.encode(message) == block
    # Even in an order that no encoder writes.
    backwards = bytes.fromhex("b00607") + bytes.fromhex("1204deadbeef")
    assert kaspa_codec.encode(kaspa_codec.decode(backwards)) == backwards


def test_unknown_fields_of_an_address_survive() -> None:
    unknown = bytes.fromhex("a20602cafe")  # field 100, two bytes
    address = replace(STOCK_ADDRESS, extra=unknown)
    versioned = replace(VERSION, address=address, extra=unknown)
    for payload in (Addresses((address,)), versioned):
        data = kaspa_codec.encode(Message(payload, extra=unknown))
        assert data.count(unknown) >= 2
        assert kaspa_codec.decode(data) == Message(payload, extra=unknown)


@pytest.mark.parametrize(
    "data",
    [
        # Each with a field 100 (the ping: 15) in every message that it has.
        "82010508057a017aa2060178",  # ping
        "b2010b0a0568656c6c6fa2060179a2060178",  # reject
        "32220801121a0a14" + "00" * 20 + "a2060179a206017a",  # requestAddresses, of a subnetwork
        "0a100a0a1a0401020304a2060161a2060162a2060163",  # addresses
    ],
)
def test_unknown_fields_survive_at_any_depth(data: str) -> None:
    raw = bytes.fromhex(data)
    assert kaspa_codec.encode(kaspa_codec.decode(raw)) == raw


def test_a_role_that_a_later_version_knows_is_kept() -> None:
    future = Addresses((replace(STOCK_ADDRESS, relay_role=9),))
    assert kaspa_codec.decode(kaspa_codec.encode(Message(future))).payload == future


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", Reason.MALFORMED_MESSAGE),
        (bytes.fromhex("a80605"), Reason.MALFORMED_MESSAGE),  # ids, but no payload
        (bytes.fromhex("820105"), Reason.MALFORMED_MESSAGE),  # cut off
        (bytes.fromhex("b201020aff"), Reason.MALFORMED_MESSAGE),  # reject, its text not UTF-8
        (b"\xff" * 11, Reason.MALFORMED_MESSAGE),
        (b"\x0b\x0c", Reason.MALFORMED_MESSAGE),  # a group
    ],
)
def test_bytes_that_are_no_message(data: bytes, reason: Reason) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        kaspa_codec.decode(data)
    assert caught.value.reason is reason


def test_impossible_values_are_refused() -> None:
    for field, value in {"ip": b"\1\2\3", "port": 65536}.items():
        stock = STOCK["KaspadMessage"]()
        known = stock.addresses.addressList  # type: ignore[attr-defined] # the same
        address = known.add(ip=bytes(4), port=1)
        setattr(address, field, value)
        with pytest.raises(RemoteProtocolError) as caught:
            kaspa_codec.decode(stock.SerializeToString())
        assert caught.value.reason is Reason.MALFORMED_MESSAGE
    with pytest.raises(RemoteProtocolError):
        kaspa_codec.decode(kaspa_codec.encode(Message(replace(VERSION, peer_id=b"short"))))


def test_more_than_2500_addresses_are_refused_and_2500_are_not() -> None:
    def many(count: int) -> bytes:
        return kaspa_codec.encode(Message(Addresses((STOCK_ADDRESS,) * count)))

    message = kaspa_codec.decode(many(2500)).payload
    assert isinstance(message, Addresses)
    assert len(message.addresses) == 2500
    with pytest.raises(RemoteProtocolError) as caught:
        kaspa_codec.decode(many(2501))
    assert caught.value.reason is Reason.TOO_MANY_ADDRESSES
    # Two lists in one message are one list to protobuf, so they are counted together.
    with pytest.raises(RemoteProtocolError):
        kaspa_codec.decode(many(1500) + many(1500))


def test_a_large_payload_passes_if_we_do_not_speak_it() -> None:
    size = 2 * 1024 * 1024
    low = [size >> shift & 0x7F | 0x80 for shift in (0, 7, 14)]
    varint = bytes([*low, size >> 21])
    assert kaspa_codec.decode(b"\x12" + varint + bytes(size)).payload == Opaque(2, size)
    with pytest.raises(RemoteProtocolError) as caught:
        kaspa_codec.decode(kaspa_codec.encode(Message(Reject("x" * size))))
    assert caught.value.reason is Reason.MESSAGE_TOO_LARGE


def test_long_texts_are_cut_at_a_character() -> None:
    data = kaspa_codec.encode(Message(replace(VERSION, user_agent="ä" * 200)))
    version = kaspa_codec.decode(data).payload
    assert isinstance(version, Version)
    assert version.user_agent == "ä" * 128
    assert kaspa_codec.cut_utf8("aä", 2) == "a"
