from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Wanted(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ANY: _ClassVar[Wanted]
    RELAYS: _ClassVar[Wanted]
    PRIVATE: _ClassVar[Wanted]

class Status(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OK: _ClassVar[Status]
    TOO_SOON: _ClassVar[Status]
    OTHER_NETWORK: _ClassVar[Status]
ANY: Wanted
RELAYS: Wanted
PRIVATE: Wanted
OK: Status
TOO_SOON: Status
OTHER_NETWORK: Status

class GossipMessage(_message.Message):
    __slots__ = ("ask", "answer")
    ASK_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    ask: Ask
    answer: Answer
    def __init__(self, ask: _Optional[_Union[Ask, _Mapping]] = ..., answer: _Optional[_Union[Answer, _Mapping]] = ...) -> None: ...

class Ask(_message.Message):
    __slots__ = ("network", "limit", "wanted", "peers", "records")
    NETWORK_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    WANTED_FIELD_NUMBER: _ClassVar[int]
    PEERS_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    network: str
    limit: int
    wanted: Wanted
    peers: _containers.RepeatedScalarFieldContainer[bytes]
    records: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, network: _Optional[str] = ..., limit: _Optional[int] = ..., wanted: _Optional[_Union[Wanted, str]] = ..., peers: _Optional[_Iterable[bytes]] = ..., records: _Optional[_Iterable[bytes]] = ...) -> None: ...

class Answer(_message.Message):
    __slots__ = ("status", "records", "ask_again_seconds")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    ASK_AGAIN_SECONDS_FIELD_NUMBER: _ClassVar[int]
    status: Status
    records: _containers.RepeatedScalarFieldContainer[bytes]
    ask_again_seconds: int
    def __init__(self, status: _Optional[_Union[Status, str]] = ..., records: _Optional[_Iterable[bytes]] = ..., ask_again_seconds: _Optional[int] = ...) -> None: ...
