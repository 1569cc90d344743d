"""Circuit, DCUtR and identify messages: bytes by hand from the specifications, both ways."""

from __future__ import annotations

import base58
import pytest
from hypothesis import given
from hypothesis import strategies as st
from libp2p.identity.identify.pb import identify_pb2
from libp2p.relay.circuit_v2.pb import circuit_pb2, dcutr_pb2

from appliance.bridge import identify
from appliance.bridge.identity import Identity
from appliance.bridge.messages import (
    MAX_ADDRESSES,
    decode_dcutr,
    decode_hop,
    decode_stop,
    encode_connect,
    encode_dcutr,
    encode_hop_status,
    encode_incoming_circuit,
    encode_reserve,
    encode_stop_status,
    peer_id_bytes,
    peer_id_text,
)
from appliance.errors import RemoteProtocolError
from appliance.network import Endpoint
from appliance.reasons import Reason
from appliance.wire import dcutr, multiaddr
from appliance.wire.circuit import (
    ConnectRequest,
    Granted,
    IncomingCircuit,
    Limit,
    ReserveRequest,
    StatusReply,
)
from appliance.wire.framing import encode_varint

# An ed25519 peer id: identity multihash (00), 36 bytes (24), key type 1 (0801), 32 bytes (1220).
ID_HEX = "00240801" + "1220" + bytes(range(32)).hex()
PEER = base58.b58encode(bytes.fromhex(ID_HEX)).decode()
ADDRESS_HEX = "04cb00710706401f"  # /ip4/203.0.113.7/tcp/16415
ADDRESS = Endpoint("203.0.113.7", 16415)

# Field numbers from circuit-v2.md. HopMessage: type 1, peer 2, reservation 3, limit 4, status 5;
# StopMessage: type 1, peer 2, limit 3, status 4; Peer: id 1; Reservation: expire 1, addrs 2,
# voucher 3; Limit: duration 1, data 2.
PEER_FIELD = "1228" + "0a26" + ID_HEX
LIMIT_BODY = "0878" + "10808008"  # 120 s, 131072 bytes

HOP = {
    "reserve": ("0800", ReserveRequest()),
    "connect": ("0801" + PEER_FIELD, ConnectRequest(PEER)),
    "refused": ("0802" + "28c801", StatusReply(200)),
    "connected": ("0802" + "2206" + LIMIT_BODY + "2864", StatusReply(100, Limit(120, 131_072))),
    "connected without a limit": ("0802" + "2864", StatusReply(100)),
    "reserved": (
        # 2a: the address and /p2p/ID behind it; 8 + 2 + 1 + 38 bytes = 31
        "0802" + "1a3f" + "08d00f" + "1231" + ADDRESS_HEX + "a50326" + ID_HEX + "1a07"
        + b"voucher".hex() + "2206" + LIMIT_BODY + "2864",
        StatusReply(100, Limit(120, 131_072), Granted(2000, (ADDRESS,), b"voucher")),
    ),
}  # fmt: skip
STOP = {
    "connect": (
        "0800" + PEER_FIELD + "1a06" + LIMIT_BODY, IncomingCircuit(PEER, Limit(120, 131_072))
    ),
    "connect without a limit": ("0800" + PEER_FIELD, IncomingCircuit(PEER, Limit())),
    "accepted": ("0801" + "2064", StatusReply(100)),
    "refused": ("0801" + "20cb01", StatusReply(203)),
}  # fmt: skip
DCUTR = {
    # HolePunch: type 1 (CONNECT 100, SYNC 300), ObsAddrs 2
    "connect": ("0864" + "1208" + ADDRESS_HEX, dcutr.Connect((ADDRESS,))),
    "connect without addresses": ("0864", dcutr.Connect(())),
    "sync": ("08ac02", dcutr.Sync()),
}


@pytest.mark.parametrize(("wire", "meaning"), HOP.values(), ids=HOP)
def test_hop_messages_as_the_specification_has_them(wire: str, meaning: object) -> None:
    assert decode_hop(bytes.fromhex(wire)) == meaning


@pytest.mark.parametrize(("wire", "meaning"), STOP.values(), ids=STOP)
def test_stop_messages_as_the_specification_has_them(wire: str, meaning: object) -> None:
    assert decode_stop(bytes.fromhex(wire)) == meaning


@pytest.mark.parametrize(("wire", "meaning"), DCUTR.values(), ids=DCUTR)
def test_dcutr_messages_as_the_specification_has_them(wire: str, meaning: dcutr.Message) -> None:
    assert decode_dcutr(bytes.fromhex(wire)) == meaning
    assert encode_dcutr(meaning).hex() == wire


def test_what_we_write_is_the_specifications() -> None:
    limit = Limit(120, 131_072)
    granted = Granted(2000, (ADDRESS,), b"voucher")
    assert encode_reserve().hex() == HOP["reserve"][0]
    assert encode_connect(PEER).hex() == HOP["connect"][0]
    assert encode_hop_status(200).hex() == HOP["refused"][0]
    assert encode_hop_status(100, limit=limit).hex() == HOP["connected"][0]
    reserved = encode_hop_status(100, limit=limit, granted=granted, relay_id=PEER)
    assert reserved.hex() == HOP["reserved"][0]
    assert encode_incoming_circuit(PEER, limit).hex() == STOP["connect"][0]
    assert encode_stop_status(100).hex() == STOP["accepted"][0]


def test_no_limit_is_said_by_leaving_it_out() -> None:
    """Anything else marks the connection as limited, and go-libp2p opens nothing on it unasked."""
    assert encode_hop_status(100, limit=Limit()).hex() == HOP["connected without a limit"][0]
    assert encode_incoming_circuit(PEER, Limit()).hex() == STOP["connect without a limit"][0]
    half = circuit_pb2.HopMessage.FromString(encode_hop_status(100, limit=Limit(data_bytes=5)))
    assert half.limit.data == 5 and not half.limit.HasField("duration")


def test_the_librarys_messages_are_understood_and_ours_by_it() -> None:
    theirs = circuit_pb2.HopMessage(type=circuit_pb2.HopMessage.CONNECT)
    theirs.peer.id = bytes.fromhex(ID_HEX)
    assert theirs.SerializeToString() == encode_connect(PEER)
    stop = circuit_pb2.StopMessage.FromString(encode_incoming_circuit(PEER, Limit(9, 8)))
    assert (stop.peer.id.hex(), stop.limit.duration, stop.limit.data) == (ID_HEX, 9, 8)
    punch = dcutr_pb2.HolePunch.FromString(encode_dcutr(dcutr.Connect((ADDRESS,))))
    assert punch.type == dcutr_pb2.HolePunch.CONNECT
    assert [address.hex() for address in punch.ObsAddrs] == [ADDRESS_HEX]


MALFORMED_HOP = {
    "nothing": "",
    "no type": PEER_FIELD,
    "an unknown type": "0809",
    "a connect to nobody": "0801",
    "a connect to an empty id": "0801" + "1202" + "0a00",
    "a connect to a short id": "0801" + "1204" + "0a020024",
    "a connect to an id with something behind it": "0801" + "1229" + "0a27" + ID_HEX + "00",
    "a sha-1 id": "0801" + "1218" + "0a16" + "1114" + "00" * 20,
    "a truncated field": "0801" + "1228" + "0a26",
    "a wrong wire type": "0a00",
}


@pytest.mark.parametrize("wire", MALFORMED_HOP.values(), ids=MALFORMED_HOP)
def test_malformed_hop_messages(wire: str) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        decode_hop(bytes.fromhex(wire))
    assert caught.value.reason is Reason.MALFORMED_MESSAGE


@pytest.mark.parametrize("wire", ["", "0800", "0805", "0a00", "0800" + "1202" + "0a00"])
def test_malformed_stop_messages(wire: str) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_stop(bytes.fromhex(wire))


@pytest.mark.parametrize("wire", ["", "1208" + ADDRESS_HEX, "0801", "086412", "0865"])
def test_malformed_dcutr_messages(wire: str) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_dcutr(bytes.fromhex(wire))


def test_only_so_many_addresses_are_looked_at_and_useless_ones_are_skipped() -> None:
    useful = [multiaddr.encode(Endpoint("1.1.1.1", port)) for port in range(1, 60)]
    message = dcutr_pb2.HolePunch(type=dcutr_pb2.HolePunch.CONNECT)
    message.ObsAddrs.extend([b"", b"\x04\x01", bytes(300), *useful])
    got = decode_dcutr(message.SerializeToString())
    assert isinstance(got, dcutr.Connect)
    assert [endpoint.port for endpoint in got.addresses] == list(range(1, MAX_ADDRESSES - 2))


@given(st.binary(max_size=200))
def test_garbage_is_the_peers_fault(wire: bytes) -> None:
    for decode in (decode_hop, decode_stop, decode_dcutr, identify.decode):
        try:
            decode(wire)
        except RemoteProtocolError as error:
            assert error.reason is Reason.MALFORMED_MESSAGE  # noqa: PT017 - it need not raise


def test_peer_ids_of_both_forms() -> None:
    assert peer_id_bytes(PEER).hex() == ID_HEX and peer_id_text(bytes.fromhex(ID_HEX)) == PEER
    hashed = bytes([0x12, 32]) + bytes(32)
    assert peer_id_bytes(peer_id_text(hashed)) == hashed
    assert peer_id_text(hashed).startswith("Qm")
    own = Identity.generate()
    assert peer_id_text(own.peer_id_bytes) == own.peer_id
    assert peer_id_bytes(own.peer_id) == own.peer_id_bytes


@pytest.mark.parametrize("wire", ["", "00", "0000", "0001", "002b" + "00" * 43, "1220" + "00" * 31])
def test_what_is_no_peer_id(wire: str) -> None:
    with pytest.raises(RemoteProtocolError):
        peer_id_text(bytes.fromhex(wire))


# --- identify


def test_our_identify_says_who_we_are_and_where_we_see_the_peer() -> None:
    own = Identity.generate()
    wire = identify.encode(
        own, listen=[ADDRESS], observed=Endpoint("1.2.3.4", 5), protocols=["/b", "/a"]
    )
    message = identify_pb2.Identify.FromString(wire)
    assert message.public_key == own.keys.public_key.serialize()
    assert [address.hex() for address in message.listen_addrs] == [ADDRESS_HEX]
    assert message.observed_addr.hex() == "0401020304060005"
    assert list(message.protocols) == ["/a", "/b"]
    assert message.agent_version == identify.AGENT
    got = identify.decode(wire)
    assert got.observed == Endpoint("1.2.3.4", 5) and got.agent == identify.AGENT
    assert not identify_pb2.Identify.FromString(
        identify.encode(own, listen=[], observed=None, protocols=[])
    ).HasField("observed_addr")


@pytest.mark.parametrize(
    ("claimed", "shown"),
    [
        (b"rust-libp2p/0.55", "rust-libp2p/0.55"),
        (b"", ""),
        (b"a\x1b[2Jb\nc", "a?[2Jb?c"),
        ("ü".encode() * 200, "ü" * identify.MAX_AGENT),
        (b"\xff\xfeagent", "\ufffd\ufffdagent"),  # not UTF-8: no fault of ours
    ],
)
def test_an_agent_string_is_shown_safely(claimed: bytes, shown: str) -> None:
    wire = b"\x32" + encode_varint(len(claimed)) + claimed
    assert identify.decode(wire).agent == shown


def test_an_observed_address_that_is_none_of_ours_to_use_is_skipped() -> None:
    message = identify_pb2.Identify(observed_addr=b"\x04\x01\x02")
    assert identify.decode(message.SerializeToString()).observed is None
    assert identify.decode(b"").observed is None
