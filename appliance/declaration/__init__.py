"""Documents → frozen, typed objects; every fault at once, with its place."""

from __future__ import annotations

from appliance.declaration.addresses import PrivatePeer, RelayAddress
from appliance.declaration.faults import DeclarationErrors
from appliance.declaration.load import load, loads
from appliance.declaration.model import (
    BridgeSpec,
    ControlSpec,
    Declaration,
    HardwareSpec,
    LogSpec,
    MetricsSpec,
    NodeSpec,
    RelaySpec,
    StateSpec,
)

__all__ = [
    "BridgeSpec",
    "ControlSpec",
    "Declaration",
    "DeclarationErrors",
    "HardwareSpec",
    "LogSpec",
    "MetricsSpec",
    "NodeSpec",
    "PrivatePeer",
    "RelayAddress",
    "RelaySpec",
    "StateSpec",
    "load",
    "loads",
]
