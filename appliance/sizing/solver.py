"""Profile + wishes → plan, in whole numbers: the same input gives the same plan everywhere.

Each resource (open files, memory, tracked connections) has a limit, what is reserved by owner, and
the rest for the caps. Every cap first gets its minimum; what is then left is dealt out in fixed
shares, up to the wanted value. So the caps together never exceed what is there, and more of a
resource never makes any cap smaller.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from appliance.sizing import costs
from appliance.sizing.costs import SHARES, UNIT_COSTS
from appliance.sizing.model import Bandwidth, Budget, Caps, Infeasible, Plan, Step, Wishes
from appliance.sizing.profile import Profile
from appliance.units import human_bytes

# Wanted values. kaspad: 8 outbound, 128 inbound; relay-capable kaspad: 8 private inbound, 4 through
# one relay, 8 through unknown ones. go-libp2p and rust-libp2p: 128 reservations, 8 of them from one
# IP; go-libp2p: 16 circuits of one peer.
OUTBOUND_DIRECT: Final = 8
OUTBOUND_PRIVATE: Final = 8
INBOUND_DIRECT: Final = 128
INBOUND_PRIVATE: Final = 8
PER_RELAY_INBOUND: Final = 4
UNKNOWN_RELAY_INBOUND: Final = 8
RESERVATIONS: Final = 128
RESERVATIONS_PER_IP: Final = 8
CIRCUITS_PER_CORE: Final = 32
CIRCUITS_PER_PEER: Final = 16
CORES_COUNTED: Final = 16  # one process: more cores than this do not help it

TARGET_FIELD: Final = "bridge.private_inbound_target"
PER_RELAY_FIELD: Final = "bridge.per_relay_inbound"
PEERS_FIELD: Final = "bridge.peers"
DIALS_FIELD: Final = "node.addpeer and node.connect"


@dataclass(frozen=True, slots=True)
class _Demand:
    """A cap's minimum and wanted value; `field` asked for the minimum, if a declaration did."""

    least: int
    want: int
    because: str
    field: str | None = None


@dataclass(frozen=True, slots=True)
class _Resource:
    """A resource before the caps are known."""

    name: str
    noun: str
    limit: int
    reserved: Mapping[str, int]
    per_unit: Mapping[str, int]
    formula: str
    because: str

    @property
    def available(self) -> int:
        return self.limit - sum(self.reserved.values())

    def show(self, amount: int) -> str:
        return human_bytes(amount) if self.name == "memory" else str(amount)


def plan(profile: Profile, wishes: Wishes) -> Plan:
    """Every budget and cap for `profile`. Raises `Infeasible`, naming what binds."""
    demands = _demands(profile, wishes)
    resources = (_fds(profile, wishes), _memory(profile, wishes), _conntrack(profile, wishes))
    _check_minima(demands, resources)
    steps = [
        Step(f"{resource.name}.limit", resource.limit, resource.formula, resource.because)
        for resource in resources
    ]
    opened: dict[str, int] = {}
    for name, demand in demands.items():
        step = _deal(name, demand, demands, resources)
        steps.append(step)
        opened[name] = step.value
    divided = _divide(profile, wishes, opened)
    steps += divided
    caps = Caps(**opened, **{step.name: step.value for step in divided})
    budgets = {resource.name: _budget(resource, opened) for resource in resources}
    unit, sysctl, unit_steps = _unit_and_sysctl(budgets, caps)
    return Plan(
        profile=profile,
        fds=budgets["fds"],
        memory=budgets["memory"],
        conntrack=budgets["conntrack"],
        bandwidth=Bandwidth(
            link_bytes_per_second=profile.link_bytes_per_second,
            relay_bytes_per_second=caps.relay_bytes_per_second,
            per_circuit_bytes_per_second=caps.relay_bytes_per_second // max(1, caps.relay_circuits),
        ),
        caps=caps,
        unit=unit,
        sysctl=sysctl,
        derivation=(*steps, *unit_steps),
    )


def _demands(profile: Profile, wishes: Wishes) -> dict[str, _Demand]:
    target = wishes.private_inbound_target
    cores = min(profile.cores, CORES_COUNTED)
    reservations = RESERVATIONS * ((cores + 3) // 4) if wishes.relay else 0
    circuits = CIRCUITS_PER_CORE * cores if wishes.relay else 0
    relay_least = 1 if wishes.relay else 0
    return {
        "inbound_direct": _Demand(1, INBOUND_DIRECT, "kaspad's inbound limit"),
        "inbound_private": _Demand(1, INBOUND_PRIVATE, "the norm of a home node")
        if target is None
        else _Demand(target, target, "the declaration's wish", TARGET_FIELD),
        "outbound_direct": _Demand(
            max(1, wishes.dials),
            max(OUTBOUND_DIRECT, wishes.dials),
            "kaspad's outbound target, and every peer that is declared",
            DIALS_FIELD if wishes.dials else None,
        ),
        "outbound_private": _Demand(
            max(1, wishes.peers),
            max(OUTBOUND_PRIVATE, wishes.peers),
            "as many as direct ones, and every peer that is declared",
            PEERS_FIELD if wishes.peers else None,
        ),
        "relay_reservations": _Demand(
            relay_least,
            reservations,
            "what go-libp2p and rust-libp2p grant, once for every four cores"
            if wishes.relay
            else "relaying is off",
        ),
        "relay_circuits": _Demand(
            relay_least,
            circuits,
            f"{CIRCUITS_PER_CORE} for each core" if wishes.relay else "relaying is off",
        ),
    }


def _fds(profile: Profile, wishes: Wishes) -> _Resource:
    limit = min(profile.nofile, costs.FD_CEILING)
    reserved = {
        "runtime": costs.RUNTIME_FDS,
        "store": costs.STORE_FDS,
        "node": costs.NODE_FDS,
        # control and metrics; the embedded node's own
        "listeners": wishes.listeners + wishes.peers + 2 + (1 if wishes.embedded else 0),
        "metrics": costs.METRICS_FDS,
        "control": costs.CONTROL_FDS,
        "relays": max(costs.RELAY_FDS, wishes.relays),
        "dials": costs.DIAL_FDS,
        "handshakes": costs.HANDSHAKE_FDS,
        "headroom": limit // costs.HEADROOM,
    }
    per_unit = {name: cost.fds(embedded=wishes.embedded) for name, cost in UNIT_COSTS.items()}
    formula = f"min(profile.nofile {profile.nofile}, {costs.FD_CEILING})"
    because = "the system's limit for one process; the caps cannot use more than the second"
    return _Resource("fds", "open files", limit, reserved, per_unit, formula, because)


def _memory(profile: Profile, wishes: Wishes) -> _Resource:
    part = costs.MEMORY_PART_EMBEDDED if wishes.embedded else costs.MEMORY_PART_BESIDE_KASPAD
    total = profile.memory_bytes
    share = max(costs.MEMORY_FLOOR, min(total // part, costs.MEMORY_CEILING))
    limit = min(share, total // 2)
    reserved = {
        "process": costs.PROCESS_MEMORY,
        "store": costs.STORE_MEMORY,
        "headroom": limit // costs.HEADROOM,
    }
    per_unit = {name: cost.memory for name, cost in UNIT_COSTS.items()}
    floor, ceiling = human_bytes(costs.MEMORY_FLOOR), human_bytes(costs.MEMORY_CEILING)
    formula = f"{human_bytes(total)} ÷ {part}, from {floor} to {ceiling}, at most half"
    because = "the rest is for the system" + ("" if wishes.embedded else " and kaspad")
    return _Resource("memory", "bytes of memory", limit, reserved, per_unit, formula, because)


def _conntrack(profile: Profile, wishes: Wishes) -> _Resource:
    limit = profile.conntrack_max // costs.CONNTRACK_PART
    reserved = {
        "relays": max(costs.RELAY_FDS, wishes.relays),
        "dials": costs.DIAL_FDS,
        "handshakes": costs.HANDSHAKE_FDS,
    }
    per_unit = {name: cost.conntrack() for name, cost in UNIT_COSTS.items()}
    formula = f"{profile.conntrack_max} ÷ {costs.CONNTRACK_PART}"
    because = "the household behind the same router needs the rest of its table"
    return _Resource(
        "conntrack", "tracked connections", limit, reserved, per_unit, formula, because
    )


def _minima(demands: Mapping[str, _Demand], resource: _Resource) -> int:
    return sum(demand.least * resource.per_unit[name] for name, demand in demands.items())


def _check_minima(demands: Mapping[str, _Demand], resources: tuple[_Resource, ...]) -> None:
    """Raise `Infeasible` unless every cap's minimum fits into every resource."""
    for resource in resources:
        needed = _minima(demands, resource)
        if needed <= resource.available:
            continue
        for name, demand in demands.items():
            if demand.field is None:
                continue
            nearest = min(_most(name, demands, each) for each in resources)
            if nearest >= (0 if demand.field == TARGET_FIELD else 1):
                takes = demand.least * resource.per_unit[name]
                free = max(0, resource.available - needed + takes)
                raise Infeasible(
                    f"{demand.field}: {demand.least} would take {resource.show(takes)} "
                    f"{resource.noun}, and {resource.show(free)} are free; at most {nearest} fit",
                    constraint=resource.name,
                    wish=demand.field,
                    nearest=nearest,
                )
        total = resource.limit + needed - resource.available
        raise Infeasible(
            f"this machine is too small: the appliance needs {resource.show(total)} "
            f"{resource.noun}, and {resource.show(resource.limit)} are there for it",
            constraint=resource.name,
            wish=None,
            nearest=total,
        )


def _most(name: str, demands: Mapping[str, _Demand], resource: _Resource) -> int:
    """The largest minimum of cap `name` that `resource` has room for beside the other minima."""
    unit = resource.per_unit[name]
    slots = 1 if name == "outbound_private" and resource.name == "fds" else 0
    mine = demands[name].least
    # A slot's listener is in `reserved` already: give the declared ones back, then charge each.
    free = resource.available - _minima(demands, resource) + mine * (unit + slots)
    return free // (unit + slots)


def _deal(
    name: str,
    demand: _Demand,
    demands: Mapping[str, _Demand],
    resources: tuple[_Resource, ...],
) -> Step:
    """The cap's minimum plus its share of what is left, at most what is wanted."""
    value, terms = demand.want, [f"wanted {demand.want}"]
    binding = ""
    share = UNIT_COSTS[name].share
    for resource in resources:
        left = resource.available - _minima(demands, resource)
        unit, least = resource.per_unit[name], demand.least
        fits = least + left * share // SHARES // unit
        terms.append(f"{resource.name} {least} + {left} × {share}/{SHARES} ÷ {unit} = {fits}")
        if fits < value:
            value, binding = fits, resource.noun
    fixed = demand.least == demand.want
    formula = f"{demand.want}" if fixed else f"min({'; '.join(terms)})"
    because = f"limited by {binding}; {UNIT_COSTS[name].because}" if binding else demand.because
    return Step(name, value, formula, because)


def _divide(profile: Profile, wishes: Wishes, opened: Mapping[str, int]) -> list[Step]:
    """The caps that open nothing themselves but divide the others."""
    private = opened["inbound_private"]
    reservations, circuits = opened["relay_reservations"], opened["relay_circuits"]
    off = "relaying is off"
    if wishes.per_relay_inbound is None:
        per_relay = Step(
            "per_relay_inbound",
            min(PER_RELAY_INBOUND, private),
            f"min({PER_RELAY_INBOUND}, inbound_private {private})",
            "no single relay may fill a home node",
        )
    elif wishes.per_relay_inbound > private:
        raise Infeasible(
            f"{PER_RELAY_FIELD}: {wishes.per_relay_inbound} through one relay is more than all "
            f"private inbound peers together; at most {private} fit",
            constraint="inbound_private",
            wish=PER_RELAY_FIELD,
            nearest=private,
        )
    else:
        per_relay = Step(
            "per_relay_inbound",
            wishes.per_relay_inbound,
            f"{wishes.per_relay_inbound}",
            "the declaration's wish",
        )
    link = profile.link_bytes_per_second
    relayed = link // costs.RELAY_LINK_PART if wishes.relay else 0
    streams = sum(count * opened[name] for name, count in costs.STREAMS.items())
    unread = streams * costs.STREAM_MEMORY
    return [
        per_relay,
        Step(
            "unknown_relay_inbound",
            min(UNKNOWN_RELAY_INBOUND, private),
            f"min({UNKNOWN_RELAY_INBOUND}, inbound_private {private})",
            "peers whose relay is not known share one bucket",
        ),
        Step(
            "relay_circuits_per_peer",
            min(CIRCUITS_PER_PEER, circuits),
            f"min({CIRCUITS_PER_PEER}, relay_circuits {circuits})",
            "go-libp2p's limit" if wishes.relay else off,
        ),
        Step(
            "relay_reservations_per_ip",
            min(RESERVATIONS_PER_IP, reservations),
            f"min({RESERVATIONS_PER_IP}, relay_reservations {reservations})",
            "go-libp2p's limit" if wishes.relay else off,
        ),
        Step(
            "relay_bytes_per_second",
            relayed,
            f"{link} ÷ {costs.RELAY_LINK_PART}" if wishes.relay else "0",
            "a quarter of the line for strangers" if wishes.relay else off,
        ),
        Step(
            "relay_circuit_bytes_per_second",
            relayed // costs.CIRCUIT_PART,
            f"relay_bytes_per_second {relayed} ÷ {costs.CIRCUIT_PART}",
            "the next circuit finds room at once" if wishes.relay else off,
        ),
        Step(
            "unread_bytes",
            unread,
            f"{costs.STREAM_MEMORY} × {streams} streams of the caps",
            "the part of their memory that peers may fill",
        ),
        Step(
            "unread_bytes_per_connection",
            min(costs.UNREAD_PER_CONNECTION, max(costs.STREAM_MEMORY, unread // costs.UNREAD_PART)),
            f"unread_bytes {unread} ÷ {costs.UNREAD_PART}, from {costs.STREAM_MEMORY} "
            f"to {costs.UNREAD_PER_CONNECTION}",
            "no peer alone can hold it all",
        ),
    ]


def _budget(resource: _Resource, opened: Mapping[str, int]) -> Budget:
    used = sum(count * resource.per_unit[name] for name, count in opened.items())
    assert used <= resource.available, f"{resource.name}: {used} of {resource.available}"
    return Budget(resource.limit, resource.reserved, resource.available, resource.per_unit, used)


def _unit_and_sysctl(
    budgets: Mapping[str, Budget], caps: Caps
) -> tuple[dict[str, int], dict[str, int], list[Step]]:
    memory = budgets["memory"].limit
    backlog = max(128, 2 * (caps.inbound_direct + caps.relay_reservations))
    steps = [
        Step("LimitNOFILE", budgets["fds"].limit, "fds.limit", "the plan counts on it"),
        Step(
            "MemoryHigh", memory - memory // 8, "memory.limit × 7 ÷ 8", "slow down before the end"
        ),
        Step("MemoryMax", memory, "memory.limit", "a leak must not take the node down"),
        Step("TasksMax", costs.TASKS_MAX, f"{costs.TASKS_MAX}", "one thread, and workers"),
        Step(
            "net.core.somaxconn",
            backlog,
            "max(128, 2 × (inbound_direct + relay_reservations))",
            "everybody comes back at once after an outage",
        ),
    ]
    unit = {step.name: step.value for step in steps if "." not in step.name}
    sysctl = {step.name: step.value for step in steps if "." in step.name}
    return unit, sysctl, steps
