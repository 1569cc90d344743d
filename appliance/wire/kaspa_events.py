"""What a Kaspa connection tells its shell: nouns, frozen."""

from __future__ import annotations

from dataclasses import dataclass

from appliance.wire.kaspa_messages import LabChunk, NetAddress, Version


@dataclass(frozen=True, slots=True)
class PeerIdentified:
    """Version and verack went both ways. The shell answers with `accept` or `refuse`."""

    version: Version


@dataclass(frozen=True, slots=True)
class HandshakeDone:
    """`ready` went both ways."""

    version: Version


@dataclass(frozen=True, slots=True)
class AddressesRequested:
    """The shell answers with `send_addresses`."""


@dataclass(frozen=True, slots=True)
class AddressesReceived:
    addresses: tuple[NetAddress, ...]


@dataclass(frozen=True, slots=True)
class PongReceived:
    round_trip: float  # seconds


@dataclass(frozen=True, slots=True)
class LabChunkReceived:
    chunk: LabChunk


@dataclass(frozen=True, slots=True)
class OpaqueReceived:
    """A payload that we do not speak; nothing is expected of the shell."""

    number: int
    size: int


@dataclass(frozen=True, slots=True)
class RejectReceived:
    """The peer ends the connection. `innocent`: it is us, or there is one with us already."""

    text: str
    innocent: bool


Event = (
    PeerIdentified
    | HandshakeDone
    | AddressesRequested
    | AddressesReceived
    | PongReceived
    | LabChunkReceived
    | OpaqueReceived
    | RejectReceived
)
