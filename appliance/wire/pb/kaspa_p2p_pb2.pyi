from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RelayRole(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RELAY_ROLE_UNSPECIFIED: _ClassVar[RelayRole]
    RELAY_ROLE_PUBLIC: _ClassVar[RelayRole]
    RELAY_ROLE_PRIVATE: _ClassVar[RelayRole]
RELAY_ROLE_UNSPECIFIED: RelayRole
RELAY_ROLE_PUBLIC: RelayRole
RELAY_ROLE_PRIVATE: RelayRole

class KaspadMessage(_message.Message):
    __slots__ = ("response_id", "request_id", "addresses", "requestAddresses", "ping", "pong", "verack", "version", "reject", "ready", "labChunk")
    RESPONSE_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    REQUESTADDRESSES_FIELD_NUMBER: _ClassVar[int]
    PING_FIELD_NUMBER: _ClassVar[int]
    PONG_FIELD_NUMBER: _ClassVar[int]
    VERACK_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    REJECT_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    LABCHUNK_FIELD_NUMBER: _ClassVar[int]
    response_id: int
    request_id: int
    addresses: AddressesMessage
    requestAddresses: RequestAddressesMessage
    ping: PingMessage
    pong: PongMessage
    verack: VerackMessage
    version: VersionMessage
    reject: RejectMessage
    ready: ReadyMessage
    labChunk: LabChunkMessage
    def __init__(self, response_id: _Optional[int] = ..., request_id: _Optional[int] = ..., addresses: _Optional[_Union[AddressesMessage, _Mapping]] = ..., requestAddresses: _Optional[_Union[RequestAddressesMessage, _Mapping]] = ..., ping: _Optional[_Union[PingMessage, _Mapping]] = ..., pong: _Optional[_Union[PongMessage, _Mapping]] = ..., verack: _Optional[_Union[VerackMessage, _Mapping]] = ..., version: _Optional[_Union[VersionMessage, _Mapping]] = ..., reject: _Optional[_Union[RejectMessage, _Mapping]] = ..., ready: _Optional[_Union[ReadyMessage, _Mapping]] = ..., labChunk: _Optional[_Union[LabChunkMessage, _Mapping]] = ...) -> None: ...

class RequestAddressesMessage(_message.Message):
    __slots__ = ("includeAllSubnetworks", "subnetworkId")
    INCLUDEALLSUBNETWORKS_FIELD_NUMBER: _ClassVar[int]
    SUBNETWORKID_FIELD_NUMBER: _ClassVar[int]
    includeAllSubnetworks: bool
    subnetworkId: SubnetworkId
    def __init__(self, includeAllSubnetworks: _Optional[bool] = ..., subnetworkId: _Optional[_Union[SubnetworkId, _Mapping]] = ...) -> None: ...

class AddressesMessage(_message.Message):
    __slots__ = ("addressList",)
    ADDRESSLIST_FIELD_NUMBER: _ClassVar[int]
    addressList: _containers.RepeatedCompositeFieldContainer[NetAddress]
    def __init__(self, addressList: _Optional[_Iterable[_Union[NetAddress, _Mapping]]] = ...) -> None: ...

class NetAddress(_message.Message):
    __slots__ = ("timestamp", "ip", "port", "services", "relayPort", "relayCapacity", "relayTtlMs", "relayRole", "libp2pPeerId", "relayCircuitHint")
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    IP_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    SERVICES_FIELD_NUMBER: _ClassVar[int]
    RELAYPORT_FIELD_NUMBER: _ClassVar[int]
    RELAYCAPACITY_FIELD_NUMBER: _ClassVar[int]
    RELAYTTLMS_FIELD_NUMBER: _ClassVar[int]
    RELAYROLE_FIELD_NUMBER: _ClassVar[int]
    LIBP2PPEERID_FIELD_NUMBER: _ClassVar[int]
    RELAYCIRCUITHINT_FIELD_NUMBER: _ClassVar[int]
    timestamp: int
    ip: bytes
    port: int
    services: int
    relayPort: int
    relayCapacity: int
    relayTtlMs: int
    relayRole: RelayRole
    libp2pPeerId: str
    relayCircuitHint: str
    def __init__(self, timestamp: _Optional[int] = ..., ip: _Optional[bytes] = ..., port: _Optional[int] = ..., services: _Optional[int] = ..., relayPort: _Optional[int] = ..., relayCapacity: _Optional[int] = ..., relayTtlMs: _Optional[int] = ..., relayRole: _Optional[_Union[RelayRole, str]] = ..., libp2pPeerId: _Optional[str] = ..., relayCircuitHint: _Optional[str] = ...) -> None: ...

class SubnetworkId(_message.Message):
    __slots__ = ("bytes",)
    BYTES_FIELD_NUMBER: _ClassVar[int]
    bytes: bytes
    def __init__(self, bytes: _Optional[bytes] = ...) -> None: ...

class PingMessage(_message.Message):
    __slots__ = ("nonce",)
    NONCE_FIELD_NUMBER: _ClassVar[int]
    nonce: int
    def __init__(self, nonce: _Optional[int] = ...) -> None: ...

class PongMessage(_message.Message):
    __slots__ = ("nonce",)
    NONCE_FIELD_NUMBER: _ClassVar[int]
    nonce: int
    def __init__(self, nonce: _Optional[int] = ...) -> None: ...

class VerackMessage(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ReadyMessage(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RejectMessage(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...

class VersionMessage(_message.Message):
    __slots__ = ("protocolVersion", "services", "timestamp", "address", "id", "userAgent", "disableRelayTx", "subnetworkId", "network")
    PROTOCOLVERSION_FIELD_NUMBER: _ClassVar[int]
    SERVICES_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    USERAGENT_FIELD_NUMBER: _ClassVar[int]
    DISABLERELAYTX_FIELD_NUMBER: _ClassVar[int]
    SUBNETWORKID_FIELD_NUMBER: _ClassVar[int]
    NETWORK_FIELD_NUMBER: _ClassVar[int]
    protocolVersion: int
    services: int
    timestamp: int
    address: NetAddress
    id: bytes
    userAgent: str
    disableRelayTx: bool
    subnetworkId: SubnetworkId
    network: str
    def __init__(self, protocolVersion: _Optional[int] = ..., services: _Optional[int] = ..., timestamp: _Optional[int] = ..., address: _Optional[_Union[NetAddress, _Mapping]] = ..., id: _Optional[bytes] = ..., userAgent: _Optional[str] = ..., disableRelayTx: _Optional[bool] = ..., subnetworkId: _Optional[_Union[SubnetworkId, _Mapping]] = ..., network: _Optional[str] = ...) -> None: ...

class LabChunkMessage(_message.Message):
    __slots__ = ("echo", "total", "offset", "data", "sha256")
    ECHO_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    echo: bool
    total: int
    offset: int
    data: bytes
    sha256: bytes
    def __init__(self, echo: _Optional[bool] = ..., total: _Optional[int] = ..., offset: _Optional[int] = ..., data: _Optional[bytes] = ..., sha256: _Optional[bytes] = ...) -> None: ...
