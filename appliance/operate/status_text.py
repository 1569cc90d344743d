"""The status document for people: plain words, at most 80 columns."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Iterable, Iterator
from typing import Final

from appliance.operate.safetext import one_line
from appliance.operate.status import (
    FaultStatus,
    OutboundStatus,
    RelayStatus,
    ReservationStatus,
    SlotStatus,
    Status,
    Usage,
)
from appliance.units import human_bytes, human_seconds

WIDTH: Final = 80
_LABEL: Final = 11  # columns before the text
_SHOWN: Final = 12  # rows of one list; the rest is counted


def render(status: Status, now: float | None = None) -> str:
    """Lines without a newline at the end; `now` is Unix seconds (default: the wall clock)."""
    return "\n".join(_lines(status, time.time() if now is None else now))


def _lines(status: Status, now: float) -> Iterator[str]:
    yield from _wrap(
        "appliance",
        f"{status.name} on {status.network}, version {status.version}, "
        f"up {human_seconds(status.uptime_s)}",
    )
    yield from _wrap("peer id", status.peer_id)
    role = status.role
    since = human_seconds(max(0.0, now - role.since))
    yield from _wrap("role", f"{role.effective} for {since} (relay_mode: {role.mode})")
    for sentence in role.evidence[:_SHOWN]:
        yield from _wrap("", sentence, indent=_LABEL + 2)
    yield from _wrap("listens", ", ".join(status.listen) or "nowhere")
    yield from _wrap("external", ", ".join(status.external) or "no address known")
    reachable = {True: "reachable", False: "NOT reachable", None: "not tried yet"}
    node = status.node
    yield from _wrap("node", f"{node.kind} at {node.p2p}, {reachable[node.reachable]}")
    yield from _wrap("relay", _relay(status.relay))
    yield from _rows("reserved", "at no relay", [_reservation(r, now) for r in status.reservations])
    inbound = status.inbound
    yield from _wrap("inbound", f"direct {_of(inbound.direct)}, private {_of(inbound.private)}")
    for relay, usage in list(inbound.per_relay.items())[:_SHOWN]:
        yield from _wrap("", f"via {_short(relay)} {_of(usage)}", indent=_LABEL + 2)
    if inbound.unknown_relay.used:
        text = f"via relays that we do not know {_of(inbound.unknown_relay)}"
        yield from _wrap("", text, indent=_LABEL + 2)
    yield from _rows("outbound", "none", [_outbound(stream) for stream in status.outbound])
    yield from _rows("slots", "none", list(_slots(status.slots)))
    if (found := status.discovery) is not None:
        yield from _wrap(
            "found",
            f"{found.known} addresses, {found.relays} relays, {found.private} private peers; "
            f"asked {found.asked} times, answered {found.answered}, served {found.served}",
        )
    punch = status.punch
    causes = ", ".join(f"{cause} {count}" for cause, count in punch.by_cause.items())
    yield from _wrap(
        "punches",
        f"{punch.attempts} tried, {punch.succeeded} succeeded, {punch.failed} failed"
        + (f" ({causes})" if causes else ""),
    )
    yield from _wrap("files", f"{status.fds.used} of {status.fds.limit} open")
    yield from _rows("faults", "none", [_fault(fault, now) for fault in status.faults])


def _wrap(label: str, text: str, indent: int = _LABEL) -> Iterator[str]:
    yield from textwrap.wrap(
        one_line(text),
        WIDTH,
        initial_indent=label.ljust(indent),
        subsequent_indent=" " * (_LABEL + 2),
        break_on_hyphens=False,
    )


def _rows(label: str, none: str, rows: list[str]) -> Iterator[str]:
    if not rows:
        yield from _wrap(label, none)
    for row, text in enumerate(rows[:_SHOWN]):
        yield from _wrap("" if row else label, text)
    if len(rows) > _SHOWN:
        yield f"{'':{_LABEL}}and {len(rows) - _SHOWN} more (see --json)"


def _short(peer: str) -> str:
    """A peer id that a person can compare; the whole one is in the JSON document."""
    return peer if len(peer) <= 20 else f"{peer[:8]}…{peer[-8:]}"


def _of(usage: Usage) -> str:
    return f"{usage.used} of {usage.cap}"


def _relay(relay: RelayStatus) -> str:
    if not relay.running:
        return "we do not relay for others"
    return (
        f"serving on port {relay.port}: {_of(relay.reservations)} reservations, "
        f"{_of(relay.circuits)} circuits, {human_bytes(relay.bytes_total)} carried"
    )


def _reservation(item: ReservationStatus, now: float) -> str:
    found = " (found)" if item.origin == "book" else ""
    parts = [f"{_short(item.relay)}{found} {item.state}"]
    if item.expires is not None:
        left = item.expires - now
        parts.append(f"{human_seconds(left)} left" if left > 0 else "expired")
    limits: Iterable[str] = [
        *([human_seconds(item.limit_s)] if item.limit_s else []),
        *([f"{human_bytes(item.limit_bytes)} each way"] if item.limit_bytes else []),
    ]
    if joined := " or ".join(limits):
        parts.append(f"cuts circuits after {joined}")
    if item.failure:
        parts.append(item.failure)
    return ", ".join(parts)


def _outbound(item: OutboundStatus) -> str:
    path = f"relayed by {_short(item.relay)}" if item.relay else item.path
    return (
        f"{_short(item.peer)} {path} for {human_seconds(item.since_s)}, "
        f"{human_bytes(item.bytes_in)} in, {human_bytes(item.bytes_out)} out"
    )


def _slots(slots: Iterable[SlotStatus]) -> Iterator[str]:
    """Those that lead to somebody one by one, the vacant ones together."""
    vacant: dict[str | None, list[str]] = {}
    for item in slots:
        if item.peer:
            yield _slot(item)
        else:
            vacant.setdefault(item.failure, []).append(item.slot)
    for failure, places in vacant.items():
        more = f" and {len(places) - 1} more" if len(places) > 1 else ""
        why = f" ({failure})" if failure else ""
        yield f"{places[0]}{more}: vacant{why}"


def _slot(item: SlotStatus) -> str:
    why = f" ({item.failure})" if item.failure else ""
    found = " (found)" if item.origin == "book" else ""
    return f"{item.slot} for {_short(item.peer)}{found}: {item.state}{why}"


def _fault(item: FaultStatus, now: float) -> str:
    ago = f", last {human_seconds(max(0.0, now - item.last))} ago" if item.last else ""
    detail = f": {item.detail}" if item.detail else ""
    return f"{item.name}, {item.count} times{ago}{detail}"
