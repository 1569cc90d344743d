"""Combinations that cannot work, found on the typed declaration; nothing here looks at the machine.

A problem names the fields that it concerns, the one to change first: the reader turns that into a
place in the file, the command line into a flag.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Final

from appliance.declaration.addresses import NodePeer, is_assignable
from appliance.declaration.model import Declaration
from appliance.network import Endpoint
from appliance.policy.reach import is_private

MAX_SOCKET_PATH: Final = 107
"""unix(7): sun_path has 108 bytes, one of them for the terminator."""


@dataclass(frozen=True, slots=True)
class Problem:
    """`paths[0]` is the field to complain about; the others have a part in it."""

    paths: tuple[str, ...]
    message: str


def problems(declaration: Declaration) -> Iterator[Problem]:
    """Everything that is impossible in `declaration`, in no particular order."""
    yield from _hosts(declaration)
    yield from _ports(declaration)
    yield from _collisions(declaration)
    yield from _node(declaration)
    yield from _asked(declaration)
    yield from _role(declaration)
    yield from _relays_and_peers(declaration)
    yield from _external(declaration)
    yield from _caps(declaration)
    yield from _paths(declaration)


def _hosts(declaration: Declaration) -> Iterator[Problem]:
    node, bridge = declaration.node, declaration.bridge
    listeners = [(f"bridge.listen[{i}]", endpoint) for i, endpoint in enumerate(bridge.listen)]
    if declaration.metrics.listen:
        listeners.append(("metrics.listen", declaration.metrics.listen))
    if node.kind == "embedded":
        listeners.append(("node.p2p", node.p2p))
    for path, endpoint in listeners:
        if not _is_unspecified(endpoint) and not is_assignable(endpoint.host):
            yield Problem((path,), f"no machine can listen on {endpoint.host}")
    dialled = [(f"node.addpeer[{i}]", endpoint) for i, endpoint in enumerate(node.addpeer)]
    dialled += [(f"node.connect[{i}]", endpoint) for i, endpoint in enumerate(node.connect)]
    if node.kind != "embedded":
        dialled.append(("node.p2p", node.p2p))
    for path, endpoint in dialled:
        if path == "node.p2p" and node.kind == "remote" and _is_here(endpoint):
            message = f"{endpoint} is no other machine; for a kaspad on this one use kind: kaspad"
            yield Problem((path, "node.kind"), message)
        elif not is_assignable(endpoint.host) or endpoint.port == 0:
            yield Problem((path,), f"{endpoint} cannot be dialled")
    slots = bridge.slots.host
    if not _is_unspecified(bridge.slots) and not is_assignable(slots):
        yield Problem(("bridge.slots",), f"no machine can listen on {slots}")
    elif not is_private(slots):
        message = f"{slots} would open the slots to strangers; use a loopback address"
        yield Problem(("bridge.slots",), message)


def _ports(declaration: Declaration) -> Iterator[Problem]:
    first, count = declaration.bridge.slots.port, len(declaration.bridge.peers)
    if first + count - 1 > 65535:
        message = f"{count} slots from port {first} on run past port 65535"
        yield Problem(("bridge.slots", "bridge.peers"), message)
    if first == 0 and count and declaration.node.kind != "embedded":
        message = "port 0 leaves the slots' ports open, but kaspad must be told them by --addpeer"
        yield Problem(("bridge.slots", "node.kind"), message)


def _collisions(declaration: Declaration) -> Iterator[Problem]:
    node = declaration.node
    sockets: list[tuple[str, str, Endpoint]] = []
    # A kaspad at any other address may be on another machine.
    if node.kind == "embedded" or _is_loopback(node.p2p):
        sockets.append(("node.p2p", "the node", node.p2p))
    for index, endpoint in enumerate(declaration.bridge.listen):
        sockets.append((f"bridge.listen[{index}]", "the bridge", endpoint))
    if declaration.metrics.listen:
        sockets.append(("metrics.listen", "metrics", declaration.metrics.listen))
    for index in range(len(declaration.bridge.peers)):
        slot = declaration.slot(index)
        if slot.port <= 65535:
            sockets.append(("bridge.slots", f"slot {index}", slot))
    reported: set[tuple[str, str]] = set()
    for (path_a, name_a, a), (path_b, name_b, b) in combinations(sockets, 2):
        if path_a == path_b or (path_a, path_b) in reported or not _overlap(a, b):
            continue
        reported.add((path_a, path_b))
        message = f"{name_b} on {b} ({path_b}) and {name_a} on {a} ({path_a}) collide"
        yield Problem((path_b, path_a), message)


def _asked(declaration: Declaration) -> Iterator[Problem]:
    """Whom we ask for addresses."""
    node = declaration.node
    seen: dict[NodePeer, int] = {}
    for index, peer in enumerate(node.peers):
        path = f"node.peers[{index}]"
        if isinstance(peer, Endpoint) and (not is_assignable(peer.host) or peer.port == 0):
            yield Problem((path,), f"{peer} cannot be dialled")
        if peer in seen:
            yield Problem((path,), f"is the same node as node.peers[{seen[peer]}]")
        seen.setdefault(peer, index)
    if node.rpc is None:
        return
    if node.kind == "embedded":
        message = "only a kaspad has an RPC; the embedded node is asked without it"
        yield Problem(("node.rpc", "node.kind"), message)
    elif node.rpc.port == 0 or not (
        # What follows from a wrong p2p is said there.
        is_assignable(node.rpc.host) or node.rpc.host == node.dial.host
    ):
        yield Problem(("node.rpc",), f"{node.rpc} cannot be dialled")


def _node(declaration: Declaration) -> Iterator[Problem]:
    node, bridge = declaration.node, declaration.bridge
    if node.kind == "embedded":
        return
    if node.kind == "remote" and bridge.peers and _is_loopback(bridge.slots):
        message = (
            f"a node on another machine cannot dial slots on {bridge.slots.host}; give "
            "bridge.slots the address of this machine in the LAN"
        )
        yield Problem(("bridge.slots", "node.kind", "bridge.peers"), message)
    for path, given in (("node.addpeer", node.addpeer), ("node.connect", node.connect)):
        if given:
            flag = path.replace("node.", "--")
            message = f"only the embedded node takes it; give kaspad itself {flag}={given[0]}"
            yield Problem((path, "node.kind"), message)


def _role(declaration: Declaration) -> Iterator[Problem]:
    bridge = declaration.bridge
    if bridge.relay_mode != "on" or bridge.dial_private:
        return
    if all(_is_loopback(endpoint) for endpoint in bridge.listen):
        listen = ", ".join(map(str, bridge.listen))
        message = (
            f"'on' is impossible while bridge.listen is loopback only ({listen}); "
            "bridge.dial_private allows it for a laboratory"
        )
        yield Problem(("bridge.relay_mode", "bridge.listen", "bridge.dial_private"), message)


def _relays_and_peers(declaration: Declaration) -> Iterator[Problem]:
    bridge = declaration.bridge
    owners: dict[Endpoint, tuple[int, str]] = {}
    for index, relay in enumerate(bridge.relays):
        path = f"bridge.relays[{index}]"
        if relay.endpoint not in owners:
            owners[relay.endpoint] = (index, relay.peer_id)
            continue
        first, owner = owners[relay.endpoint]
        if owner == relay.peer_id:
            yield Problem((path,), f"is the same relay as bridge.relays[{first}]")
        else:
            message = f"{relay.endpoint} already belongs to another peer id, bridge.relays[{first}]"
            yield Problem((path, f"bridge.relays[{first}]"), message)
    seen: dict[str, int] = {}
    for index, peer in enumerate(bridge.peers):
        path = f"bridge.peers[{index}]"
        if peer.peer_id in seen:
            message = f"is the same peer as bridge.peers[{seen[peer.peer_id]}]"
            yield Problem((path,), message)
        seen.setdefault(peer.peer_id, index)
        if peer.via is None and not bridge.relays:
            message = (
                "no relay to reach it through: add one to bridge.relays, or write "
                "RELAY/p2p-circuit/p2p/PEERID"
            )
            yield Problem((path, "bridge.relays"), message)
        if peer.via is None and {relay.peer_id for relay in bridge.relays} == {peer.peer_id}:
            yield Problem((path, "bridge.relays"), "is itself the only relay in bridge.relays")


def _external(declaration: Declaration) -> Iterator[Problem]:
    bridge = declaration.bridge
    has_ipv6 = any(endpoint.is_ipv6 for endpoint in bridge.listen)
    fixed = any(endpoint.port for endpoint in bridge.listen)
    for index, endpoint in enumerate(bridge.external):
        path = f"bridge.external[{index}]"
        if not is_assignable(endpoint.host):
            yield Problem((path,), f"nobody can reach {endpoint.host}")
        elif not bridge.dial_private and is_private(endpoint.host):
            message = (
                f"the internet cannot reach {endpoint.host}, a private address; "
                "bridge.dial_private allows it for a laboratory"
            )
            yield Problem((path, "bridge.dial_private"), message)
        if endpoint.is_ipv6 and not has_ipv6:
            message = f"{endpoint.host} is IPv6, but no address of bridge.listen is"
            yield Problem((path, "bridge.listen"), message)
        if endpoint.port == 0 and not fixed:
            message = "needs a port, since bridge.listen leaves its own open (port 0)"
            yield Problem((path, "bridge.listen"), message)
        if endpoint in bridge.external[:index]:
            yield Problem((path,), f"{endpoint} is given twice")


def _caps(declaration: Declaration) -> Iterator[Problem]:
    """What is said outright must not contradict itself; what the machine allows is the plan's."""
    caps, bridge, node = declaration.caps, declaration.bridge, declaration.node
    target = ("bridge.private_inbound_target", bridge.private_inbound_target)
    circuits = ("caps.relay_circuits", caps.relay_circuits)
    reservations = ("caps.relay_reservations", caps.relay_reservations)
    rate = ("caps.relay_bytes_per_second", caps.relay_bytes_per_second)
    parts = (
        ("bridge.per_relay_inbound", bridge.per_relay_inbound, "through one relay", target),
        ("caps.unknown_relay_inbound", caps.unknown_relay_inbound, "by unknown relays", target),
        ("caps.relay_circuits_per_peer", caps.relay_circuits_per_peer, "of one peer", circuits),
        (
            "caps.relay_reservations_per_ip",
            caps.relay_reservations_per_ip,
            "from one IP address",
            reservations,
        ),
        (
            "caps.relay_circuit_bytes_per_second",
            caps.relay_circuit_bytes_per_second,
            "for one circuit",
            rate,
        ),
    )
    for path, part, which, (whole_path, whole) in parts:
        if part is not None and whole is not None and part > whole:
            message = f"{part} {which} is more than the {whole} of them all"
            yield Problem((path, whole_path), message)
    dials = "node.connect" if node.connect else "node.addpeer"
    wanted = (
        ("caps.outbound_private", caps.outbound_private, "bridge.peers", len(bridge.peers)),
        ("caps.outbound_direct", caps.outbound_direct, dials, len(node.connect or node.addpeer)),
    )
    for path, cap, list_path, count in wanted:
        if cap is not None and cap < count:
            yield Problem((path, list_path), f"{cap} is too few for the {count} of {list_path}")


def _paths(declaration: Declaration) -> Iterator[Problem]:
    socket, state, key = (
        declaration.control.socket,
        declaration.state.dir,
        declaration.identity.key.path,
    )
    length = len(str(socket).encode())
    if length > MAX_SOCKET_PATH:
        message = f"{length} bytes; a Unix socket's path has at most {MAX_SOCKET_PATH}"
        yield Problem(("control.socket", "state.dir"), message)
    if socket == state or socket in state.parents:
        yield Problem(("control.socket", "state.dir"), f"{socket} is a directory (state.dir)")
    if key == state or key in state.parents:
        yield Problem(("identity.key", "state.dir"), "is a directory (state.dir)")
    if key == socket:
        yield Problem(("identity.key", "control.socket"), "is the control socket (control.socket)")


def _overlap(a: Endpoint, b: Endpoint) -> bool:
    if a.port != b.port or a.port == 0 or a.is_ipv6 != b.is_ipv6:
        return False
    return a.host == b.host or _is_unspecified(a) or _is_unspecified(b)


def _is_unspecified(endpoint: Endpoint) -> bool:
    return ipaddress.ip_address(endpoint.host).is_unspecified


def _is_loopback(endpoint: Endpoint) -> bool:
    return ipaddress.ip_address(endpoint.host).is_loopback


def _is_here(endpoint: Endpoint) -> bool:
    """Whether the address means this machine, also as IPv6 writes IPv4."""
    address = ipaddress.ip_address(endpoint.host)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return address.is_loopback or address.is_unspecified
