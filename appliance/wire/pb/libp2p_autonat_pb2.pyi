from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Type1(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TYPE_DIAL: _ClassVar[Type1]
    TYPE_DIAL_RESPONSE: _ClassVar[Type1]
TYPE_DIAL: Type1
TYPE_DIAL_RESPONSE: Type1

class Message1(_message.Message):
    __slots__ = ("type", "dial", "dial_response")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    DIAL_FIELD_NUMBER: _ClassVar[int]
    DIAL_RESPONSE_FIELD_NUMBER: _ClassVar[int]
    type: Type1
    dial: Dial1
    dial_response: Response1
    def __init__(self, type: _Optional[_Union[Type1, str]] = ..., dial: _Optional[_Union[Dial1, _Mapping]] = ..., dial_response: _Optional[_Union[Response1, _Mapping]] = ...) -> None: ...

class Dial1(_message.Message):
    __slots__ = ("peer",)
    PEER_FIELD_NUMBER: _ClassVar[int]
    peer: Peer1
    def __init__(self, peer: _Optional[_Union[Peer1, _Mapping]] = ...) -> None: ...

class Peer1(_message.Message):
    __slots__ = ("id", "addresses")
    ID_FIELD_NUMBER: _ClassVar[int]
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    id: bytes
    addresses: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, id: _Optional[bytes] = ..., addresses: _Optional[_Iterable[bytes]] = ...) -> None: ...

class Response1(_message.Message):
    __slots__ = ("status", "text", "address")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    status: int
    text: str
    address: bytes
    def __init__(self, status: _Optional[int] = ..., text: _Optional[str] = ..., address: _Optional[bytes] = ...) -> None: ...

class Message2(_message.Message):
    __slots__ = ("request", "response", "data_request", "data_response")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    DATA_REQUEST_FIELD_NUMBER: _ClassVar[int]
    DATA_RESPONSE_FIELD_NUMBER: _ClassVar[int]
    request: Request2
    response: Response2
    data_request: DataRequest2
    data_response: DataResponse2
    def __init__(self, request: _Optional[_Union[Request2, _Mapping]] = ..., response: _Optional[_Union[Response2, _Mapping]] = ..., data_request: _Optional[_Union[DataRequest2, _Mapping]] = ..., data_response: _Optional[_Union[DataResponse2, _Mapping]] = ...) -> None: ...

class Request2(_message.Message):
    __slots__ = ("addresses", "nonce")
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    addresses: _containers.RepeatedScalarFieldContainer[bytes]
    nonce: int
    def __init__(self, addresses: _Optional[_Iterable[bytes]] = ..., nonce: _Optional[int] = ...) -> None: ...

class Response2(_message.Message):
    __slots__ = ("status", "index", "dial_status")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    DIAL_STATUS_FIELD_NUMBER: _ClassVar[int]
    status: int
    index: int
    dial_status: int
    def __init__(self, status: _Optional[int] = ..., index: _Optional[int] = ..., dial_status: _Optional[int] = ...) -> None: ...

class DataRequest2(_message.Message):
    __slots__ = ("index", "bytes")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    index: int
    bytes: int
    def __init__(self, index: _Optional[int] = ..., bytes: _Optional[int] = ...) -> None: ...

class DataResponse2(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    def __init__(self, data: _Optional[bytes] = ...) -> None: ...

class DialBack2(_message.Message):
    __slots__ = ("nonce",)
    NONCE_FIELD_NUMBER: _ClassVar[int]
    nonce: int
    def __init__(self, nonce: _Optional[int] = ...) -> None: ...

class DialBackResponse2(_message.Message):
    __slots__ = ("status",)
    STATUS_FIELD_NUMBER: _ClassVar[int]
    status: int
    def __init__(self, status: _Optional[int] = ...) -> None: ...
