"""`KaspadMessage` bytes to frozen values and back.

Bounds come before parsing: what is too large or too many is refused from its outline alone.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from typing import Final, TypeVar, cast

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError
from google.protobuf.message import Message as PbMessage
from google.protobuf.unknown_fields import UnknownFieldSet

from appliance.errors import RemoteProtocolError
from appliance.reasons import Reason
from appliance.units import MIB
from appliance.wire import protobuf_scan
from appliance.wire.kaspa_messages import (
    MAX_ADDRESSES_RECEIVED,
    MAX_LAB_CHUNK,
    MAX_REJECT_REASON_BYTES,
    MAX_USER_AGENT_BYTES,
    PEER_ID_BYTES,
    SHA256_BYTES,
    SUBNETWORK_ID_BYTES,
    Addresses,
    IpAddress,
    LabChunk,
    Message,
    NetAddress,
    Opaque,
    Payload,
    Ping,
    Pong,
    Ready,
    Reject,
    RequestAddresses,
    Verack,
    Version,
)
from appliance.wire.pb import kaspa_p2p_pb2 as pb

# 2,500 addresses with every relay field filled come to about 500 KiB.
MAX_SPOKEN_BYTES: Final = MIB

_RESPONSE_ID: Final = pb.KaspadMessage.RESPONSE_ID_FIELD_NUMBER
_REQUEST_ID: Final = pb.KaspadMessage.REQUEST_ID_FIELD_NUMBER
_ADDRESSES: Final = pb.KaspadMessage.ADDRESSES_FIELD_NUMBER
_ADDRESS_LIST: Final = pb.AddressesMessage.ADDRESSLIST_FIELD_NUMBER
_PAYLOADS: Final = frozenset(
    field.number for field in pb.KaspadMessage.DESCRIPTOR.oneofs_by_name["payload"].fields
)
_IDS: Final = frozenset((_RESPONSE_ID, _REQUEST_ID))
_KASPAD_MESSAGE: Final = cast("Descriptor", pb.KaspadMessage.DESCRIPTOR)
_NET_ADDRESS: Final = pb.NetAddress.DESCRIPTOR
# Their values have an `extra` of their own.
_KEEP_THEIR_OWN: Final = (pb.VersionMessage.DESCRIPTOR.full_name, _NET_ADDRESS.full_name)

P = TypeVar("P", bound=PbMessage)


def decode(data: bytes) -> Message:
    """One `KaspadMessage`.

    Raises RemoteProtocolError: MALFORMED_MESSAGE for what is not protobuf, has no payload at all
    (rusty-kaspa ends the connection then, too) or holds an impossible value; TOO_MANY_ADDRESSES
    for more than 2,500; MESSAGE_TOO_LARGE for a payload that we speak of more than 1 MiB.
    """
    spoken: list[bytes] = []
    extra: list[bytes] = []
    unknown: protobuf_scan.Field | None = None
    spoken_bytes = address_count = 0
    known_payload = False
    for field in protobuf_scan.fields(data):
        piece = data[field.start : field.end]
        if field.number not in _PAYLOADS and field.number not in _IDS:
            extra.append(piece)
            unknown = field
            continue
        spoken.append(piece)
        spoken_bytes += len(piece)
        known_payload |= field.number in _PAYLOADS
        if field.number == _ADDRESSES and field.wire_type == protobuf_scan.LENGTH_DELIMITED:
            for inner in protobuf_scan.fields(data, field.body, field.end):
                address_count += inner.number == _ADDRESS_LIST
                if address_count > MAX_ADDRESSES_RECEIVED:
                    raise RemoteProtocolError(
                        Reason.TOO_MANY_ADDRESSES, f"more than {MAX_ADDRESSES_RECEIVED}"
                    )
    if spoken_bytes > MAX_SPOKEN_BYTES:
        raise RemoteProtocolError(Reason.MESSAGE_TOO_LARGE, f"{spoken_bytes} bytes")
    outer = _parse(pb.KaspadMessage, b"".join(spoken))
    payload: Payload
    kind = outer.WhichOneof("payload")
    if known_payload and kind is not None:
        payload = _READERS[kind](outer)
        extra.append(_unknown(outer))
    elif unknown is not None:
        payload, extra = Opaque(unknown.number, unknown.end - unknown.body), [data]
    else:
        raise _malformed("a KaspadMessage without a payload")
    return Message(payload, outer.request_id, outer.response_id, b"".join(extra))


def encode(message: Message) -> bytes:
    """The bytes of one `KaspadMessage`. What came from an encoder that writes fields in the order
    of their numbers, as all in the field do, goes out byte for byte as it came."""
    if isinstance(message.payload, Opaque):
        return message.extra
    outer = pb.KaspadMessage(request_id=message.request_id, response_id=message.response_id)
    match message.payload:
        case Version() as version:
            _write_version(outer.version, version)
        case Verack():
            outer.verack.SetInParent()
        case Ready():
            outer.ready.SetInParent()
        case Ping(nonce):
            outer.ping.SetInParent()
            outer.ping.nonce = nonce
        case Pong(nonce):
            outer.pong.SetInParent()
            outer.pong.nonce = nonce
        case Reject(reason):
            outer.reject.SetInParent()
            outer.reject.reason = reason
        case RequestAddresses(include_all, subnetwork):
            outer.requestAddresses.SetInParent()
            outer.requestAddresses.includeAllSubnetworks = include_all
            if subnetwork is not None:
                outer.requestAddresses.subnetworkId.bytes = subnetwork
        case Addresses(addresses):
            outer.addresses.SetInParent()
            for address in addresses:
                _write_address(outer.addresses.addressList.add(), address)
        case LabChunk() as chunk:
            outer.labChunk.SetInParent()
            outer.labChunk.echo = chunk.echo
            outer.labChunk.total = chunk.total
            outer.labChunk.offset = chunk.offset
            outer.labChunk.data = chunk.data
            outer.labChunk.sha256 = chunk.sha256
    if message.extra:
        outer.MergeFromString(message.extra)
    data = outer.SerializeToString()
    return protobuf_scan.in_order(data, _KASPAD_MESSAGE) if _has_extra(message) else data


def cut_utf8(text: str, max_bytes: int) -> str:
    """`text`, cut at a character's border to at most `max_bytes` of UTF-8."""
    encoded = text.encode()
    return text if len(encoded) <= max_bytes else encoded[:max_bytes].decode(errors="ignore")


def read_ip(raw: bytes) -> IpAddress:
    """Go's `net.IP` bytes; an IPv4-mapped IPv6 address means the IPv4 one.

    Raises RemoteProtocolError (MALFORMED_MESSAGE) unless there are 4 or 16.
    """
    if len(raw) == 4:
        return IPv4Address(raw)
    if len(raw) == 16:
        address = IPv6Address(raw)
        return address.ipv4_mapped or address
    raise _malformed(f"an IP address of {len(raw)} bytes")


def _read_address(inner: pb.NetAddress) -> NetAddress:
    if inner.port > 65535:
        raise _malformed(f"port {inner.port}")
    return NetAddress(
        ip=read_ip(inner.ip),
        port=inner.port,
        timestamp_ms=inner.timestamp,
        services=inner.services,
        relay_port=inner.relayPort,
        relay_capacity=inner.relayCapacity,
        relay_ttl_ms=inner.relayTtlMs,
        relay_role=inner.relayRole,
        libp2p_peer_id=inner.libp2pPeerId,
        relay_circuit_hint=inner.relayCircuitHint,
        extra=_unknown(inner),
    )


def _write_address(inner: pb.NetAddress, address: NetAddress) -> None:
    inner.ip = address.ip.packed
    inner.port = address.port
    inner.timestamp = address.timestamp_ms
    inner.services = address.services
    inner.relayPort = address.relay_port
    inner.relayCapacity = address.relay_capacity
    inner.relayTtlMs = address.relay_ttl_ms
    inner.relayRole = address.relay_role  # type: ignore[assignment]  # proto3 enums are open
    inner.libp2pPeerId = address.libp2p_peer_id
    inner.relayCircuitHint = address.relay_circuit_hint
    inner.MergeFromString(address.extra)


def _read_version(outer: pb.KaspadMessage) -> Version:
    inner = outer.version
    if len(inner.id) != PEER_ID_BYTES:
        raise _malformed(f"a peer id of {len(inner.id)} bytes")
    return Version(
        protocol_version=inner.protocolVersion,
        network=inner.network,
        peer_id=inner.id,
        user_agent=cut_utf8(inner.userAgent, MAX_USER_AGENT_BYTES),
        timestamp_ms=inner.timestamp,
        services=inner.services,
        address=_read_address(inner.address) if inner.HasField("address") else None,
        disable_relay_tx=inner.disableRelayTx,
        subnetwork_id=_read_subnetwork(inner),
        extra=_unknown(inner),
    )


def _write_version(inner: pb.VersionMessage, version: Version) -> None:
    inner.SetInParent()
    inner.protocolVersion = version.protocol_version
    inner.services = version.services
    inner.timestamp = version.timestamp_ms
    if version.address is not None:
        _write_address(inner.address, version.address)
    inner.id = version.peer_id
    inner.userAgent = cut_utf8(version.user_agent, MAX_USER_AGENT_BYTES)
    inner.disableRelayTx = version.disable_relay_tx
    if version.subnetwork_id is not None:
        inner.subnetworkId.bytes = version.subnetwork_id
    inner.network = version.network
    inner.MergeFromString(version.extra)


def _read_subnetwork(inner: pb.VersionMessage | pb.RequestAddressesMessage) -> bytes | None:
    if not inner.HasField("subnetworkId"):
        return None
    raw = inner.subnetworkId.bytes
    if len(raw) != SUBNETWORK_ID_BYTES:
        raise _malformed(f"a subnetwork id of {len(raw)} bytes")
    return raw


def _read_request(outer: pb.KaspadMessage) -> RequestAddresses:
    inner = outer.requestAddresses
    # rusty-kaspa does not look at the subnetwork of a request, so a wrong one is no fault here.
    subnetwork = inner.subnetworkId.bytes if inner.HasField("subnetworkId") else None
    return RequestAddresses(inner.includeAllSubnetworks, subnetwork)


def _read_lab_chunk(outer: pb.KaspadMessage) -> LabChunk:
    inner = outer.labChunk
    if len(inner.data) > MAX_LAB_CHUNK or len(inner.sha256) not in (0, SHA256_BYTES):
        raise _malformed("a lab chunk out of its bounds")
    return LabChunk(
        echo=inner.echo,
        total=inner.total,
        offset=inner.offset,
        data=inner.data,
        sha256=inner.sha256,
    )


_READERS: Final[dict[str, Callable[[pb.KaspadMessage], Payload]]] = {
    "version": _read_version,
    "verack": lambda _: Verack(),
    "ready": lambda _: Ready(),
    "ping": lambda outer: Ping(outer.ping.nonce),
    "pong": lambda outer: Pong(outer.pong.nonce),
    "reject": lambda outer: Reject(cut_utf8(outer.reject.reason, MAX_REJECT_REASON_BYTES)),
    "requestAddresses": _read_request,
    "addresses": lambda outer: Addresses(tuple(map(_read_address, outer.addresses.addressList))),
    "labChunk": _read_lab_chunk,
}


def _parse(kind: type[P], data: bytes) -> P:
    message = kind()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise _malformed(str(error)) from None
    return message


def _unknown(message: PbMessage) -> bytes:
    """The fields of `message` that our .proto does not have, as they came, nested ones included:
    a message of nothing else, to be merged into what is encoded."""
    if message.DESCRIPTOR is _NET_ADDRESS and not len(UnknownFieldSet(message)):
        return b""  # the frequent case: nothing nested, nothing unknown
    rest = type(message)()
    rest.CopyFrom(message)
    _clear_known(rest)
    return rest.SerializeToString()


def _clear_known(message: PbMessage) -> None:
    for field, value in message.ListFields():
        nested = None if field.is_repeated else field.message_type
        if nested is not None and nested.full_name not in _KEEP_THEIR_OWN:
            _clear_known(value)
            if value.ByteSize():
                continue
        message.ClearField(field.name)


def _has_extra(message: Message) -> bool:
    match message.payload:
        case Version(address=NetAddress(extra=extra)) if extra:
            return True
        case Version(extra=extra) if extra:
            return True
        case Addresses(addresses) if any(address.extra for address in addresses):
            return True
    return bool(message.extra)


def _malformed(what: str) -> RemoteProtocolError:
    return RemoteProtocolError(Reason.MALFORMED_MESSAGE, what)
