"""The YAML files of the laboratory's hosts, as a user would write them."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from appliance.lab.scenarios import Scenario
from appliance.lab.topology import RELAY_IP
from appliance.network import Network

NETWORK: Final = Network.SIMNET
NODE_PORT: Final = NETWORK.p2p_port
BRIDGE_PORT: Final = NODE_PORT + 1
SLOT_PORT: Final = NODE_PORT + 9


def _head(name: str, state: Path, level: str) -> str:
    return f"""\
apiVersion: appliance/v1
kind: Appliance
metadata:
  name: {name}
hardware:
  profile: detect
network: {NETWORK.value}
node:
  kind: kaspad
  p2p: 127.0.0.1:{NODE_PORT}
state:
  dir: {state}
metrics:
  listen: "off"
log:
  level: {level}
  format: json
"""


def relay_multiaddr(peer_id: str) -> str:
    """Where the relay is, for the homes' declarations."""
    return f"/ip4/{RELAY_IP}/tcp/{BRIDGE_PORT}/p2p/{peer_id}"


def relay(scenario: Scenario, state: Path, level: str) -> str:
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
    scenario: Scenario,
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
