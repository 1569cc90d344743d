"""What Prometheus reads. Names and labels of `libp2p_*` are go-libp2p's, so its dashboards fit.

Sources of the names: go-libp2p, p2p/protocol/circuitv2/relay/metrics.go and
p2p/protocol/holepunch/metrics.go. Every label value comes from a closed list of ours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from appliance.operate.status import Usage
from appliance.reasons import Reason

MAX_SERIES: Final = 128  # of one metric; what is more shows as `other`

SIDES: Final = ("initiator", "receiver")
_PREFIX: Final = "kaspa_appliance"
_UNUSED: Final = Usage()


@dataclass(frozen=True, slots=True)
class RelayMetrics:
    """Our relay service since the start; refusals stand in `MetricsSnapshot.refusals`."""

    running: bool = False
    reservations_opened: int = 0
    reservations_renewed: int = 0
    reservations_closed: int = 0
    circuits_opened: int = 0
    circuits_closed: int = 0
    circuit_seconds: float = 0.0  # lifetimes of the closed circuits, summed
    bytes_total: int = 0  # both ways
    reservations: Usage = _UNUSED
    circuits: Usage = _UNUSED


@dataclass(frozen=True, slots=True)
class PunchMetrics:
    """Hole punches since the start.

    `outcomes` by (side, number of attempts, outcome): side is one of `SIDES`, the number counts
    from 1, the outcome is success, failed or no_suitable_address.
    """

    outcomes: Mapping[tuple[str, int, str], int] = field(default_factory=dict)
    failures: Mapping[Reason, int] = field(default_factory=dict)
    direct_dials_succeeded: int = 0  # dials that made a punch needless
    direct_dials_failed: int = 0


@dataclass(frozen=True, slots=True)
class DiscoveryMetrics:
    """The search for relays and private peers since the start."""

    book: Mapping[str, int] = field(default_factory=dict)
    """What the address book holds, by kind."""
    asked: Mapping[str, int] = field(default_factory=dict)
    """Exchanges that we began, by way; `answered` too."""
    answered: Mapping[str, int] = field(default_factory=dict)
    failed: Mapping[tuple[str, Reason], int] = field(default_factory=dict)
    served: int = 0
    records: Mapping[str, int] = field(default_factory=dict)
    """Signed records heard, by what became of them."""
    records_rejected: Mapping[Reason, int] = field(default_factory=dict)
    addresses: Mapping[str, int] = field(default_factory=dict)
    """Addresses heard, by what became of them."""


@dataclass(frozen=True, slots=True)
class MetricsSnapshot:
    """Everything that is counted, at one moment. Counters never go back while the process lives."""

    version: str
    network: str
    node_kind: str
    uptime_s: float
    public: bool
    node_reachable: bool | None = None  # None: not tried yet, and not shown
    relay: RelayMetrics = RelayMetrics()
    punch: PunchMetrics = PunchMetrics()
    refusals: Mapping[tuple[str, Reason], int] = field(default_factory=dict)
    """By subject (reservation, circuit, connection, stream, stop, kaspa, slot) and reason."""
    connections_closed: Mapping[Reason, int] = field(default_factory=dict)
    faults: Mapping[str, int] = field(default_factory=dict)
    """Our own bugs that were stopped, by the protocol or task they ended."""
    streams_opened: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """Kaspa streams by (direction, path): in or out, direct or relayed."""
    streams_open: Mapping[tuple[str, str], int] = field(default_factory=dict)
    stream_bytes: Mapping[str, int] = field(default_factory=dict)
    """By direction as the node sees it: in, out."""
    inbound: Mapping[str, Usage] = field(default_factory=dict)
    """By kind: direct, private, unknown_relay."""
    reservations_held: int = 0  # ours, at relays
    slots: Mapping[str, int] = field(default_factory=dict)
    """By state, as in the status document."""
    discovery: DiscoveryMetrics | None = None  # None: switched off, and not shown
    fds: Usage = _UNUSED
    connections: int = 0  # libp2p connections, those inside circuits included
    resident_bytes: int = 0


def expose(snapshot: MetricsSnapshot) -> bytes:
    """The snapshot in Prometheus' text format 0.0.4."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(lambda: snapshot))
    return generate_latest(registry)


class _Collector:
    """A collector whose every sample comes from one snapshot."""

    def __init__(self, collect: Callable[[], MetricsSnapshot]) -> None:
        self._collect = collect

    def describe(self) -> Iterable[Metric]:
        return ()  # else registering would ask for a snapshot only to learn the names

    def collect(self) -> Iterator[Metric]:
        snapshot = self._collect()
        yield from _relay_service(snapshot)
        yield from _hole_punching(snapshot.punch)
        yield from _appliance(snapshot)
        if snapshot.discovery is not None:
            yield from _discovery(snapshot.discovery)


def _relay_service(snapshot: MetricsSnapshot) -> Iterator[Metric]:
    relay = snapshot.relay
    yield GaugeMetricFamily("libp2p_relaysvc_status", "Relay Status", float(relay.running))
    yield _counter(
        "libp2p_relaysvc_reservations_total",
        "Relay Reservation Request",
        ("type",),
        {
            ("opened",): relay.reservations_opened,
            ("renewed",): relay.reservations_renewed,
            ("closed",): relay.reservations_closed,
        },
    )
    granted = relay.reservations_opened + relay.reservations_renewed
    yield from _requests(snapshot, "reservation", "reservation", granted)
    yield _counter(
        "libp2p_relaysvc_connections_total",
        "Relay Connection Total",
        ("type",),
        {("opened",): relay.circuits_opened, ("closed",): relay.circuits_closed},
    )
    yield from _requests(snapshot, "connection", "circuit", relay.circuits_opened)
    duration = HistogramMetricFamily(
        "libp2p_relaysvc_connection_duration_seconds", "Relay Connection Duration"
    )
    # Without finer buckets: the dashboards divide sum by count.
    duration.add_metric((), [("+Inf", relay.circuits_closed)], relay.circuit_seconds)
    yield duration
    yield _counter(
        "libp2p_relaysvc_data_transferred_bytes_total",
        "Bytes Transferred Total",
        (),
        {(): relay.bytes_total},
    )


def _requests(snapshot: MetricsSnapshot, name: str, subject: str, granted: int) -> Iterator[Metric]:
    """Answers to requests of one kind, from the wire status that each of our refusals maps to."""
    answers = Counter({("ok",): granted, ("rejected",): 0, ("error",): 0})
    rejections = Counter({(words,): 0 for words in _REJECTIONS.values()})
    for (refused, reason), count in snapshot.refusals.items():
        if refused != subject:
            continue
        words = _REJECTIONS.get(reason.wire_status)
        answers["error" if words is None else "rejected",] += count
        if words is not None:
            rejections[words,] += count
    title = name.capitalize()
    yield _counter(
        f"libp2p_relaysvc_{name}_request_response_status_total",
        f"Relay {title} Request Response Status",
        ("status",),
        answers,
    )
    yield _counter(
        f"libp2p_relaysvc_{name}_rejections_total",
        f"Relay {title} Rejected Reason",
        ("reason",),
        rejections,
    )


# go-libp2p's words for the circuit v2 statuses that it counts as rejections.
_REJECTIONS: Final = {
    200: "ip constraint violation",
    201: "resource limit exceeded",
    202: "permission denied",
    204: "no reservation",
    400: "malformed message",
}


def _hole_punching(punch: PunchMetrics) -> Iterator[Metric]:
    yield _counter(
        "libp2p_holepunch_direct_dials_total",
        "Direct Dials Total",
        ("outcome",),
        {
            ("success",): punch.direct_dials_succeeded,
            ("failed",): punch.direct_dials_failed,
        },
    )
    # All series from the start, so that the first punch already shows as an increase.
    outcomes = Counter(
        {
            (side, str(attempts), outcome): 0
            for side in SIDES
            for attempts in (1, 2, 3)
            for outcome in ("success", "failed", "no_suitable_address")
        }
    )
    for (side, attempts, outcome), count in punch.outcomes.items():
        outcomes[side, str(attempts) if attempts <= 5 else "> 5", outcome] += count
    yield _counter(
        "libp2p_holepunch_outcomes_total",
        "Hole Punch outcomes overall",
        ("side", "num_attempts", "outcome"),
        outcomes,
    )
    yield _counter(
        f"{_PREFIX}_punch_failures_total",
        "Hole punches that failed, by cause.",
        ("reason",),
        {(reason.value,): count for reason, count in punch.failures.items()},
    )


def _appliance(snapshot: MetricsSnapshot) -> Iterator[Metric]:
    info = GaugeMetricFamily(f"{_PREFIX}_info", "Always 1.", labels=("version", "network", "node"))
    info.add_metric((snapshot.version, snapshot.network, snapshot.node_kind), 1.0)
    yield info
    yield _gauge("uptime_seconds", "Since the daemon started.", (), {(): snapshot.uptime_s})
    yield _gauge(
        "public", "1 if others can dial us, 0 if we depend on relays.", (), {(): snapshot.public}
    )
    if snapshot.node_reachable is not None:
        yield _gauge(
            "node_reachable",
            "1 if the Kaspa node beside us accepts connections.",
            (),
            {(): snapshot.node_reachable},
        )
    yield _own(
        "refusals_total",
        "Requests refused, by what was asked for and why.",
        ("subject", "reason"),
        {(subject, reason.value): n for (subject, reason), n in snapshot.refusals.items()},
    )
    yield _own(
        "connections_closed_total",
        "Connections to peers that ended, by reason.",
        ("reason",),
        {(reason.value,): count for reason, count in snapshot.connections_closed.items()},
    )
    yield _own(
        "faults_total",
        "Faults of our own that ended a stream or a task.",
        ("where",),
        {(where,): count for where, count in snapshot.faults.items()},
    )
    yield from _streams(snapshot)
    yield from _usage("inbound_streams", "Inbound Kaspa streams", "kind", snapshot.inbound)
    relay = snapshot.relay
    usages = {"reservations": relay.reservations, "circuits": relay.circuits}
    yield from _usage("relay", "Reservations and circuits of our relay service", "of", usages)
    yield _gauge(
        "reservations_held",
        "Reservations of ours at relays.",
        (),
        {(): snapshot.reservations_held},
    )
    yield _gauge(
        "slots",
        "Slots for private peers, by state.",
        ("state",),
        {(state,): count for state, count in snapshot.slots.items()},
    )
    yield _gauge("open_fds", "Open file descriptors.", (), {(): snapshot.fds.used})
    yield _gauge("max_fds", "Limit of open file descriptors.", (), {(): snapshot.fds.cap})
    yield _gauge("connections", "libp2p connections open now.", (), {(): snapshot.connections})
    resident = {(): snapshot.resident_bytes}
    yield _gauge("resident_memory_bytes", "Memory of the daemon in use.", (), resident)


def _discovery(found: DiscoveryMetrics) -> Iterator[Metric]:
    def by(label: str, name: str, text: str, counts: Mapping[str, int]) -> Metric:
        return _own(name, text, (label,), {(key,): count for key, count in counts.items()})

    book = {(kind,): count for kind, count in found.book.items()}
    yield _gauge("book_entries", "What the address book holds, by kind.", ("kind",), book)
    yield by("way", "gossip_asked_total", "Exchanges that we began, by way.", found.asked)
    yield by(
        "way", "gossip_answered_total", "Exchanges of ours that were answered.", found.answered
    )
    yield _own(
        "gossip_failed_total",
        "Exchanges of ours that failed, by way and reason.",
        ("way", "reason"),
        {(way, reason.value): count for (way, reason), count in found.failed.items()},
    )
    yield _own(
        "gossip_served_total", "Exchanges of others that we answered.", (), {(): found.served}
    )
    yield by("outcome", "gossip_records_total", "Signed records heard, by outcome.", found.records)
    yield _own(
        "gossip_records_rejected_total",
        "Signed records refused, by reason.",
        ("reason",),
        {(reason.value,): count for reason, count in found.records_rejected.items()},
    )
    yield by("outcome", "gossip_addresses_total", "Addresses heard, by outcome.", found.addresses)


def _streams(snapshot: MetricsSnapshot) -> Iterator[Metric]:
    kinds = [(way, path) for way in ("in", "out") for path in ("direct", "relayed")]
    yield _own(
        "streams_opened_total",
        "Kaspa streams opened, by direction and path.",
        ("direction", "path"),
        dict.fromkeys(kinds, 0) | dict(snapshot.streams_opened),
    )
    yield _gauge(
        "streams",
        "Kaspa streams open now, by direction and path.",
        ("direction", "path"),
        dict.fromkeys(kinds, 0) | dict(snapshot.streams_open),
    )
    yield _own(
        "stream_bytes_total",
        "Bytes of Kaspa streams, by direction as the node sees it.",
        ("direction",),
        {(way,): snapshot.stream_bytes.get(way, 0) for way in ("in", "out")},
    )


def _usage(name: str, what: str, label: str, usages: Mapping[str, Usage]) -> Iterator[Metric]:
    used = {(key,): usage.used for key, usage in usages.items()}
    caps = {(key,): usage.cap for key, usage in usages.items()}
    yield _gauge(f"{name}_used", f"{what}, in use.", (label,), used)
    yield _gauge(f"{name}_cap", f"{what}, at most.", (label,), caps)


_Labels = TypeVar("_Labels", bound=tuple[str, ...])


def _own(name: str, text: str, labels: tuple[str, ...], samples: Mapping[_Labels, float]) -> Metric:
    return _counter(f"{_PREFIX}_{name}", text, labels, samples)


def _counter(
    name: str, text: str, labels: tuple[str, ...], samples: Mapping[_Labels, float]
) -> Metric:
    metric = CounterMetricFamily(name, text, labels=labels)
    for values, number in _bounded(samples):
        metric.add_metric(values, number)
    return metric


def _gauge(
    name: str, text: str, labels: tuple[str, ...], samples: Mapping[_Labels, float]
) -> Metric:
    metric = GaugeMetricFamily(f"{_PREFIX}_{name}", text, labels=labels)
    for values, number in _bounded(samples):
        metric.add_metric(values, number)
    return metric


def _bounded(samples: Mapping[_Labels, float]) -> Iterator[tuple[tuple[str, ...], float]]:
    rest = 0.0
    width = 0
    for row, (values, number) in enumerate(samples.items()):
        if row < MAX_SERIES:
            yield values, float(number)
        else:
            rest, width = rest + number, len(values)
    if width:
        yield ("other",) * width, rest
