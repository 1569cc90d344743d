"""AutoNAT's messages, versions 1 and 2: "dial me back", and what came of it.

Sources: libp2p/specs, autonat/autonat-v1.md and autonat-v2.md. Each message is behind its varint
length on the stream (`framing`). Addresses that we do not speak keep their place as None, because
version 2 names an address by its place.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, TypeVar

from google.protobuf.message import DecodeError, Message

from appliance.errors import RemoteProtocolError
from appliance.network import Endpoint
from appliance.reasons import Reason
from appliance.units import KIB
from appliance.wire import multiaddr, peer_ids
from appliance.wire.pb import libp2p_autonat_pb2 as pb

V1: Final = "/libp2p/autonat/1.0.0"
V2_REQUEST: Final = "/libp2p/autonat/2/dial-request"
V2_BACK: Final = "/libp2p/autonat/2/dial-back"
MAX_MESSAGE: Final = 8 * KIB  # go-libp2p, p2p/protocol/autonatv2: maxMsgSize
MAX_ADDRESSES: Final = 50  # the same, maxPeerAddresses
MAX_CHUNK: Final = 4 * KIB  # the specification: bytes of one message of data

M = TypeVar("M", bound=Message)
E = TypeVar("E", bound=IntEnum)


class Verdict(IntEnum):
    """What version 1 answers."""

    OK = 0
    DIAL_ERROR = 100
    DIAL_REFUSED = 101
    BAD_REQUEST = 200
    INTERNAL_ERROR = 300


class Outcome(IntEnum):
    """What became of a request of version 2."""

    INTERNAL_ERROR = 0
    REJECTED = 100
    DIAL_REFUSED = 101
    OK = 200


class Dialled(IntEnum):
    """What became of the dial itself."""

    UNUSED = 0
    DIAL_ERROR = 100
    DIAL_BACK_ERROR = 101
    OK = 200


@dataclass(frozen=True, slots=True)
class DialMe:
    """Version 1's question."""

    peer_id: str
    addresses: tuple[Endpoint | None, ...]


@dataclass(frozen=True, slots=True)
class DialResult:
    """Version 1's answer; `address` is where the dial came through."""

    verdict: Verdict
    text: str = ""
    address: Endpoint | None = None


@dataclass(frozen=True, slots=True)
class DialRequest:
    """Version 2's question: dial the first that you can, and say `nonce` there."""

    addresses: tuple[Endpoint | None, ...]
    nonce: int


@dataclass(frozen=True, slots=True)
class DialResponse:
    outcome: Outcome
    index: int = 0
    dialled: Dialled = Dialled.UNUSED


@dataclass(frozen=True, slots=True)
class DataRequest:
    """First send so many bytes: so nobody makes us flood a third."""

    index: int
    size: int


@dataclass(frozen=True, slots=True)
class DataResponse:
    data: bytes


V2Message = DialRequest | DialResponse | DataRequest | DataResponse


def encode_v1(message: DialMe | DialResult) -> bytes:
    out = pb.Message1()
    if isinstance(message, DialMe):
        out.type = pb.TYPE_DIAL
        out.dial.peer.id = peer_ids.to_bytes(message.peer_id)
        out.dial.peer.addresses.extend(_encoded(message.addresses))
    else:
        out.type = pb.TYPE_DIAL_RESPONSE
        out.dial_response.status = message.verdict
        if message.text:
            out.dial_response.text = message.text
        if message.address is not None:
            out.dial_response.address = multiaddr.encode(message.address)
    return out.SerializeToString()


def decode_v1(data: bytes) -> DialMe | DialResult:
    """Raises RemoteProtocolError: message-too-large, malformed-message, too-many-addresses."""
    message = _parsed(pb.Message1(), data)
    if message.type == pb.TYPE_DIAL and message.HasField("dial"):
        peer = message.dial.peer
        return DialMe(peer_ids.to_text(peer.id), _decoded(peer.addresses))
    if message.type == pb.TYPE_DIAL_RESPONSE and message.HasField("dial_response"):
        said = message.dial_response
        (address,) = _decoded([said.address])
        return DialResult(_one_of(Verdict, said.status), said.text, address)
    raise _malformed("neither a question nor an answer")


def encode_v2(message: V2Message) -> bytes:
    out = pb.Message2()
    match message:
        case DialRequest(addresses, nonce):
            out.request.nonce = nonce
            out.request.addresses.extend(_encoded(addresses))
        case DialResponse(outcome, index, dialled):
            out.response.SetInParent()
            out.response.status = outcome
            out.response.index = index
            out.response.dial_status = dialled
        case DataRequest(index, size):
            out.data_request.SetInParent()
            out.data_request.index = index
            out.data_request.bytes = size
        case DataResponse(data):
            out.data_response.data = data
            out.data_response.SetInParent()
    return out.SerializeToString()


def decode_v2(data: bytes) -> V2Message:
    """Raises RemoteProtocolError: message-too-large, malformed-message, too-many-addresses."""
    message = _parsed(pb.Message2(), data)
    match message.WhichOneof("msg"):
        case "request":
            return DialRequest(_decoded(message.request.addresses), message.request.nonce)
        case "response":
            said = message.response
            dialled = _one_of(Dialled, said.dial_status)
            return DialResponse(_one_of(Outcome, said.status), said.index, dialled)
        case "data_request":
            return DataRequest(message.data_request.index, message.data_request.bytes)
        case "data_response":
            if len(message.data_response.data) > MAX_CHUNK:
                raise RemoteProtocolError(Reason.MESSAGE_TOO_LARGE, "a chunk of data")
            return DataResponse(message.data_response.data)
    raise _malformed("a message of no kind that we know")


def encode_dial_back(nonce: int) -> bytes:
    """What is said where the dial came through."""
    return pb.DialBack2(nonce=nonce).SerializeToString()


def decode_dial_back(data: bytes) -> int:
    """The nonce. Raises RemoteProtocolError: message-too-large, malformed-message."""
    return _parsed(pb.DialBack2(), data).nonce


def encode_dial_back_response() -> bytes:
    """It has one status, and that is zero: no bytes at all."""
    return pb.DialBackResponse2().SerializeToString()


def _encoded(addresses: Iterable[Endpoint | None]) -> list[bytes]:
    return [multiaddr.encode(address) for address in addresses if address is not None]


def _decoded(raw: Iterable[bytes]) -> tuple[Endpoint | None, ...]:
    given = list(raw)
    if len(given) > MAX_ADDRESSES:
        raise RemoteProtocolError(Reason.TOO_MANY_ADDRESSES, f"more than {MAX_ADDRESSES}")
    read = map(multiaddr.decode, given)
    return tuple(None if found is None else found.endpoint for found in read)


def _parsed(message: M, data: bytes) -> M:
    if len(data) > MAX_MESSAGE:
        raise RemoteProtocolError(Reason.MESSAGE_TOO_LARGE, f"{len(data)} bytes of autonat")
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise _malformed(str(error)) from None
    return message


def _one_of(kind: type[E], number: int) -> E:
    try:
        return kind(number)
    except ValueError:
        raise _malformed(f"{kind.__name__.lower()} {number}") from None


def _malformed(detail: str) -> RemoteProtocolError:
    return RemoteProtocolError(Reason.MALFORMED_MESSAGE, f"autonat: {detail}")
