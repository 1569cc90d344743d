"""Circuit and DCUtR messages ↔ the library's protobufs. Strict on input, spec-exact on output."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Final

from google.protobuf.message import DecodeError

from appliance.bridge.library import lean
from appliance.errors import RemoteProtocolError
from appliance.network import Endpoint
from appliance.reasons import Reason
from appliance.wire import dcutr, multiaddr, peer_ids
from appliance.wire.circuit import (
    ConnectRequest,
    Granted,
    HopMessage,
    IncomingCircuit,
    Limit,
    ReserveRequest,
    StatusReply,
    StopMessage,
)

with lean():
    from libp2p.relay.circuit_v2.pb import circuit_pb2 as circuit_pb
    from libp2p.relay.circuit_v2.pb import dcutr_pb2 as dcutr_pb

MAX_ADDRESSES: Final = 16
"""Addresses of one message that we look at; the rest is ignored."""


def peer_id_bytes(peer_id: str) -> bytes:
    """The multihash behind a base58 peer id."""
    return peer_ids.to_bytes(peer_id)


def peer_id_text(data: bytes) -> str:
    """The base58 form. Raises RemoteProtocolError unless it is an identity or SHA-256 hash."""
    return peer_ids.to_text(data)


def _malformed(what: str) -> RemoteProtocolError:
    return RemoteProtocolError(Reason.MALFORMED_MESSAGE, what)


def decode_hop(data: bytes) -> HopMessage:
    """Raises RemoteProtocolError(malformed-message)."""
    try:
        message = circuit_pb.HopMessage.FromString(data)
    except DecodeError:
        raise _malformed("undecodable hop message") from None
    if not message.HasField("type"):
        raise _malformed("hop message without type")
    if message.type == circuit_pb.HopMessage.RESERVE:
        return ReserveRequest()
    if message.type == circuit_pb.HopMessage.CONNECT:
        if not message.HasField("peer"):
            raise _malformed("CONNECT without peer")
        return ConnectRequest(peer_id_text(message.peer.id))
    if message.type != circuit_pb.HopMessage.STATUS:
        raise _malformed(f"hop message of type {message.type}")
    granted = None
    if message.HasField("reservation"):
        granted = Granted(
            message.reservation.expire,
            _endpoints(message.reservation.addrs),
            message.reservation.voucher,
        )
    return StatusReply(message.status, _limit(message), granted)


def decode_stop(data: bytes) -> StopMessage:
    """Raises RemoteProtocolError(malformed-message)."""
    try:
        message = circuit_pb.StopMessage.FromString(data)
    except DecodeError:
        raise _malformed("undecodable stop message") from None
    if not message.HasField("type"):
        raise _malformed("stop message without type")
    if message.type == circuit_pb.StopMessage.STATUS:
        return StatusReply(message.status)
    if message.type != circuit_pb.StopMessage.CONNECT or not message.HasField("peer"):
        raise _malformed("stop message is neither CONNECT nor STATUS")
    return IncomingCircuit(peer_id_text(message.peer.id), _limit(message))


def encode_reserve() -> bytes:
    return bytes(circuit_pb.HopMessage(type=circuit_pb.HopMessage.RESERVE).SerializeToString())


def encode_connect(peer_id: str) -> bytes:
    message = circuit_pb.HopMessage(type=circuit_pb.HopMessage.CONNECT)
    message.peer.id = peer_id_bytes(peer_id)
    return bytes(message.SerializeToString())


def encode_hop_status(
    status: int,
    *,
    limit: Limit | None = None,
    granted: Granted | None = None,
    relay_id: str | None = None,
) -> bytes:
    """A STATUS; `relay_id` ends each address of `granted`."""
    message = circuit_pb.HopMessage(
        type=circuit_pb.HopMessage.STATUS, status=circuit_pb.Status.ValueType(status)
    )
    if limit is not None:
        _fill_limit(message, limit)
    if granted is not None and relay_id is not None:
        message.reservation.expire = granted.expires
        message.reservation.voucher = granted.voucher
        identity = peer_id_bytes(relay_id)
        message.reservation.addrs.extend(
            multiaddr.encode(endpoint, identity) for endpoint in granted.addresses
        )
    return bytes(message.SerializeToString())


def encode_incoming_circuit(peer_id: str, limit: Limit) -> bytes:
    message = circuit_pb.StopMessage(type=circuit_pb.StopMessage.CONNECT)
    message.peer.id = peer_id_bytes(peer_id)
    _fill_limit(message, limit)
    return bytes(message.SerializeToString())


def encode_stop_status(status: int) -> bytes:
    message = circuit_pb.StopMessage(
        type=circuit_pb.StopMessage.STATUS, status=circuit_pb.Status.ValueType(status)
    )
    return bytes(message.SerializeToString())


def decode_dcutr(data: bytes) -> dcutr.Message:
    """Raises RemoteProtocolError(malformed-message)."""
    try:
        message = dcutr_pb.HolePunch.FromString(data)
    except DecodeError:
        raise _malformed("undecodable DCUtR message") from None
    if not message.HasField("type"):
        raise _malformed("DCUtR message without type")
    if message.type == dcutr_pb.HolePunch.CONNECT:
        return dcutr.Connect(_endpoints(message.ObsAddrs))
    if message.type == dcutr_pb.HolePunch.SYNC:
        return dcutr.Sync()
    raise _malformed(f"DCUtR message of type {message.type}")


def encode_dcutr(message: dcutr.Message) -> bytes:
    if isinstance(message, dcutr.Sync):
        return bytes(dcutr_pb.HolePunch(type=dcutr_pb.HolePunch.SYNC).SerializeToString())
    out = dcutr_pb.HolePunch(type=dcutr_pb.HolePunch.CONNECT)
    out.ObsAddrs.extend(multiaddr.encode(endpoint) for endpoint in message.addresses)
    return bytes(out.SerializeToString())


def _endpoints(addresses: Iterable[bytes]) -> tuple[Endpoint, ...]:
    decoded = (multiaddr.decode(data) for data in islice(addresses, MAX_ADDRESSES))
    return tuple(address.endpoint for address in decoded if address is not None)


def _limit(message: circuit_pb.HopMessage | circuit_pb.StopMessage) -> Limit:
    if not message.HasField("limit"):
        return Limit()
    return Limit(message.limit.duration, message.limit.data)


def _fill_limit(message: circuit_pb.HopMessage | circuit_pb.StopMessage, limit: Limit) -> None:
    # No `limit` at all says that there is none (spec); an empty one marks the connection as
    # limited all the same, and go-libp2p opens no streams on such a one unasked.
    if limit.seconds:
        message.limit.duration = limit.seconds
    if limit.data_bytes:
        message.limit.data = limit.data_bytes
