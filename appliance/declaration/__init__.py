"""Documents → frozen, typed objects; every fault at once, with its place."""

from __future__ import annotations

from appliance.declaration.addresses import PrivatePeer, RelayAddress
from appliance.declaration.faults import DeclarationErrors
from appliance.declaration.load import load, loads
from appliance.declaration.model import (
    BridgeSpec,
    CapsSpec,
    ControlSpec,
    Declaration,
    HardwareSpec,
    IdentitySpec,
    LogSpec,
    MetricsSpec,
    NodeSpec,
    RelaySpec,
    StateSpec,
)
from appliance.declaration.secrets import Secret, SecretFile

__all__ = [
    "BridgeSpec",
    "CapsSpec",
    "ControlSpec",
    "Declaration",
    "DeclarationErrors",
    "HardwareSpec",
    "IdentitySpec",
    "LogSpec",
    "MetricsSpec",
    "NodeSpec",
    "PrivatePeer",
    "RelayAddress",
    "RelaySpec",
    "Secret",
    "SecretFile",
    "StateSpec",
    "load",
    "loads",
]
