from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CapabilityRecord(_message.Message):
    __slots__ = ("peer_id", "sequence", "expires", "network", "addresses", "relay", "relays", "node")
    PEER_ID_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_FIELD_NUMBER: _ClassVar[int]
    NETWORK_FIELD_NUMBER: _ClassVar[int]
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    RELAY_FIELD_NUMBER: _ClassVar[int]
    RELAYS_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    peer_id: bytes
    sequence: int
    expires: int
    network: str
    addresses: _containers.RepeatedScalarFieldContainer[bytes]
    relay: RelayOffer
    relays: _containers.RepeatedScalarFieldContainer[bytes]
    node: bytes
    def __init__(self, peer_id: _Optional[bytes] = ..., sequence: _Optional[int] = ..., expires: _Optional[int] = ..., network: _Optional[str] = ..., addresses: _Optional[_Iterable[bytes]] = ..., relay: _Optional[_Union[RelayOffer, _Mapping]] = ..., relays: _Optional[_Iterable[bytes]] = ..., node: _Optional[bytes] = ...) -> None: ...

class RelayOffer(_message.Message):
    __slots__ = ("capacity", "circuit_seconds", "circuit_bytes")
    CAPACITY_FIELD_NUMBER: _ClassVar[int]
    CIRCUIT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    CIRCUIT_BYTES_FIELD_NUMBER: _ClassVar[int]
    capacity: int
    circuit_seconds: int
    circuit_bytes: int
    def __init__(self, capacity: _Optional[int] = ..., circuit_seconds: _Optional[int] = ..., circuit_bytes: _Optional[int] = ...) -> None: ...
