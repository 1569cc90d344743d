"""What goes into the solver and what comes out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from appliance.errors import ApplianceError
from appliance.sizing.profile import Profile


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a declaration asks of the solver. None: computed."""

    relay: bool = True
    """Whether we may come to relay for others."""
    node: Literal["kaspad", "embedded", "remote"] = "kaspad"
    """Where the Kaspa node lives: beside us, in our own process, on another machine."""
    peers: int = 0
    """Private peers to reach, one slot each."""
    relays: int = 0
    """Relays named in the declaration."""
    listeners: int = 1
    """Listening sockets of the bridge, without the slots."""
    dials: int = 0
    """Peers that the embedded node dials by itself."""
    as_table: bool = False
    """Whether the address book counts by autonomous systems."""
    caps: Mapping[str, int] = field(default_factory=dict)
    """Caps that are said outright, by their name."""
    caps_fields: Mapping[str, str] = field(default_factory=dict)
    """The field of the declaration that said each of `caps`, for messages."""

    @property
    def embedded(self) -> bool:
        return self.node == "embedded"


@dataclass(frozen=True, slots=True)
class Budget:
    """One resource of one process: `limit` = what the owners of `reserved` keep + `available`.

    `per_unit` says what one unit of a cap takes at most; `used` what all caps together can take,
    never more than `available`.
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
    """Public peers that dial the node; kaspad's own limit."""
    inbound_private: int
    outbound_direct: int
    """Public peers that the node dials; kaspad's own target."""
    outbound_private: int
    per_relay_inbound: int
    unknown_relay_inbound: int
    relay_reservations: int
    relay_circuits: int
    relay_circuits_per_peer: int
    relay_reservations_per_ip: int
    relay_bytes_per_second: int
    relay_circuit_bytes_per_second: int
    connections: int
    """libp2p connections in all, those inside circuits and those still shaking hands included."""
    connections_per_ip: int
    handshakes: int
    """Connections that are shaking hands."""
    punches: int
    """Hole punches under way."""
    dials: int
    """Sockets that are being connected."""
    dials_per_second: int
    """Connections that we set up, over a while."""
    gossip: int
    """Other nodes that are asked for addresses at once."""
    scrapers: int
    """Readers of the metrics at once."""
    operators: int
    """Clients of the control socket at once."""
    unread_bytes: int
    """What all connections together may hold of streams that nobody reads."""
    unread_bytes_per_connection: int
    unread_bytes_assured: int
    """What each may hold even when all together hold `unread_bytes`."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Who gets which part of the machine's memory, in bytes. The parts never exceed `memory`."""

    memory: int
    owners: Mapping[str, int]
    free: int
    """What the file cache of the kernel lives on."""


@dataclass(frozen=True, slots=True)
class Kaspad:
    """What the kaspad beside us gets, and what it is told on its command line."""

    flags: tuple[str, ...]
    fds: Budget | None
    """None where kaspad is on another machine."""
    unit: Mapping[str, int]
    """systemd limits of kaspad's own unit; empty on another machine."""


@dataclass(frozen=True, slots=True)
class Step:
    """One number of the plan, how it was computed, and why so.

    `formula` is made of whole numbers, names of other steps and of the profile's fields
    (`profile.…`), `+ - × ÷ min max`; `÷` rounds down.
    """

    name: str
    value: int
    formula: str
    because: str


@dataclass(frozen=True, slots=True)
class Plan:
    """Budgets and caps for one machine; every number has a `Step` in `derivation`."""

    profile: Profile
    machine: Machine
    fds: Budget
    memory: Budget
    conntrack: Budget
    bandwidth: Bandwidth
    caps: Caps
    unit: Mapping[str, int]
    """systemd limits of the daemon's unit; bytes for the memory ones."""
    sysctl: Mapping[str, int]
    firewall: Mapping[str, int]
    """Limits of the packet filter in front of the bridge."""
    store: Mapping[str, int]
    """RocksDB's options and the size of the address book."""
    alerts: Mapping[str, int]
    """Thresholds: an alert fires at the number or above."""
    kaspad: Kaspad | None
    """None with the embedded node."""
    derivation: tuple[Step, ...]

    def as_json(self) -> dict[str, Any]:
        """The document that `plan --json` prints."""
        return dataclasses.asdict(self)


class Infeasible(ApplianceError):
    """No plan fits. `constraint` is the resource or cap that binds, `wish` the field that asks too
    much (None: the machine is too small), `nearest` the closest value that would fit."""

    def __init__(
        self,
        message: str,
        *,
        constraint: str,
        wish: str | None,
        nearest: int,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.constraint = constraint
        self.wish = wish
        self.nearest = nearest
