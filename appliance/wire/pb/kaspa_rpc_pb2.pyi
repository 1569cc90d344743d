from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class KaspadRequest(_message.Message):
    __slots__ = ("id", "getPeerAddressesRequest", "getConnectedPeerInfoRequest", "addPeerRequest", "getInfoRequest", "getServerInfoRequest", "getLibp2pStatusRequest")
    ID_FIELD_NUMBER: _ClassVar[int]
    GETPEERADDRESSESREQUEST_FIELD_NUMBER: _ClassVar[int]
    GETCONNECTEDPEERINFOREQUEST_FIELD_NUMBER: _ClassVar[int]
    ADDPEERREQUEST_FIELD_NUMBER: _ClassVar[int]
    GETINFOREQUEST_FIELD_NUMBER: _ClassVar[int]
    GETSERVERINFOREQUEST_FIELD_NUMBER: _ClassVar[int]
    GETLIBP2PSTATUSREQUEST_FIELD_NUMBER: _ClassVar[int]
    id: int
    getPeerAddressesRequest: GetPeerAddressesRequestMessage
    getConnectedPeerInfoRequest: GetConnectedPeerInfoRequestMessage
    addPeerRequest: AddPeerRequestMessage
    getInfoRequest: GetInfoRequestMessage
    getServerInfoRequest: GetServerInfoRequestMessage
    getLibp2pStatusRequest: GetLibp2pStatusRequestMessage
    def __init__(self, id: _Optional[int] = ..., getPeerAddressesRequest: _Optional[_Union[GetPeerAddressesRequestMessage, _Mapping]] = ..., getConnectedPeerInfoRequest: _Optional[_Union[GetConnectedPeerInfoRequestMessage, _Mapping]] = ..., addPeerRequest: _Optional[_Union[AddPeerRequestMessage, _Mapping]] = ..., getInfoRequest: _Optional[_Union[GetInfoRequestMessage, _Mapping]] = ..., getServerInfoRequest: _Optional[_Union[GetServerInfoRequestMessage, _Mapping]] = ..., getLibp2pStatusRequest: _Optional[_Union[GetLibp2pStatusRequestMessage, _Mapping]] = ...) -> None: ...

class KaspadResponse(_message.Message):
    __slots__ = ("id", "getPeerAddressesResponse", "getConnectedPeerInfoResponse", "addPeerResponse", "getInfoResponse", "getServerInfoResponse", "getLibp2pStatusResponse")
    ID_FIELD_NUMBER: _ClassVar[int]
    GETPEERADDRESSESRESPONSE_FIELD_NUMBER: _ClassVar[int]
    GETCONNECTEDPEERINFORESPONSE_FIELD_NUMBER: _ClassVar[int]
    ADDPEERRESPONSE_FIELD_NUMBER: _ClassVar[int]
    GETINFORESPONSE_FIELD_NUMBER: _ClassVar[int]
    GETSERVERINFORESPONSE_FIELD_NUMBER: _ClassVar[int]
    GETLIBP2PSTATUSRESPONSE_FIELD_NUMBER: _ClassVar[int]
    id: int
    getPeerAddressesResponse: GetPeerAddressesResponseMessage
    getConnectedPeerInfoResponse: GetConnectedPeerInfoResponseMessage
    addPeerResponse: AddPeerResponseMessage
    getInfoResponse: GetInfoResponseMessage
    getServerInfoResponse: GetServerInfoResponseMessage
    getLibp2pStatusResponse: GetLibp2pStatusResponseMessage
    def __init__(self, id: _Optional[int] = ..., getPeerAddressesResponse: _Optional[_Union[GetPeerAddressesResponseMessage, _Mapping]] = ..., getConnectedPeerInfoResponse: _Optional[_Union[GetConnectedPeerInfoResponseMessage, _Mapping]] = ..., addPeerResponse: _Optional[_Union[AddPeerResponseMessage, _Mapping]] = ..., getInfoResponse: _Optional[_Union[GetInfoResponseMessage, _Mapping]] = ..., getServerInfoResponse: _Optional[_Union[GetServerInfoResponseMessage, _Mapping]] = ..., getLibp2pStatusResponse: _Optional[_Union[GetLibp2pStatusResponseMessage, _Mapping]] = ...) -> None: ...

class RPCError(_message.Message):
    __slots__ = ("message",)
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    message: str
    def __init__(self, message: _Optional[str] = ...) -> None: ...

class GetPeerAddressesRequestMessage(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetPeerAddressesResponseMessage(_message.Message):
    __slots__ = ("addresses", "bannedAddresses", "error")
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    BANNEDADDRESSES_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    addresses: _containers.RepeatedCompositeFieldContainer[GetPeerAddressesKnownAddressMessage]
    bannedAddresses: _containers.RepeatedCompositeFieldContainer[GetPeerAddressesKnownAddressMessage]
    error: RPCError
    def __init__(self, addresses: _Optional[_Iterable[_Union[GetPeerAddressesKnownAddressMessage, _Mapping]]] = ..., bannedAddresses: _Optional[_Iterable[_Union[GetPeerAddressesKnownAddressMessage, _Mapping]]] = ..., error: _Optional[_Union[RPCError, _Mapping]] = ...) -> None: ...

class GetPeerAddressesKnownAddressMessage(_message.Message):
    __slots__ = ("Addr",)
    ADDR_FIELD_NUMBER: _ClassVar[int]
    Addr: str
    def __init__(self, Addr: _Optional[str] = ...) -> None: ...

class GetConnectedPeerInfoRequestMessage(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetConnectedPeerInfoResponseMessage(_message.Message):
    __slots__ = ("infos", "error")
    INFOS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    infos: _containers.RepeatedCompositeFieldContainer[GetConnectedPeerInfoMessage]
    error: RPCError
    def __init__(self, infos: _Optional[_Iterable[_Union[GetConnectedPeerInfoMessage, _Mapping]]] = ..., error: _Optional[_Union[RPCError, _Mapping]] = ...) -> None: ...

class GetConnectedPeerInfoMessage(_message.Message):
    __slots__ = ("id", "address", "lastPingDuration", "isOutbound", "userAgent", "advertisedProtocolVersion", "timeConnected")
    ID_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    LASTPINGDURATION_FIELD_NUMBER: _ClassVar[int]
    ISOUTBOUND_FIELD_NUMBER: _ClassVar[int]
    USERAGENT_FIELD_NUMBER: _ClassVar[int]
    ADVERTISEDPROTOCOLVERSION_FIELD_NUMBER: _ClassVar[int]
    TIMECONNECTED_FIELD_NUMBER: _ClassVar[int]
    id: str
    address: str
    lastPingDuration: int
    isOutbound: bool
    userAgent: str
    advertisedProtocolVersion: int
    timeConnected: int
    def __init__(self, id: _Optional[str] = ..., address: _Optional[str] = ..., lastPingDuration: _Optional[int] = ..., isOutbound: _Optional[bool] = ..., userAgent: _Optional[str] = ..., advertisedProtocolVersion: _Optional[int] = ..., timeConnected: _Optional[int] = ...) -> None: ...

class AddPeerRequestMessage(_message.Message):
    __slots__ = ("address", "isPermanent")
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    ISPERMANENT_FIELD_NUMBER: _ClassVar[int]
    address: str
    isPermanent: bool
    def __init__(self, address: _Optional[str] = ..., isPermanent: _Optional[bool] = ...) -> None: ...

class AddPeerResponseMessage(_message.Message):
    __slots__ = ("error",)
    ERROR_FIELD_NUMBER: _ClassVar[int]
    error: RPCError
    def __init__(self, error: _Optional[_Union[RPCError, _Mapping]] = ...) -> None: ...

class GetInfoRequestMessage(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetInfoResponseMessage(_message.Message):
    __slots__ = ("p2pId", "serverVersion", "isSynced", "error")
    P2PID_FIELD_NUMBER: _ClassVar[int]
    SERVERVERSION_FIELD_NUMBER: _ClassVar[int]
    ISSYNCED_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    p2pId: str
    serverVersion: str
    isSynced: bool
    error: RPCError
    def __init__(self, p2pId: _Optional[str] = ..., serverVersion: _Optional[str] = ..., isSynced: _Optional[bool] = ..., error: _Optional[_Union[RPCError, _Mapping]] = ...) -> None: ...

class GetServerInfoRequestMessage(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetServerInfoResponseMessage(_message.Message):
    __slots__ = ("rpcApiVersion", "rpcApiRevision", "serverVersion", "networkId", "isSynced", "error")
    RPCAPIVERSION_FIELD_NUMBER: _ClassVar[int]
    RPCAPIREVISION_FIELD_NUMBER: _ClassVar[int]
    SERVERVERSION_FIELD_NUMBER: _ClassVar[int]
    NETWORKID_FIELD_NUMBER: _ClassVar[int]
    ISSYNCED_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    rpcApiVersion: int
    rpcApiRevision: int
    serverVersion: str
    networkId: str
    isSynced: bool
    error: RPCError
    def __init__(self, rpcApiVersion: _Optional[int] = ..., rpcApiRevision: _Optional[int] = ..., serverVersion: _Optional[str] = ..., networkId: _Optional[str] = ..., isSynced: _Optional[bool] = ..., error: _Optional[_Union[RPCError, _Mapping]] = ...) -> None: ...

class GetLibp2pStatusRequestMessage(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetLibp2pStatusResponseMessage(_message.Message):
    __slots__ = ("mode", "peerId", "identityKind", "identityPath", "error")
    MODE_FIELD_NUMBER: _ClassVar[int]
    PEERID_FIELD_NUMBER: _ClassVar[int]
    IDENTITYKIND_FIELD_NUMBER: _ClassVar[int]
    IDENTITYPATH_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    mode: str
    peerId: str
    identityKind: str
    identityPath: str
    error: RPCError
    def __init__(self, mode: _Optional[str] = ..., peerId: _Optional[str] = ..., identityKind: _Optional[str] = ..., identityPath: _Optional[str] = ..., error: _Optional[_Union[RPCError, _Mapping]] = ...) -> None: ...
