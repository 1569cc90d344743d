"""The typed declaration: what every room may rely on once a file was accepted.

Each field carries its `Setting`: how it is read, what it means, its default and why that default.
The JSON Schema and the reference page are generated from here.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

from appliance.declaration.addresses import NodePeer
from appliance.declaration.hardware import (
    DETECT,
    NAME_NOUN,
    NAME_PATTERN,
    ProfileKind,
    ProfileOverride,
)
from appliance.declaration.kinds import (
    Choice,
    ListOf,
    OrNone,
    PathText,
    Text,
)
from appliance.declaration.kinds_address import endpoint_kind, node_peer_kind
from appliance.declaration.model_bridge import BridgeSpec, RelaySpec
from appliance.declaration.model_caps import CapsSpec
from appliance.declaration.model_discovery import DiscoverySpec
from appliance.declaration.secrets import SecretFile, SecretFileKind
from appliance.declaration.sections import Section
from appliance.declaration.settings import NETWORK, Computed, Setting, Values
from appliance.network import Endpoint, Network
from appliance.sizing.profile import Profile

__all__ = [
    "API_VERSION",
    "KIND",
    "BridgeSpec",
    "CapsSpec",
    "ControlSpec",
    "Declaration",
    "DiscoverySpec",
    "HardwareSpec",
    "IdentitySpec",
    "LogSpec",
    "Metadata",
    "MetricsSpec",
    "NodeSpec",
    "RelaySpec",
    "StateSpec",
]

API_VERSION: Final = "appliance/v1"
KIND: Final = "Appliance"

MAX_NODE_PEERS: Final = 256
MAX_ASKED_FIRST: Final = 64


def _dialled(listener: Endpoint) -> Endpoint:
    """Where a listener of this machine is dialled from this machine."""
    if not ipaddress.ip_address(listener.host).is_unspecified:
        return listener
    return Endpoint("::1" if listener.is_ipv6 else "127.0.0.1", listener.port)


# The computed defaults. `values` holds the fields read or filled so far, by path.
def _node_p2p(values: Values) -> Endpoint:
    return Endpoint("127.0.0.1", values["network"].p2p_port)


def _node_rpc(values: Values) -> Endpoint | None:
    """A kaspad elsewhere serves its RPC on loopback only, unless told otherwise."""
    if values["node.kind"] != "kaspad":
        return None
    return Endpoint(_dialled(values["node.p2p"]).host, values["network"].rpc_port)


def _state_dir(values: Values) -> Path:
    default: Path = values["state.dir default"]
    return default


def _control_socket(values: Values) -> Path:
    directory: Path = values["control.socket directory"] or values["state.dir"]
    return directory / "control.sock"


def _control_group(values: Values) -> str | None:
    group: str | None = values["control.group default"]
    return group


def _identity_key(values: Values) -> SecretFile:
    state: Path = values["state.dir"]
    return SecretFile(state / "identity.key")


@dataclass(frozen=True, slots=True)
class Metadata:
    """Who this appliance is."""

    name: Annotated[
        str,
        Setting(
            Text(NAME_NOUN, NAME_PATTERN),
            "Name of the appliance: its host name, and the last part of its state directory.",
            example="home-pi",
        ),
    ]


@dataclass(frozen=True, slots=True)
class HardwareSpec:
    """The machine that the budgets are computed for."""

    profile: Annotated[
        Profile | Literal["detect"],
        Setting(
            ProfileKind(),
            "Name of a profile of the catalogue (`appliance profiles`) or of a HardwareProfile in "
            "the same file, `detect` for the machine that this runs on, or the fields of a profile "
            "written out.",
            default=DETECT,
            because="right wherever the appliance runs; name a profile to plan for another machine",
            example="raspberry-pi-4-4g",
        ),
    ]
    override: Annotated[
        ProfileOverride,
        Setting(Section(ProfileOverride), ProfileOverride.__doc__ or "", default=None),
    ]

    def apply(self, profile: Profile) -> Profile:
        """`profile`, or a changed one if `override` says something."""
        return self.override.apply(profile)


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """The Kaspa node beside us."""

    kind: Annotated[
        Literal["kaspad", "embedded", "remote"],
        Setting(
            Choice("kaspad", "embedded", "remote"),
            "`kaspad`: a node that runs beside the appliance. `remote`: a kaspad on another "
            "machine, at `p2p`: the budgets of this one leave it out. `embedded`: the appliance's "
            "own small node, which shakes hands and exchanges addresses but holds no blocks.",
            default="kaspad",
            because="the appliance exists to make a real node reachable",
        ),
    ]
    p2p: Annotated[
        Endpoint,
        Setting(
            endpoint_kind(),
            "Where the node accepts Kaspa P2P connections; the embedded node listens here "
            "(port 0: any free one). Required for a remote one.",
            default=Computed(
                "the network's P2P port on 127.0.0.1",
                _node_p2p,
                NETWORK,
            ),
            because="kaspad's default port",
            unit="IP:PORT",
            example="127.0.0.1:16111",
        ),
    ]
    rpc: Annotated[
        Endpoint | None,
        Setting(
            OrNone(endpoint_kind()),
            "Where kaspad serves gRPC: it is asked for the addresses that it knows. Nothing else "
            "depends on it.",
            default=Computed(
                "the network's RPC port on the host of `p2p`; for a remote node and the embedded "
                "one: none",
                _node_rpc,
                (*NETWORK, "node.kind", "node.p2p"),
            ),
            because="kaspad's default port, which it serves on loopback only",
            unit="IP:PORT",
            example="127.0.0.1:16110",
        ),
    ]
    peers: Annotated[
        tuple[NodePeer, ...],
        Setting(
            ListOf(node_peer_kind(), MAX_ASKED_FIRST),
            "Nodes to ask first who else is there: a Kaspa listener, or an appliance (or a "
            "relay-capable kaspad) by its multiaddr. One is enough to find the others.",
            default=(),
            unit="IP:PORT or multiaddr",
            example='["203.0.113.9:16111"]',
        ),
    ]
    addpeer: Annotated[
        tuple[Endpoint, ...],
        Setting(
            ListOf(endpoint_kind(), MAX_NODE_PEERS),
            "Embedded node only: peers it dials, besides the slots.",
            default=(),
            unit="IP:PORT",
            example='["203.0.113.9:16111"]',
        ),
    ]
    connect: Annotated[
        tuple[Endpoint, ...],
        Setting(
            ListOf(endpoint_kind(), MAX_NODE_PEERS),
            "Embedded node only: if not empty, it dials these and nothing else, not even the "
            "slots or `addpeer`.",
            default=(),
            unit="IP:PORT",
            example='["203.0.113.9:16111"]',
        ),
    ]

    @property
    def dial(self) -> Endpoint:
        """Where the bridge dials the node: `p2p`, or loopback if that is an unspecified address."""
        return _dialled(self.p2p)


@dataclass(frozen=True, slots=True)
class StateSpec:
    """Where the address book is kept, and the identity unless `identity.key` says otherwise."""

    dir: Annotated[
        Path,
        Setting(
            PathText(),
            "State directory; made if missing. Relative to the working directory; `~` is the "
            "home directory.",
            default=Computed(
                "`$STATE_DIRECTORY` (set by systemd), else ~/.local/state/appliance/NAME",
                _state_dir,
                ("metadata.name",),
            ),
            unit="path",
            example="/var/lib/appliance",
        ),
    ]


@dataclass(frozen=True, slots=True)
class IdentitySpec:
    """Who this appliance is to its peers."""

    key: Annotated[
        SecretFile,
        Setting(
            OrNone(SecretFileKind()),
            "File of the private key that the peer id follows from; made if missing. Null: "
            "`identity.key` in the state directory. Its owner is the daemon's user or root, and "
            "nobody else may read it.",
            default=Computed(
                "`identity.key` in the state directory",
                _identity_key,
                ("state.dir",),
            ),
            unit="path",
            example="/etc/appliance/identity.key",
        ),
    ]


@dataclass(frozen=True, slots=True)
class ControlSpec:
    """The operator's socket: `status` and its kin ask there."""

    socket: Annotated[
        Path,
        Setting(
            OrNone(PathText()),
            "Path of the Unix socket; null: the default.",
            default=Computed(
                "`control.sock` in `$RUNTIME_DIRECTORY` (set by systemd), else in the state "
                "directory",
                _control_socket,
                ("state.dir",),
            ),
            because="nobody but the daemon's user gets into a state directory",
            unit="path",
            example="/run/appliance/control.sock",
        ),
    ]
    group: Annotated[
        str | None,
        Setting(
            OrNone(Text("the name of a group", r"[a-z_][a-z0-9_-]{0,31}")),
            "Group whose members may use the socket; null: the default.",
            default=Computed(
                "`$APPLIANCE_CONTROL_GROUP` (set by the machine's unit), else none: only the user "
                "that runs us",
                _control_group,
            ),
            example="operators",
        ),
    ]


@dataclass(frozen=True, slots=True)
class MetricsSpec:
    """Prometheus text over HTTP."""

    listen: Annotated[
        Endpoint | None,
        Setting(
            OrNone(endpoint_kind(), "off"),
            "Where metrics are served, or `off`. Port 0: any free one.",
            default=Endpoint("127.0.0.1", 9464),
            because="loopback: nothing is served to the network unless this says so; 9464 is the "
            "port registered for OpenTelemetry's Prometheus exporter",
            unit="IP:PORT",
        ),
    ]


@dataclass(frozen=True, slots=True)
class LogSpec:
    """How much is logged, and how it looks."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Setting(
            Choice("debug", "info", "warning", "error"),
            "The least serious events that are logged.",
            default="info",
            because="one line per connection, none per message",
        ),
    ]
    format: Annotated[
        Literal["auto", "json", "text"],
        Setting(
            Choice("auto", "json", "text"),
            "`auto`: text on a terminal, JSON elsewhere.",
            default="auto",
            because="people read terminals, programs read files",
        ),
    ]


@dataclass(frozen=True, slots=True)
class Declaration:
    """One appliance; every default is resolved."""

    metadata: Annotated[Metadata, Setting(Section(Metadata), Metadata.__doc__ or "")]
    hardware: Annotated[
        HardwareSpec, Setting(Section(HardwareSpec), HardwareSpec.__doc__ or "", default=None)
    ]
    network: Annotated[
        Network,
        Setting(
            Choice(enum=Network),
            "The Kaspa network; its default ports follow.",
            default=Network.MAINNET,
            because="what a home user wants",
        ),
    ]
    node: Annotated[NodeSpec, Setting(Section(NodeSpec), NodeSpec.__doc__ or "", default=None)]
    bridge: Annotated[
        BridgeSpec, Setting(Section(BridgeSpec), BridgeSpec.__doc__ or "", default=None)
    ]
    discovery: Annotated[
        DiscoverySpec, Setting(Section(DiscoverySpec), DiscoverySpec.__doc__ or "", default=None)
    ]
    caps: Annotated[CapsSpec, Setting(Section(CapsSpec), CapsSpec.__doc__ or "", default=None)]
    state: Annotated[StateSpec, Setting(Section(StateSpec), StateSpec.__doc__ or "", default=None)]
    identity: Annotated[
        IdentitySpec, Setting(Section(IdentitySpec), IdentitySpec.__doc__ or "", default=None)
    ]
    control: Annotated[
        ControlSpec, Setting(Section(ControlSpec), ControlSpec.__doc__ or "", default=None)
    ]
    metrics: Annotated[
        MetricsSpec, Setting(Section(MetricsSpec), MetricsSpec.__doc__ or "", default=None)
    ]
    log: Annotated[LogSpec, Setting(Section(LogSpec), LogSpec.__doc__ or "", default=None)]

    @property
    def name(self) -> str:
        return self.metadata.name

    def slot(self, index: int) -> Endpoint:
        """Where the slot of `bridge.peers[index]` listens."""
        first = self.bridge.slots
        return Endpoint(first.host, first.port + index if first.port else 0)
