"""Every message of the contract, byte for byte, against bytes that none of our code has made.

`fixtures/make` wrote them from the published definitions with protoc (and openssl for signatures).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any, Final

import pytest

from appliance.bridge import messages
from appliance.bridge.envelope import Voucher, open_voucher
from appliance.errors import RemoteProtocolError
from appliance.network import Endpoint, Network
from appliance.reasons import Reason
from appliance.wire import autonat, circuit, dcutr, gossip, kaspa_codec, kaspa_rpc, peer_ids
from appliance.wire.capability import read_claim
from appliance.wire.kaspa_messages import (
    Addresses,
    Message,
    NetAddress,
    Opaque,
    Ping,
    Pong,
    Ready,
    Reject,
    RelayRole,
    RequestAddresses,
    Verack,
    Version,
)
from appliance.wire.records import seal, unseal, withdrawal
from appliance.wire.synthetic import synthetic_endpoint
from appliance.wire.ways import RelayWay
from tests.wire.signing import NOW, peer, private, record, signer

DOCUMENT: Final = json.loads((Path(__file__).parent / "fixtures" / "fixtures.json").read_text())
CASES: Final[dict[str, dict[str, str]]] = {case["name"]: case for case in DOCUMENT["cases"]}

ALICE, BOB = (
    peer("alice"),
    peer_ids.to_text(
        bytes.fromhex(
            "002408011220d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
        )
    ),
)
PLAIN = NetAddress(ip=IPv4Address("203.0.113.7"), port=16111)
PLAIN6 = NetAddress(ip=IPv6Address("2001:db8::1"), port=16111)
RELAY_AT = (Endpoint("203.0.113.7", 16112), Endpoint("2001:db8::1", 16112))
HIDDEN = synthetic_endpoint(ALICE)
SUBNETWORK = b"\x01" + bytes(19)
VERSION = Version(
    protocol_version=10,
    network="kaspa-mainnet",
    peer_id=bytes(range(16)),
    user_agent="/kaspad:1.1.0/kaspad:1.1.0/",
    timestamp_ms=1_700_000_000_000,
    address=PLAIN,
)
KASPA: dict[str, Message] = {
    "version": Message(VERSION),
    "version of everything": Message(
        Version(
            protocol_version=2**32 - 1,
            network="kaspa-testnet-10",
            peer_id=bytes(range(16)),
            user_agent="ä",
            timestamp_ms=-1,
            services=2**64 - 1,
            address=replace(PLAIN6, port=65535, timestamp_ms=1),
            disable_relay_tx=True,
            subnetwork_id=SUBNETWORK,
        ),
        request_id=7,
    ),
    "version without an address": Message(
        Version(
            protocol_version=5,
            network="kaspa-simnet",
            peer_id=bytes(range(16)),
            user_agent="",
            timestamp_ms=1,
        )
    ),
    "verack": Message(Verack()),
    "ready": Message(Ready()),
    "ping": Message(Ping(2**64 - 1), request_id=1),
    "pong": Message(Pong(300), response_id=1),
    "reject": Message(Reject("LOOPBACK_CONNECTION")),
    "requestAddresses": Message(RequestAddresses()),
    "requestAddresses of a subnetwork": Message(
        RequestAddresses(include_all_subnetworks=True, subnetwork_id=SUBNETWORK)
    ),
    "addresses of nobody": Message(Addresses(())),
    "addresses": Message(Addresses((PLAIN, replace(PLAIN6, port=16211)))),
    "version of a public relay": Message(
        replace(
            VERSION,
            services=1,
            address=replace(
                PLAIN,
                services=1,
                relay_port=16112,
                relay_capacity=64,
                relay_ttl_ms=1_800_000,
                relay_role=RelayRole.PUBLIC,
                libp2p_peer_id=ALICE,
            ),
        )
    ),
    "addresses of a relay and of a private peer": Message(
        Addresses(
            (
                replace(PLAIN6, services=1, relay_port=16112, relay_role=RelayRole.PUBLIC),
                NetAddress(
                    ip=IPv4Address(HIDDEN.host),
                    port=HIDDEN.port,
                    relay_role=RelayRole.PRIVATE,
                    libp2p_peer_id=ALICE,
                    relay_circuit_hint="203.0.113.9:16112",
                ),
            )
        )
    ),
}


def bytes_of(name: str) -> bytes:
    return bytes.fromhex(CASES[name]["hex"])


@pytest.mark.parametrize("name", KASPA)
def test_a_message_of_kaspa(name: str) -> None:
    assert kaspa_codec.encode(KASPA[name]) == bytes_of(name)
    assert kaspa_codec.decode(bytes_of(name)) == KASPA[name]


@pytest.mark.parametrize(
    ("name", "payload"),
    [
        ("a payload that we do not speak", Opaque(14, 36)),
        ("an empty payload that we do not speak", Opaque(34, 0)),
    ],
)
def test_a_payload_that_we_do_not_speak_comes_out_as_it_went_in(name: str, payload: Opaque) -> None:
    heard = kaspa_codec.decode(bytes_of(name))
    assert heard.payload == payload
    assert kaspa_codec.encode(heard) == bytes_of(name)


@pytest.mark.parametrize(
    "name", [name for name, case in CASES.items() if case["origin"] == "relay-capable, later"]
)
def test_fields_of_a_later_version_come_out_where_they_were(name: str) -> None:
    heard = kaspa_codec.decode(bytes_of(name))
    assert kaspa_codec.encode(heard) == bytes_of(name)
    assert kaspa_codec.decode(kaspa_codec.encode(heard)) == heard


def test_an_ipv4_mapped_address_of_theirs_is_an_ipv4_address_of_ours() -> None:
    heard = kaspa_codec.decode(bytes_of("an IPv4-mapped address"))
    assert heard == Message(Addresses((PLAIN,)))


def test_what_the_private_peer_of_the_fixtures_claims() -> None:
    payload = kaspa_codec.decode(bytes_of("addresses of a relay and of a private peer")).payload
    assert isinstance(payload, Addresses)
    claim = read_claim(payload.addresses[1])
    assert claim is not None and claim.peer_id == ALICE


@dataclass(frozen=True)
class Pair:
    """A message of libp2p or of ours: as a value, and the two directions of its codec."""

    value: Any
    encoded: Callable[[], bytes]
    decode: Callable[[bytes], Any]


LIMIT = circuit.Limit(120, 131072)
GRANTED = circuit.Granted(1_900_000_000, RELAY_AT[:1], b"voucher")
OBSERVED = dcutr.Connect(RELAY_AT)
QUESTION = gossip.Ask(
    network="kaspa-simnet",
    limit=20,
    wanted=gossip.Wanted.RELAYS,
    peers=(BOB,),
    records=(b"one", b"two"),
)
ANSWER = gossip.Answer(records=(b"one", b"two"), ask_again=300)
TOO_SOON = gossip.Answer(status=gossip.Status.TOO_SOON, ask_again=60)
RELAY_RECORD = record(addresses=RELAY_AT)
PRIVATE_RECORD = private("alice", relays=(RelayWay(RELAY_AT[0], BOB),))
WITHDRAWAL = withdrawal(ALICE, Network.SIMNET, int(NOW * 1000))


def unsealed(data: bytes) -> object:
    return unseal(data, now=NOW, network=Network.SIMNET)


OTHERS: dict[str, Pair] = {
    "hop reserve": Pair(circuit.ReserveRequest(), messages.encode_reserve, messages.decode_hop),
    "hop connect": Pair(
        circuit.ConnectRequest(BOB), lambda: messages.encode_connect(BOB), messages.decode_hop
    ),
    "hop status of a reservation": Pair(
        circuit.StatusReply(100, LIMIT, GRANTED),
        lambda: messages.encode_hop_status(100, limit=LIMIT, granted=GRANTED, relay_id=BOB),
        messages.decode_hop,
    ),
    "hop status of a refusal": Pair(
        circuit.StatusReply(200), lambda: messages.encode_hop_status(200), messages.decode_hop
    ),
    "stop connect": Pair(
        circuit.IncomingCircuit(BOB, LIMIT),
        lambda: messages.encode_incoming_circuit(BOB, LIMIT),
        messages.decode_stop,
    ),
    "stop status": Pair(
        circuit.StatusReply(203), lambda: messages.encode_stop_status(203), messages.decode_stop
    ),
    "dcutr connect": Pair(OBSERVED, lambda: messages.encode_dcutr(OBSERVED), messages.decode_dcutr),
    "dcutr sync": Pair(
        dcutr.Sync(), lambda: messages.encode_dcutr(dcutr.Sync()), messages.decode_dcutr
    ),
    "the record of a relay": Pair(
        RELAY_RECORD, lambda: seal(RELAY_RECORD, signer("alice")), unsealed
    ),
    "the record of a private peer": Pair(
        PRIVATE_RECORD, lambda: seal(PRIVATE_RECORD, signer("alice")), unsealed
    ),
    "a withdrawal": Pair(WITHDRAWAL, lambda: seal(WITHDRAWAL, signer("alice")), unsealed),
    "a question": Pair(QUESTION, lambda: gossip.encode_ask(QUESTION), gossip.decode_ask),
    "an answer": Pair(ANSWER, lambda: gossip.encode_answer(ANSWER), gossip.decode_answer),
    "a refusal to answer": Pair(
        TOO_SOON, lambda: gossip.encode_answer(TOO_SOON), gossip.decode_answer
    ),
}


AUTONAT1: dict[str, autonat.DialMe | autonat.DialResult] = {
    "autonat 1 dial": autonat.DialMe(BOB, RELAY_AT),
    "autonat 1 came through": autonat.DialResult(autonat.Verdict.OK, address=RELAY_AT[0]),
    "autonat 1 did not": autonat.DialResult(autonat.Verdict.DIAL_ERROR, "dial failed"),
}
AUTONAT2: dict[str, autonat.V2Message] = {
    "autonat 2 request": autonat.DialRequest(RELAY_AT, 2**64 - 1),
    "autonat 2 response": autonat.DialResponse(
        autonat.Outcome.OK, 1, autonat.Dialled.DIAL_BACK_ERROR
    ),
    "autonat 2 refusal": autonat.DialResponse(autonat.Outcome.DIAL_REFUSED),
    "autonat 2 asks for data": autonat.DataRequest(1, 30_000),
    "autonat 2 data": autonat.DataResponse(b"\x11" * 32),
}


@pytest.mark.parametrize("name", AUTONAT1)
def test_a_message_of_autonat_1(name: str) -> None:
    assert autonat.encode_v1(AUTONAT1[name]) == bytes_of(name)
    assert autonat.decode_v1(bytes_of(name)) == AUTONAT1[name]


@pytest.mark.parametrize("name", AUTONAT2)
def test_a_message_of_autonat_2(name: str) -> None:
    assert autonat.encode_v2(AUTONAT2[name]) == bytes_of(name)
    assert autonat.decode_v2(bytes_of(name)) == AUTONAT2[name]


def test_a_dial_back_of_autonat_2() -> None:
    assert autonat.encode_dial_back(300) == bytes_of("autonat 2 dial back")
    assert autonat.decode_dial_back(bytes_of("autonat 2 dial back")) == 300
    assert autonat.encode_dial_back_response() == bytes_of("autonat 2 dial back heard")


@pytest.mark.parametrize(
    ("decode", "data", "reason"),
    [
        (autonat.decode_v1, b"", Reason.MALFORMED_MESSAGE),
        (autonat.decode_v1, b"\x08\x00\x12\xff", Reason.MALFORMED_MESSAGE),
        (autonat.decode_v1, bytes.fromhex("08011a020807"), Reason.MALFORMED_MESSAGE),
        (autonat.decode_v2, b"", Reason.MALFORMED_MESSAGE),
        (autonat.decode_v2, b"\x0a\x66" + b"\x0a\x00" * 51, Reason.TOO_MANY_ADDRESSES),
        (autonat.decode_v2, bytes(autonat.MAX_MESSAGE + 1), Reason.MESSAGE_TOO_LARGE),
    ],
)
def test_what_autonat_never_says(
    decode: Callable[[bytes], object], data: bytes, reason: Reason
) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        decode(data)
    assert caught.value.reason is reason


@pytest.mark.parametrize("name", OTHERS)
def test_a_message_of_libp2p_or_ours(name: str) -> None:
    pair = OTHERS[name]
    assert pair.encoded() == bytes_of(name)
    assert pair.decode(bytes_of(name)) == pair.value


def test_a_voucher() -> None:
    heard = open_voucher(bytes_of("a reservation voucher"))
    assert heard == Voucher(ALICE, BOB, 1_900_000_000)


ASKED: dict[str, kaspa_rpc.Request] = {
    "rpc getPeerAddresses": kaspa_rpc.GetPeerAddresses(),
    "rpc getConnectedPeerInfo": kaspa_rpc.GetConnectedPeers(),
    "rpc addPeer": kaspa_rpc.AddPeer(Endpoint("203.0.113.7", 16111), permanent=True),
    "rpc getInfo": kaspa_rpc.GetInfo(),
    "rpc getServerInfo": kaspa_rpc.GetServerInfo(),
    "rpc getLibp2pStatus": kaspa_rpc.GetLibp2pStatus(),
}
ANSWERED: dict[str, tuple[int, kaspa_rpc.Response]] = {
    "rpc peer addresses": (
        1,
        kaspa_rpc.PeerAddresses(
            known=(Endpoint("203.0.113.7", 16111), Endpoint("2001:db8::1", 16111)),
            banned=("203.0.113.66", "2001:db8::66"),
            unreadable=2,
        ),
    ),
    "rpc connected peers": (
        2,
        kaspa_rpc.ConnectedPeers(
            (kaspa_rpc.ConnectedPeer(Endpoint("203.0.113.7", 16111), True, "/kaspad:1.1.0/", 10),)
        ),
    ),
    "rpc peer added": (3, kaspa_rpc.PeerAdded()),
    "rpc refusal": (3, kaspa_rpc.RpcRefused("unavailable in safe mode")),
    "rpc info": (4, kaspa_rpc.Info("b", "1.1.0", synced=True)),
    "rpc libp2p status": (
        6,
        kaspa_rpc.Libp2pStatus("full", ALICE, "persisted", "/var/lib/kaspad/libp2p.id"),
    ),
    "rpc server info": (5, kaspa_rpc.ServerInfo("testnet-10", "1.1.0", synced=True)),
}


@pytest.mark.parametrize(("number", "name"), list(enumerate(ASKED, 1)))
def test_a_question_to_kaspad(number: int, name: str) -> None:
    assert kaspa_rpc.encode_request(ASKED[name], number) == bytes_of(name)


@pytest.mark.parametrize("name", ANSWERED)
def test_an_answer_of_kaspad(name: str) -> None:
    assert kaspa_rpc.decode_response(bytes_of(name)) == ANSWERED[name]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", Reason.UNEXPECTED_MESSAGE),
        (b"\xff", Reason.MALFORMED_MESSAGE),
        (bytes.fromhex("9a3f05"), Reason.MALFORMED_MESSAGE),
        (bytes(kaspa_rpc.MAX_RESPONSE + 1), Reason.MESSAGE_TOO_LARGE),
    ],
)
def test_what_no_kaspad_answers(data: bytes, reason: Reason) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        kaspa_rpc.decode_response(data)
    assert caught.value.reason is reason


def test_every_fixture_is_used_and_says_where_it_is_from() -> None:
    used = {*KASPA, *OTHERS, *ASKED, *ANSWERED, "a reservation voucher", "an IPv4-mapped address"}
    used |= {*AUTONAT1, *AUTONAT2, "autonat 2 dial back", "autonat 2 dial back heard"}
    used |= {name for name in CASES if "do not speak" in name}
    used |= {name for name, case in CASES.items() if case["origin"] == "relay-capable, later"}
    assert used == set(CASES)
    assert all(case["origin"] in DOCUMENT["origins"] for case in CASES.values())
    for origin in ("rusty-kaspa", "relay-kaspa, rpc", "go-libp2p", "go-libp2p, autonat 2"):
        assert {"repository", "tag", "files"} <= set(DOCUMENT["origins"][origin])
    assert DOCUMENT["protoc"].startswith("libprotoc ")
