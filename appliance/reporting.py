"""The running parts, told: the status document and the metrics snapshot, from the same numbers."""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from appliance import __version__
from appliance.bridge.reservations import RelayState
from appliance.bridge.slots import ListeningSlot
from appliance.operate.metrics import (
    DiscoveryMetrics,
    MetricsSnapshot,
    PunchMetrics,
    RelayMetrics,
)
from appliance.operate.status import (
    FaultStatus,
    FdStatus,
    InboundStatus,
    NodeStatus,
    OutboundStatus,
    PunchStatus,
    RelayStatus,
    ReservationStatus,
    RoleStatus,
    SlotStatus,
    Status,
    Usage,
)

if TYPE_CHECKING:
    from appliance.composition import Appliance


def status(appliance: Appliance) -> Status:
    """The answer to `appliance status`."""
    declaration, host, role = appliance.declaration, appliance.host, appliance.role
    punch = appliance.telemetry.punch
    return Status(
        name=declaration.name,
        version=__version__,
        network=declaration.network.value,
        uptime_s=_uptime(appliance),
        peer_id=host.peer_id,
        role=RoleStatus(role.mode, role.effective, appliance.started_wall, (role.evidence,)),
        node=NodeStatus(
            declaration.node.kind, str(appliance.streams.node), appliance.streams.node_reachable
        ),
        listen=tuple(str(endpoint) for endpoint in host.listening),
        external=tuple(str(endpoint) for endpoint in host.announced()),
        relay=_relay(appliance),
        reservations=tuple(
            _reservation(appliance, state) for state in appliance.keeper.relays.values()
        ),
        inbound=_inbound(appliance),
        outbound=_outbound(appliance),
        slots=tuple(_slot(slot) for slot in appliance.slots),
        discovery=None if appliance.discovery is None else appliance.discovery.status(),
        punch=PunchStatus(
            punch.attempts,
            punch.succeeded,
            punch.failed.total(),
            {reason.value: count for reason, count in punch.failed.items()},
        ),
        fds=_fds(appliance),
        faults=_faults(appliance),
    )


def snapshot(appliance: Appliance) -> MetricsSnapshot:
    """What a scrape of the metrics sees."""
    telemetry, relay = appliance.telemetry, appliance.relay
    inbound, streams = _inbound(appliance), appliance.streams
    fds = _fds(appliance)
    open_streams = Counter[tuple[str, str]]((_short(s.direction), s.path) for s in streams.open)
    bytes_now = Counter(telemetry.kaspa_bytes)
    for stream in streams.open:
        bytes_now["out"] += stream.counts.forward
        bytes_now["in"] += stream.counts.backward
    return MetricsSnapshot(
        version=__version__,
        network=appliance.declaration.network.value,
        node_kind=appliance.declaration.node.kind,
        uptime_s=_uptime(appliance),
        public=appliance.role.is_public,
        node_reachable=streams.node_reachable,
        relay=RelayMetrics(
            running=relay.running,
            reservations_opened=telemetry.reservations_granted,
            reservations_renewed=telemetry.reservations_renewed,
            reservations_closed=telemetry.reservations_ended,
            circuits_opened=telemetry.circuits_opened,
            circuits_closed=telemetry.circuits_closed.total(),
            circuit_seconds=telemetry.circuit_seconds,
            bytes_total=relay.bytes_total,
            reservations=Usage(relay.table.reservations, relay.table.limits.reservations),
            circuits=Usage(relay.table.circuits, relay.table.limits.circuits),
        ),
        punch=PunchMetrics(dict(telemetry.punch.outcomes), dict(telemetry.punch.failed)),
        refusals=dict(telemetry.refusals),
        connections_closed=dict(telemetry.connections_closed),
        faults=dict(telemetry.faults),
        streams_opened={
            (_short(direction), path): count
            for (direction, path), count in telemetry.kaspa_streams.items()
        },
        streams_open=dict(open_streams),
        stream_bytes=dict(bytes_now),
        inbound={"private": inbound.private, "unknown_relay": inbound.unknown_relay},
        reservations_held=sum(
            state.state in ("active", "renewing") for state in appliance.keeper.relays.values()
        ),
        slots=dict(Counter(slot.state for slot in appliance.slots)),
        discovery=_discovery(appliance),
        fds=Usage(fds.used, fds.limit),
        connections=len(appliance.host.connections()),
        resident_bytes=_resident_bytes(),
    )


def _discovery(appliance: Appliance) -> DiscoveryMetrics | None:
    if (found := appliance.discovery) is None:
        return None
    return DiscoveryMetrics(
        book=appliance.book.counts(),
        asked=dict(found.counts.asked),
        answered=dict(found.counts.answered),
        failed=dict(found.counts.failed),
        served=found.counts.served,
        records=dict(found.counts.records),
        records_rejected=dict(found.counts.records_rejected),
        addresses=dict(found.counts.addresses),
    )


def _short(direction: str) -> str:
    return "in" if direction == "inbound" else "out"


def _uptime(appliance: Appliance) -> float:
    return round(trio.current_time() - appliance.started, 1)


def _relay(appliance: Appliance) -> RelayStatus:
    relay, limits = appliance.relay, appliance.relay.table.limits
    ports = [endpoint.port for endpoint in appliance.host.listening]
    return RelayStatus(
        running=relay.running,
        port=ports[0] if relay.running and ports else 0,
        reservations=Usage(relay.table.reservations, limits.reservations),
        circuits=Usage(relay.table.circuits, limits.circuits),
        bytes_total=relay.bytes_total,
    )


def _slot(slot: ListeningSlot) -> SlotStatus:
    relay = None if slot.way is None else slot.way.relay
    return SlotStatus(
        slot=str(slot.listening),
        peer=slot.peer_id or "",
        state=slot.state,
        failure=None if slot.failure is None else slot.failure.reason.value,
        origin=slot.origin,
        relay=None if relay is None else str(relay.endpoint),
    )


def _reservation(appliance: Appliance, state: RelayState) -> ReservationStatus:
    member = appliance.relays.pool.members.get(state.endpoint)
    active = state.state in ("active", "renewing")
    return ReservationStatus(
        relay=state.peer_id,
        state=state.state,
        address=f"/ip{6 if state.endpoint.is_ipv6 else 4}/{state.endpoint.host}"
        f"/tcp/{state.endpoint.port}",
        since=state.since,
        expires=state.expires,
        limit_s=(state.limit.seconds or None) if active else None,
        limit_bytes=(state.limit.data_bytes or None) if active else None,
        failure=None if state.failure is None else state.failure.reason.value,
        origin="declared" if member is None or member.declared else "book",
    )


def _inbound(appliance: Appliance) -> InboundStatus:
    budget, caps = appliance.streams.budget, appliance.plan.caps
    node = appliance.node
    direct = 0 if node is None else sum(not peer.outbound for peer in node.peers())
    per_relay = budget.per_relay()
    return InboundStatus(
        # What the bridge brings reaches the node as inbound too; the rest came directly.
        direct=Usage(max(0, direct - budget.used), caps.inbound_direct),
        private=Usage(budget.used, budget.limits.private),
        per_relay={
            relay: Usage(used, budget.limits.per_relay) for relay, used in per_relay.items()
        },
        unknown_relay=Usage(budget.used - sum(per_relay.values()), budget.limits.unknown_relay),
    )


def _outbound(appliance: Appliance) -> tuple[OutboundStatus, ...]:
    now = trio.current_time()
    return tuple(
        OutboundStatus(
            peer=stream.peer_id,
            path=stream.path,
            relay=stream.relay,
            since_s=round(now - stream.opened_at, 1),
            slot=stream.local,
            bytes_in=stream.counts.backward,
            bytes_out=stream.counts.forward,
        )
        for stream in sorted(appliance.streams.open, key=lambda s: s.opened_at)
        if stream.direction == "outbound"
    )


def _fds(appliance: Appliance) -> FdStatus:
    used = sum(1 for _ in Path("/proc/self/fd").iterdir())
    return FdStatus(used, appliance.plan.fds.limit)


def _resident_bytes() -> int:
    """proc_pid_statm(5): the second figure, in pages."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _faults(appliance: Appliance) -> tuple[FaultStatus, ...]:
    telemetry, now = appliance.telemetry, time.time()
    faults = [
        FaultStatus(name, count, *telemetry.last_fault.get(name, (None, "")))
        for name, count in telemetry.faults.items()
    ]
    faults += [
        FaultStatus(state.failure.reason.value, 1, now, f"relay {state.peer_id}")
        for state in appliance.keeper.relays.values()
        if state.failure is not None
    ]
    if appliance.streams.node_reachable is False:
        faults.append(FaultStatus("node-unreachable", 1, now, str(appliance.streams.node)))
    return tuple(faults)
