"""What goes into the solver and what comes out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from appliance.errors import ApplianceError
from appliance.sizing.profile import Profile


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a declaration asks of the solver. None: computed."""

    relay: bool = True
    """Whether we may come to relay for others."""
    embedded: bool = False
    """Whether the Kaspa node lives in our own process."""
    peers: int = 0
    """Private peers to reach, one slot each."""
    relays: int = 0
    """Relays named in the declaration."""
    listeners: int = 1
    """Listening sockets of the bridge, without the slots."""
    dials: int = 0
    """Peers that the embedded node dials by itself."""
    private_inbound_target: int | None = None
    per_relay_inbound: int | None = None


@dataclass(frozen=True, slots=True)
class Budget:
    """One resource: `limit` = what the owners of `reserved` keep + `available`.

    `per_unit` says what one unit of a cap takes; `used` what all caps together can take, never
    more than `available`.
    """

    limit: int
    reserved: Mapping[str, int]
    available: int
    per_unit: Mapping[str, int]
    used: int


@dataclass(frozen=True, slots=True)
class Bandwidth:
    """Bytes per second."""

    link_bytes_per_second: int
    relay_bytes_per_second: int
    per_circuit_bytes_per_second: int
    """What each circuit gets when all are busy."""


@dataclass(frozen=True, slots=True)
class Caps:
    """How many of each the daemon admits; rates in bytes per second."""

    inbound_direct: int
    inbound_private: int
    outbound_direct: int
    outbound_private: int
    per_relay_inbound: int
    unknown_relay_inbound: int
    relay_reservations: int
    relay_circuits: int
    relay_circuits_per_peer: int
    relay_reservations_per_ip: int
    relay_bytes_per_second: int
    relay_circuit_bytes_per_second: int
    unread_bytes: int
    """What all connections together may hold of streams that nobody reads."""
    unread_bytes_per_connection: int


@dataclass(frozen=True, slots=True)
class Step:
    """One number of the plan, how it was computed, and why so."""

    name: str
    value: int
    formula: str
    because: str


@dataclass(frozen=True, slots=True)
class Plan:
    """Budgets and caps for one machine; every cap has a `Step` in `derivation`."""

    profile: Profile
    fds: Budget
    memory: Budget
    conntrack: Budget
    bandwidth: Bandwidth
    caps: Caps
    unit: Mapping[str, int]
    """systemd limits; bytes for the memory ones."""
    sysctl: Mapping[str, int]
    derivation: tuple[Step, ...]

    def as_json(self) -> dict[str, Any]:
        """The document that `plan --json` prints."""
        return dataclasses.asdict(self)


class Infeasible(ApplianceError):
    """No plan fits. `constraint` is the resource or cap that binds, `wish` the field that asks too
    much (None: the machine is too small), `nearest` the closest value that would fit."""

    def __init__(self, message: str, *, constraint: str, wish: str | None, nearest: int) -> None:
        super().__init__(message)
        self.constraint = constraint
        self.wish = wish
        self.nearest = nearest
