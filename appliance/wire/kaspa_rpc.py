"""What we ask the kaspad beside us over its gRPC interface, and its answers as frozen values.

Source: rusty-kaspa, rpc/grpc/core (proto/kaspa_rpc.proto). kaspad is ours and no stranger, but
what it knows it heard from strangers: addresses that cannot be read are skipped and counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from google.protobuf.message import DecodeError

from appliance.errors import RemoteProtocolError
from appliance.network import Endpoint
from appliance.reasons import Reason
from appliance.units import MIB
from appliance.wire.pb import kaspa_rpc_pb2 as pb
from appliance.wire.synthetic import plain

METHOD: Final = "/protowire.RPC/MessageStream"
MAX_RESPONSE: Final = MIB
"""Bytes; 4,096 known addresses over IPv6, all a kaspad keeps, make 200 KiB."""


@dataclass(frozen=True, slots=True)
class GetPeerAddresses:
    """Which addresses does it know?"""


@dataclass(frozen=True, slots=True)
class GetConnectedPeers:
    """Whom is it connected to?"""


@dataclass(frozen=True, slots=True)
class AddPeer:
    """Dial this one. Refused unless kaspad runs with `--unsaferpc`."""

    address: Endpoint
    permanent: bool = False


@dataclass(frozen=True, slots=True)
class GetInfo:
    """Who is it?"""


@dataclass(frozen=True, slots=True)
class GetServerInfo:
    """Which network, and is it synchronised?"""


@dataclass(frozen=True, slots=True)
class GetLibp2pStatus:
    """Who is it in libp2p? Relay-capable nodes only; others leave it unanswered."""


Request = GetPeerAddresses | GetConnectedPeers | AddPeer | GetInfo | GetServerInfo | GetLibp2pStatus


@dataclass(frozen=True, slots=True)
class PeerAddresses:
    known: tuple[Endpoint, ...]
    banned: tuple[str, ...]  # IP addresses
    unreadable: int = 0


@dataclass(frozen=True, slots=True)
class ConnectedPeer:
    address: Endpoint
    outbound: bool
    user_agent: str
    protocol_version: int


@dataclass(frozen=True, slots=True)
class ConnectedPeers:
    peers: tuple[ConnectedPeer, ...]
    unreadable: int = 0


@dataclass(frozen=True, slots=True)
class PeerAdded:
    """It will dial."""


@dataclass(frozen=True, slots=True)
class Info:
    p2p_id: str
    version: str
    synced: bool


@dataclass(frozen=True, slots=True)
class ServerInfo:
    network: str  # "mainnet", "testnet-10", …
    version: str
    synced: bool


@dataclass(frozen=True, slots=True)
class Libp2pStatus:
    """In the node's own words."""

    mode: str
    peer_id: str  # text form; empty: it has none
    identity_kind: str
    identity_path: str


@dataclass(frozen=True, slots=True)
class RpcRefused:
    """kaspad's own words."""

    text: str


Response = (
    PeerAddresses | ConnectedPeers | PeerAdded | Info | ServerInfo | Libp2pStatus | RpcRefused
)


def encode_request(request: Request, number: int = 0) -> bytes:
    """One `KaspadRequest`; `number` comes back with the response."""
    message = pb.KaspadRequest(id=number)
    match request:
        case GetPeerAddresses():
            message.getPeerAddressesRequest.SetInParent()
        case GetConnectedPeers():
            message.getConnectedPeerInfoRequest.SetInParent()
        case AddPeer(address, permanent):
            message.addPeerRequest.address = str(address)
            message.addPeerRequest.isPermanent = permanent
        case GetInfo():
            message.getInfoRequest.SetInParent()
        case GetServerInfo():
            message.getServerInfoRequest.SetInParent()
        case GetLibp2pStatus():
            message.getLibp2pStatusRequest.SetInParent()
    return message.SerializeToString()


def decode_response(data: bytes) -> tuple[int, Response]:
    """The number of the request, and what it was answered.

    Raises RemoteProtocolError: message-too-large, malformed-message, unexpected-message for an
    answer to what we never ask.
    """
    if len(data) > MAX_RESPONSE:
        raise RemoteProtocolError(Reason.MESSAGE_TOO_LARGE, f"a response of {len(data)} bytes")
    message = pb.KaspadResponse()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise RemoteProtocolError(Reason.MALFORMED_MESSAGE, f"rpc: {error}") from None
    return message.id, _read(message)


def _read(message: pb.KaspadResponse) -> Response:
    kind = message.WhichOneof("payload")
    if kind is None:
        raise RemoteProtocolError(Reason.UNEXPECTED_MESSAGE, "an answer to nothing that we ask")
    payload = getattr(message, kind)
    if payload.HasField("error"):
        return RpcRefused(payload.error.message)
    match kind:
        case "getPeerAddressesResponse":
            return _read_addresses(message.getPeerAddressesResponse)
        case "getConnectedPeerInfoResponse":
            return _read_peers(message.getConnectedPeerInfoResponse)
        case "getInfoResponse":
            info = message.getInfoResponse
            return Info(info.p2pId, info.serverVersion, info.isSynced)
        case "getServerInfoResponse":
            server = message.getServerInfoResponse
            return ServerInfo(server.networkId, server.serverVersion, server.isSynced)
        case "getLibp2pStatusResponse":
            said = message.getLibp2pStatusResponse
            return Libp2pStatus(said.mode, said.peerId, said.identityKind, said.identityPath)
    return PeerAdded()


def _read_addresses(message: pb.GetPeerAddressesResponseMessage) -> PeerAddresses:
    known = list(_endpoints(address.Addr for address in message.addresses))
    banned = list(_endpoints(address.Addr for address in message.bannedAddresses))
    return PeerAddresses(
        known=tuple(endpoint for endpoint in known if endpoint is not None),
        banned=tuple(endpoint.host for endpoint in banned if endpoint is not None),
        unreadable=known.count(None) + banned.count(None),
    )


def _read_peers(message: pb.GetConnectedPeerInfoResponseMessage) -> ConnectedPeers:
    places = list(_endpoints(info.address for info in message.infos))
    peers = (
        ConnectedPeer(at, info.isOutbound, info.userAgent, info.advertisedProtocolVersion)
        for at, info in zip(places, message.infos, strict=True)
        if at is not None
    )
    return ConnectedPeers(tuple(peers), places.count(None))


def _endpoints(texts: Iterable[str]) -> Iterable[Endpoint | None]:
    for text in texts:
        try:
            endpoint = Endpoint.parse(text, default_port=0)
            if "%" in endpoint.host:
                raise ValueError(text)  # a zone means something on that machine only
            yield Endpoint(str(plain(ip_address(endpoint.host))), endpoint.port)
        except ValueError:
            yield None
