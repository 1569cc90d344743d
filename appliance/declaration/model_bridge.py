"""The bridge's section of a declaration: where it listens, whom it reaches, what it grants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final, Literal

from appliance.declaration.addresses import PrivatePeer, RelayAddress
from appliance.declaration.kinds import (
    Boolean,
    Choice,
    ListOf,
    Number,
    OrNone,
)
from appliance.declaration.kinds_address import (
    endpoint_kind,
    external_kind,
    peer_kind,
    relay_kind,
)
from appliance.declaration.sections import Section
from appliance.declaration.settings import NETWORK, Computed, Setting, Values
from appliance.network import Endpoint

MAX_PEERS: Final = 256
MAX_RELAYS: Final = 64


def _bridge_listen(values: Values) -> tuple[Endpoint, ...]:
    return (Endpoint("0.0.0.0", values["network"].p2p_port + 1),)


def _bridge_slots(values: Values) -> Endpoint:
    return Endpoint("127.0.0.1", values["network"].p2p_port + 9)


@dataclass(frozen=True, slots=True)
class RelaySpec:
    """What our relay service grants to those it relays for."""

    reservation_duration: Annotated[
        int,
        Setting(
            Number(5, 7 * 86_400),
            "Lifetime of a reservation; clients renew before it ends.",
            default=3600,
            because="what go-libp2p and rust-libp2p grant",
            unit="seconds",
        ),
    ]
    circuit_duration: Annotated[
        int,
        Setting(
            Number(0, 30 * 86_400),
            "A circuit is cut after this time, idle or not; 0 is no limit.",
            default=120,
            because="enough to punch a direct connection; what go-libp2p and rust-libp2p allow",
            unit="seconds",
        ),
    ]
    circuit_bytes: Annotated[
        int,
        Setting(
            Number(0, 2**53),
            "A circuit is cut after this many bytes in either direction; 0 is no limit. A Kaspa "
            "stream over the relay needs 0 or a large number.",
            default=131_072,
            because="go-libp2p's limit; enough to punch, too little to live on",
            unit="bytes each way",
        ),
    ]


@dataclass(frozen=True, slots=True)
class BridgeSpec:
    """The libp2p side: where it listens, whom it reaches, what it grants."""

    listen: Annotated[
        tuple[Endpoint, ...],
        Setting(
            ListOf(endpoint_kind(), 16, least=1),
            "Where the bridge accepts libp2p connections; dials leave from the same port, which "
            "is what makes hole punching work. Port 0: any free one.",
            default=Computed(
                "0.0.0.0 on the network's P2P port + 1",
                _bridge_listen,
                NETWORK,
            ),
            because="relay-capable kaspads use the P2P port + 1",
            unit="IP:PORT",
            example='["0.0.0.0:16112"]',
        ),
    ]
    external: Annotated[
        tuple[Endpoint, ...],
        Setting(
            ListOf(external_kind(), 16),
            "Addresses under which the internet reaches `listen` (a forwarded port, a public IP). "
            "Without a port, the first listen port is meant. One is evidence of a public role.",
            default=(),
            unit="IP or IP:PORT",
            example='["203.0.113.7"]',
        ),
    ]
    relay_mode: Annotated[
        Literal["auto", "on", "off"],
        Setting(
            Choice("auto", "on", "off"),
            "Whether we relay for others: `auto` does once there is evidence that the internet "
            "reaches us.",
            default="auto",
            because="a relay behind a NAT helps nobody",
        ),
    ]
    relays: Annotated[
        tuple[RelayAddress, ...],
        Setting(
            ListOf(relay_kind(), MAX_RELAYS),
            "Relays to reserve at while we are private.",
            default=(),
            unit="multiaddr",
            example='["/ip4/203.0.113.7/tcp/16112/p2p/12D3KooW…"]',
        ),
    ]
    peers: Annotated[
        tuple[PrivatePeer, ...],
        Setting(
            ListOf(peer_kind(), MAX_PEERS),
            "Private peers to reach, one slot each: a peer id (through any of `relays`), or "
            "RELAY/p2p-circuit/p2p/PEERID.",
            default=(),
            unit="peer id or multiaddr",
            example='["12D3KooW…"]',
        ),
    ]
    slots: Annotated[
        Endpoint,
        Setting(
            endpoint_kind(),
            "The node dials private peers here: entry i of `peers` on port + i. Port 0: any free "
            "ports.",
            default=Computed(
                "127.0.0.1 on the network's P2P port + 9",
                _bridge_slots,
                NETWORK,
            ),
            because="clear of the ports of kaspad and the bridge",
            unit="IP:PORT",
            example="127.0.0.1:16120",
        ),
    ]
    private_inbound_target: Annotated[
        int | None,
        Setting(
            OrNone(Number(0, 1024)),
            "Private peers that may reach our node at once; null: computed (8 where the hardware "
            "allows).",
            default=None,
            because="a home node's norm, and kaspad's outbound target",
            unit="peers",
            example="8",
        ),
    ]
    per_relay_inbound: Annotated[
        int | None,
        Setting(
            OrNone(Number(1, 1024)),
            "Of those, how many may come through one relay; null: computed (4 where the target "
            "allows).",
            default=None,
            because="no single relay may fill a home node",
            unit="peers",
            example="4",
        ),
    ]
    direct_deadline: Annotated[
        float,
        Setting(
            Number(0, 300, whole=False),
            "How long to wait for a direct connection before a relayed stream is considered.",
            default=6.0,
            because="a punch takes under 2 s, and a kaspad that dials hangs up after 10 s",
            unit="seconds",
        ),
    ]
    dial_private: Annotated[
        bool,
        Setting(
            Boolean(),
            "Whether private and loopback addresses that peers announce may be dialled: for "
            "laboratories and LANs.",
            default=False,
            because="a stranger must not make us probe the home network",
        ),
    ]
    relay: Annotated[RelaySpec, Setting(Section(RelaySpec), RelaySpec.__doc__ or "", default=None)]
    drain: Annotated[
        float,
        Setting(
            Number(0, 300, whole=False),
            "How long open streams get to end at shutdown.",
            default=3.0,
            because="stopping takes less than 5 s in all",
            unit="seconds",
        ),
    ]
