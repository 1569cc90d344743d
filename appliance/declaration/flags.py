"""The flags of `appliance run` that override a declaration.

A value that cannot be read is wrong usage (argparse, exit code 2); one that makes the declaration
impossible is an `ApplianceError` that names the flag (exit code 1).
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

from appliance.declaration import checks
from appliance.declaration.kinds_address import parse_external
from appliance.declaration.model import BridgeSpec, CapsSpec, Declaration, NodeSpec
from appliance.errors import ApplianceError
from appliance.network import Endpoint

Address = tuple[str, int | None]
"""An IP and a port, None where the flag gave no port."""


@dataclass(frozen=True, slots=True)
class RunFlags:
    """The flags as given; None and empty ones change nothing."""

    libp2p_relay_mode: Literal["auto", "on", "off"] | None = None
    libp2p_relay_port: int | None = None
    libp2p_private_inbound_target: int | None = None
    libp2p_relay_inbound_cap: int | None = None
    libp2p_relay_inbound_unknown_cap: int | None = None
    externalip: tuple[Address, ...] = ()
    listen: Address | None = None
    connect: tuple[Address, ...] = ()
    addpeer: tuple[Address, ...] = ()


# Which flag stands for a field when the result is impossible.
_FLAG_OF: Final = {
    "bridge.relay_mode": "libp2p_relay_mode",
    "bridge.listen": "libp2p_relay_port",
    "bridge.private_inbound_target": "libp2p_private_inbound_target",
    "bridge.per_relay_inbound": "libp2p_relay_inbound_cap",
    "caps.unknown_relay_inbound": "libp2p_relay_inbound_unknown_cap",
    "bridge.external": "externalip",
    "node.p2p": "listen",
    "node.connect": "connect",
    "node.addpeer": "addpeer",
}


def add_run_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags, as a group of their own, each with the field that it overrides."""
    group = parser.add_argument_group("flags that override the declaration")
    group.add_argument(
        "--libp2p-relay-mode", choices=("auto", "on", "off"), help="bridge.relay_mode"
    )
    group.add_argument(
        "--libp2p-relay-port",
        metavar="N",
        type=_whole(1, 65535),
        help="the port of every address in bridge.listen",
    )
    group.add_argument(
        "--libp2p-private-inbound-target",
        metavar="N",
        type=_whole(0, 1024),
        help="bridge.private_inbound_target",
    )
    group.add_argument(
        "--libp2p-relay-inbound-cap",
        metavar="N",
        type=_whole(1, 1024),
        help="bridge.per_relay_inbound",
    )
    group.add_argument(
        "--libp2p-relay-inbound-unknown-cap",
        metavar="N",
        type=_whole(0, 1024),
        help="caps.unknown_relay_inbound",
    )
    group.add_argument(
        "--listen",
        metavar="IP[:PORT]",
        type=_address,
        help="node.p2p: where the node accepts Kaspa P2P; a routable IP is evidence of a public "
        "role",
    )
    several = {
        "--externalip": "bridge.external; may be repeated",
        "--connect": "node.connect: the embedded node dials only these, and no slots; may be "
        "repeated",
        "--addpeer": "one more peer for node.addpeer (embedded node); may be repeated",
    }
    for flag, text in several.items():
        group.add_argument(
            flag, metavar="IP[:PORT]", action="append", type=_address, default=[], help=text
        )


def apply_run_flags(declaration: Declaration, args: argparse.Namespace) -> Declaration:
    """`declaration` with the flags of `add_run_flags` in `args`. Raises `ApplianceError`."""
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name in (field.name for field in dataclasses.fields(RunFlags))
        if (value := getattr(args, name)) is not None
    }
    return override(declaration, RunFlags(**values))


def override(declaration: Declaration, flags: RunFlags) -> Declaration:
    """`declaration` with `flags` in force. Raises `ApplianceError` if that is impossible."""
    changed = dataclasses.replace(
        declaration,
        node=_node(declaration, flags),
        bridge=_bridge(declaration.bridge, flags),
        caps=_caps(declaration.caps, flags),
    )
    given = {field for field, name in _FLAG_OF.items() if getattr(flags, name) not in (None, ())}
    for problem in checks.problems(changed):
        fields = [path.partition("[")[0] for path in problem.paths]
        field = next((field for field in fields if field in given), None)
        if field is not None:
            flag = "--" + _FLAG_OF[field].replace("_", "-")
            raise ApplianceError(f"{flag}: {problem.message}")
    return changed


def _node(declaration: Declaration, flags: RunFlags) -> NodeSpec:
    node, port = declaration.node, declaration.network.p2p_port
    if flags.listen is not None:
        node = dataclasses.replace(node, p2p=_endpoint(flags.listen, port))
        if node.kind != "embedded":  # there is nothing to dial at 0.0.0.0
            node = dataclasses.replace(node, p2p=node.dial)
    if flags.connect:
        connect = tuple(_endpoint(address, port) for address in flags.connect)
        node = dataclasses.replace(node, connect=connect)
    if flags.addpeer:
        added = (_endpoint(address, port) for address in flags.addpeer)
        node = dataclasses.replace(node, addpeer=tuple(dict.fromkeys((*node.addpeer, *added))))
    return node


def _bridge(bridge: BridgeSpec, flags: RunFlags) -> BridgeSpec:
    if flags.libp2p_relay_mode is not None:
        bridge = dataclasses.replace(bridge, relay_mode=flags.libp2p_relay_mode)
    if flags.libp2p_relay_port is not None:
        moved = (Endpoint(endpoint.host, flags.libp2p_relay_port) for endpoint in bridge.listen)
        bridge = dataclasses.replace(bridge, listen=tuple(dict.fromkeys(moved)))
    if flags.libp2p_private_inbound_target is not None:
        target = flags.libp2p_private_inbound_target
        bridge = dataclasses.replace(bridge, private_inbound_target=target)
    if flags.libp2p_relay_inbound_cap is not None:
        bridge = dataclasses.replace(bridge, per_relay_inbound=flags.libp2p_relay_inbound_cap)
    if flags.externalip:
        port = next((endpoint.port for endpoint in bridge.listen if endpoint.port), 0)
        external = tuple(_endpoint(address, port) for address in flags.externalip)
        bridge = dataclasses.replace(bridge, external=external)
    return bridge


def _caps(caps: CapsSpec, flags: RunFlags) -> CapsSpec:
    unknown = flags.libp2p_relay_inbound_unknown_cap
    return caps if unknown is None else dataclasses.replace(caps, unknown_relay_inbound=unknown)


def _endpoint(address: Address, default_port: int) -> Endpoint:
    host, port = address
    return Endpoint(host, default_port if port is None else port)


def _address(text: str) -> Address:
    try:
        return parse_external(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} {error}") from None


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) < 10 and low <= int(text) <= high):
            message = f"{text!r} is not a whole number from {low} to {high}"
            raise argparse.ArgumentTypeError(message)
        return int(text)

    return parse
