"""The YAML files of the laboratory's hosts, as a user would write them."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from appliance.lab.scenarios import TwoHomes
from appliance.lab.topology import RELAY_IP
from appliance.network import Network

NETWORK: Final = Network.SIMNET
NODE_PORT: Final = NETWORK.p2p_port
BRIDGE_PORT: Final = NODE_PORT + 1
SLOT_PORT: Final = NODE_PORT + 9

# Bytes a second of every host's line, a gigabit's: the laboratory's cables have no shaper, and a
# relay that spares the line assumed for this machine would carry a scenario's payload for minutes.
LINK: Final = 125_000_000

_KASPAD: Final = f"""\
  kind: kaspad
  p2p: 127.0.0.1:{NODE_PORT}
"""


def _head(name: str, state: Path, level: str, node: str = _KASPAD) -> str:
    return f"""\
apiVersion: appliance/v1
kind: Appliance
metadata:
  name: {name}
hardware:
  profile: detect
  override:
    link_bytes_per_second: {LINK}
network: {NETWORK.value}
node:
{node}\
state:
  dir: {state}
metrics:
  listen: "off"
log:
  level: {level}
  format: json
"""


def relay_multiaddr(peer_id: str, ip: str = RELAY_IP) -> str:
    """Where a relay is, for the declarations of others."""
    return f"/ip4/{ip}/tcp/{BRIDGE_PORT}/p2p/{peer_id}"


def relay(scenario: TwoHomes, state: Path, level: str) -> str:
    """The relay's file: public, with the scenario's circuit limits."""
    return f"""{_head("relay", state, level)}\
bridge:
  listen: ["0.0.0.0:{BRIDGE_PORT}"]
  external: ["{RELAY_IP}:{BRIDGE_PORT}"]
  relay_mode: "on"
  drain: 1
  relay:
    circuit_duration: {scenario.circuit_seconds}
    circuit_bytes: {scenario.circuit_bytes}
"""


def home(
    scenario: TwoHomes,
    name: str,
    state: Path,
    level: str,
    relay_id: str,
    peer_id: str | None = None,
) -> str:
    """A home's file; with `peer_id`, the private peer that its slot leads to."""
    via = relay_multiaddr(relay_id)
    peers = "" if peer_id is None else f'\n    - "{via}/p2p-circuit/p2p/{peer_id}"'
    return f"""{_head(name, state, level)}\
bridge:
  listen: ["0.0.0.0:{BRIDGE_PORT}"]
  relay_mode: auto
  relays:
    - "{via}"
  peers:{peers or " []"}
  slots: 127.0.0.1:{SLOT_PORT}
  direct_deadline: {scenario.direct_deadline}
  drain: 1
"""


def knowing_one_peer(
    name: str, state: Path, level: str, *, peer: str | None, external: str | None
) -> str:
    """The file of an appliance that knows `peer`, a multiaddr, and nobody else.

    With `external`, its address, it is public; else it is a home.
    """
    node = f"""\
  kind: embedded
  p2p: {"127.0.0.1" if external is None else "0.0.0.0"}:{NODE_PORT}
"""
    if peer is not None:
        node += f'  peers:\n    - "{peer}"\n'
    text = f"""{_head(name, state, level, node)}\
bridge:
  listen: ["0.0.0.0:{BRIDGE_PORT}"]
  drain: 1
"""
    if external is not None:
        return text + f'  external: ["{external}"]\n'
    return text + f"  slots: 127.0.0.1:{SLOT_PORT}\n"
