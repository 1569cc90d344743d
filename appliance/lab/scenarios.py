"""The catalogue: what each scenario sets up and what must come out of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from appliance.lab.routers import DROPS, RESETS, SYMMETRIC, Router
from appliance.units import KIB, MIB

# rust-libp2p's and go-libp2p's defaults, hence what most relays in the field grant.
FIELD_CIRCUIT_BYTES: Final = 128 * KIB
FIELD_CIRCUIT_SECONDS: Final = 120


class Outcome(str, Enum):
    """What has to happen to the Kaspa stream."""

    DIRECT = "direct"
    RELAYED = "relayed"
    REFUSED = "refused"


class Nodes(str, Enum):
    """What happens to home B's node."""

    STEADY = "steady"
    LATE = "late"  # started when everything else has been up and asking for it
    RESTARTED = "restarted"  # killed after the payload, then started again


@dataclass(frozen=True, slots=True)
class Scenario:
    """What all have; `summary` is one line for people."""

    name: str
    summary: str
    outcome: Outcome = field(default=Outcome.DIRECT, kw_only=True)

    def setting(self) -> str:
        """Who is there, in a few words for people."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class TwoHomes(Scenario):
    """A story about two homes and a relay that they name in their declarations."""

    router_a: Router = DROPS
    router_b: Router = DROPS
    nodes: Nodes = Nodes.STEADY
    # What the relay grants a circuit, in bytes each way and seconds; 0 = no limit.
    circuit_bytes: int = FIELD_CIRCUIT_BYTES
    circuit_seconds: int = FIELD_CIRCUIT_SECONDS
    # What A's appliance waits for a punch before it considers the relay, in seconds.
    direct_deadline: int = 10
    payload: int = 16 * MIB

    def setting(self) -> str:
        a, b = self.router_a.describe(), self.router_b.describe()
        routers = f"both routers: {a}" if a == b else f"router A: {a}; router B: {b}"
        return f"one relay, two homes; {routers}"


@dataclass(frozen=True, slots=True)
class Discovery(Scenario):
    """A story about homes and relays that know one public peer, and nobody else."""

    relays: int = 4  # the known peer is one of them
    homes: int = 4
    reservations: int = 3  # that every home is to hold
    # Seconds from the first start until every home holds those and a Kaspa stream.
    deadline: float = 60.0

    def setting(self) -> str:
        return (
            f"{self.relays} public relays, {self.homes} homes behind routers of their own; "
            "every file names the first relay and nobody else"
        )


SCENARIOS: Final[dict[str, Scenario]] = {
    scenario.name: scenario
    for scenario in (
        TwoHomes("two-homes", "two nodes behind two NATs shake hands over a punched connection"),
        TwoHomes(
            "two-homes-late-node",
            "home B's node starts after everything else",
            nodes=Nodes.LATE,
        ),
        TwoHomes(
            "two-homes-restart",
            "home B's node is killed and started again; the slot recovers by itself",
            nodes=Nodes.RESTARTED,
        ),
        TwoHomes(
            "two-homes-reset",
            "the routers answer an unexpected SYN with RST, so the punch must be well timed",
            router_a=RESETS,
            router_b=RESETS,
        ),
        TwoHomes(
            "relayed",
            "no punch can work (random ports), and the relay grants unlimited circuits",
            router_a=SYMMETRIC,
            router_b=SYMMETRIC,
            outcome=Outcome.RELAYED,
            circuit_bytes=0,
            circuit_seconds=0,
            direct_deadline=4,
        ),
        TwoHomes(
            "symmetric-refused",
            "no punch can work and the relay grants 128 KiB: refused early, with the reason",
            router_a=SYMMETRIC,
            router_b=SYMMETRIC,
            outcome=Outcome.REFUSED,
            direct_deadline=4,
        ),
        Discovery(
            "discovery",
            "eight appliances know one public peer: homes find relays and each other by gossip",
        ),
    )
}
