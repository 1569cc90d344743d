"""The nouns of choosing relays: what there is to choose from, and what was decided."""

from __future__ import annotations

from dataclasses import dataclass

from appliance.network import Endpoint
from appliance.reasons import Reason


@dataclass(frozen=True, slots=True, order=True)
class Relay:
    """Where a relay is; `peer_id` is None where hearsay does not tell it."""

    endpoint: Endpoint
    peer_id: str | None = None

    def is_same(self, other: Relay) -> bool:
        """Whether both are one machine, as far as we know."""
        known = self.peer_id is not None and self.peer_id == other.peer_id
        return known or self.endpoint == other.endpoint


@dataclass(frozen=True, slots=True)
class RelayCandidate:
    """A relay that we might reserve at."""

    relay: Relay
    proven: bool = False
    """It signed that it relays, or a connection showed it."""
    weight: float = 1.0
    """Its chance against others of the same standing."""
    known_as: bytes = b""
    """The address book's key, handed back."""


@dataclass(frozen=True, slots=True)
class Keep:
    """Reserve here from now on."""

    candidate: RelayCandidate
    because: Reason


@dataclass(frozen=True, slots=True)
class Drop:
    """Give the reservation up."""

    endpoint: Endpoint
    because: Reason


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing else to do for so long, unless something happens."""

    seconds: float
    because: Reason


Decision = Keep | Drop | Wait
