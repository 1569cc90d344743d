"""The discovery section of a declaration: how the appliance finds relays and peers by itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from appliance.declaration.kinds import Boolean, ListOf, Number, OrNone, PathText, Text
from appliance.declaration.settings import NETWORK, Computed, Setting, Values

MAX_SEEDERS: Final = 16

_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST_NAME: Final = Text(
    "a host name", rf"(?=.{{1,253}}$)(?:{_LABEL}\.)+[A-Za-z](?:[A-Za-z0-9-]{{0,61}}[A-Za-z0-9])?"
)


def _dns_seeders(values: Values) -> tuple[str, ...]:
    seeders: tuple[str, ...] = values["network"].dns_seeders
    return seeders


@dataclass(frozen=True, slots=True)
class DiscoverySpec:
    """How relays and private peers are found without anybody writing them down."""

    enabled: Annotated[
        bool,
        Setting(
            Boolean(),
            "Whether other nodes are asked, and answered, who relays and who is reached through "
            "whom. Without it only what this file names is known.",
            default=True,
            because="nobody should have to write multiaddrs by hand",
        ),
    ]
    dns_seeders: Annotated[
        tuple[str, ...],
        Setting(
            OrNone(ListOf(_HOST_NAME, MAX_SEEDERS), "default"),
            "Host names that resolve to addresses of nodes, asked while few are known. An empty "
            "list: none.",
            default=Computed("those of the network, as kaspad has them", _dns_seeders, NETWORK),
            because="simnet and devnet have none",
            example="[seeder.example.org]",
        ),
    ]
    relays_wanted: Annotated[
        int,
        Setting(
            Number(1, 8),
            "Relays to hold reservations at while we are private. As long as fewer are known, "
            "others are asked more often.",
            default=3,
            because="go-libp2p keeps 2; with 3 a lost one leaves a choice while it is replaced",
            unit="relays",
        ),
    ]
    as_table: Annotated[
        Path | None,
        Setting(
            OrNone(PathText()),
            "File of networks and the autonomous systems that they belong to, one a line in the "
            "order of addresses (`1.0.0.0/24 13335`), as Bitcoin Core's asmap-tool prints it. "
            "Addresses of one system then count as one network: for buckets, quotas and choices. "
            "Null: each /16 of IPv4 and each /32 of IPv6 does.",
            default=None,
            because="such a table is somebody else's work, and grows old",
            unit="path",
            example="/etc/appliance/asmap.txt",
        ),
    ]
