"""The catalogue: what each scenario sets up and what must come out of it. Data only."""

from __future__ import annotations

from dataclasses import dataclass
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
    """A story about two homes; `summary` is one line for people."""

    name: str
    summary: str
    router_a: Router = DROPS
    router_b: Router = DROPS
    nodes: Nodes = Nodes.STEADY
    outcome: Outcome = Outcome.DIRECT
    # What the relay grants a circuit, in bytes each way and seconds; 0 = no limit.
    circuit_bytes: int = FIELD_CIRCUIT_BYTES
    circuit_seconds: int = FIELD_CIRCUIT_SECONDS
    # What A's appliance waits for a punch before it considers the relay, in seconds.
    direct_deadline: int = 10
    payload: int = 16 * MIB


SCENARIOS: Final[dict[str, Scenario]] = {
    scenario.name: scenario
    for scenario in (
        Scenario("two-homes", "two nodes behind two NATs shake hands over a punched connection"),
        Scenario(
            "two-homes-late-node",
            "home B's node starts after everything else",
            nodes=Nodes.LATE,
        ),
        Scenario(
            "two-homes-restart",
            "home B's node is killed and started again; the slot recovers by itself",
            nodes=Nodes.RESTARTED,
        ),
        Scenario(
            "two-homes-reset",
            "the routers answer an unexpected SYN with RST, so the punch must be well timed",
            router_a=RESETS,
            router_b=RESETS,
        ),
        Scenario(
            "relayed",
            "no punch can work (random ports), and the relay grants unlimited circuits",
            router_a=SYMMETRIC,
            router_b=SYMMETRIC,
            outcome=Outcome.RELAYED,
            circuit_bytes=0,
            circuit_seconds=0,
            direct_deadline=4,
        ),
        Scenario(
            "symmetric-refused",
            "no punch can work and the relay grants 128 KiB: refused early, with the reason",
            router_a=SYMMETRIC,
            router_b=SYMMETRIC,
            outcome=Outcome.REFUSED,
            direct_deadline=4,
        ),
    )
}
