"""The caps: each resource's leftover is dealt out, and what a declaration says outright is kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from appliance.sizing import costs
from appliance.sizing.costs import OPENS, PARTS
from appliance.sizing.model import Infeasible, Wishes
from appliance.sizing.profile import Profile
from appliance.sizing.resources import Resource, of_profile
from appliance.sizing.traced import Ledger, Term, least, most, term, total

# Wanted values. kaspad: 8 outbound, 117 inbound (kaspad/src/args.rs, 2.0.1); relay-capable kaspad:
# 8 private inbound, 4 through one relay, 8 through unknown ones. go-libp2p and rust-libp2p: 8
# reservations from one IP; go-libp2p: 16 circuits of one peer.
OUTBOUND_DIRECT: Final = 8
OUTBOUND_PRIVATE: Final = 8
INBOUND_DIRECT: Final = 117
INBOUND_PRIVATE: Final = 8
PER_RELAY_INBOUND: Final = 4
UNKNOWN_RELAY_INBOUND: Final = 8
RESERVATIONS_PER_IP: Final = 8
CIRCUITS_PER_PEER: Final = 16
CONNECTIONS_PER_IP: Final = 32
HANDSHAKES: Final = 64

PEERS_FIELD: Final = "bridge.peers"
DIALS_FIELD: Final = "node.addpeer and node.connect"
OFF: Final = "relaying is off"
LAST: Final = ("relay_reservations", "relay_circuits")
"""Served last, and alike: one that took from the other would shrink it as the machine grows."""


@dataclass(frozen=True, slots=True)
class Demand:
    """A cap's minimum and wanted value; `field` asked for the minimum, if a declaration did."""

    least: int
    want: Term
    because: str
    field: str | None = None

    @property
    def floor(self) -> int:
        """The least that its field could ask for instead."""
        return 0 if self.said else 1

    @property
    def said(self) -> bool:
        """Whether the declaration says the value outright."""
        return self.field is not None and self.least == self.want.value


def demands(profile: Profile, wishes: Wishes, relay_rate: Term) -> dict[str, Demand]:
    """What each cap that opens something wants. Raises Infeasible where wishes contradict."""
    cores = least(of_profile(profile, "cores"), costs.CORES_COUNTED)
    relay_least = 1 if wishes.relay else 0
    found = {
        "inbound_private": Demand(1, term(INBOUND_PRIVATE), "the norm of a home node"),
        "outbound_private": Demand(
            max(1, wishes.peers),
            term(max(OUTBOUND_PRIVATE, wishes.peers)),
            "as many as direct ones, and every peer that is declared",
            PEERS_FIELD if wishes.peers else None,
        ),
        "outbound_direct": Demand(
            max(1, wishes.dials),
            term(max(OUTBOUND_DIRECT, wishes.dials)),
            "kaspad's outbound target, and every peer that is declared",
            DIALS_FIELD if wishes.dials else None,
        ),
        "inbound_direct": Demand(1, term(INBOUND_DIRECT), "kaspad's own limit"),
        "relay_reservations": Demand(
            relay_least,
            cores * costs.RESERVATIONS_PER_CORE if wishes.relay else term(0),
            "what a core keeps alive with a few percent of its time" if wishes.relay else OFF,
        ),
        "relay_circuits": Demand(
            relay_least,
            most(1, relay_rate // costs.CIRCUIT_RATE) if wishes.relay else term(0),
            "each has 16 KiB a second when all are busy" if wishes.relay else OFF,
        ),
    }
    for name, computed in found.items():
        if name in wishes.caps:
            found[name] = _said(name, computed, wishes)
    return found


def _said(name: str, computed: Demand, wishes: Wishes) -> Demand:
    value, field = wishes.caps[name], wishes.caps_fields[name]
    if computed.field is not None and value < computed.least:
        raise Infeasible(
            f"{field}: {value} is less than the {computed.least} of {computed.field}",
            constraint=name,
            wish=field,
            nearest=computed.least,
        )
    if name.startswith("relay_") and value and not wishes.relay:
        raise _relaying_is_off(field, value)
    return Demand(value, term(value), "the declaration's wish", field)


def _relaying_is_off(field: str, value: int) -> Infeasible:
    return Infeasible(
        f"{field}: {value}, but bridge.relay_mode is off",
        constraint="bridge.relay_mode",
        wish=field,
        nearest=0,
    )


# ---------------------------------------------------------------- minima


def minima(asked: Mapping[str, Demand], resource: Resource) -> int:
    """What the minima of all caps take of a resource."""
    return sum(demand.least * resource.per_unit[name] for name, demand in asked.items())


def check_minima(asked: Mapping[str, Demand], resources: Sequence[Resource]) -> None:
    """Raise Infeasible unless every cap's minimum fits into every resource.

    The wishes are granted one after the other: the first that finds no room is named.
    """
    granted = {
        name: demand if demand.field is None else dataclasses.replace(demand, least=demand.floor)
        for name, demand in asked.items()
    }
    for resource in resources:
        lacking = minima(granted, resource) - resource.available
        if lacking > 0:
            whole = resource.share.value + lacking
            raise Infeasible(
                f"this machine is too small: the appliance needs {resource.of(whole)}, and "
                f"{resource.show(resource.share.value)} are there for it",
                constraint=resource.name,
                wish=None,
                nearest=whole,
            )
    for name, demand in asked.items():
        granted[name] = demand
        for resource in resources:
            if minima(granted, resource) > resource.available:
                nearest = min(_most(name, granted, each) for each in resources)
                raise _no_room(name, granted, resource, nearest)


def _no_room(
    name: str, granted: Mapping[str, Demand], resource: Resource, nearest: int
) -> Infeasible:
    demand = granted[name]
    takes = demand.least * resource.per_unit[name]
    free = resource.available - minima(granted, resource) + takes
    return Infeasible(
        f"{demand.field}: {demand.least} would take {resource.of(takes)}, and "
        f"{resource.show(free)} are free; at most {nearest} fit",
        constraint=resource.name,
        wish=demand.field,
        nearest=nearest,
    )


def _most(name: str, granted: Mapping[str, Demand], resource: Resource) -> int:
    """The largest minimum of a cap that `resource` has room for beside the other minima."""
    unit, mine = resource.per_unit[name], granted[name].least
    if not unit:
        return mine
    return (resource.available - minima(granted, resource)) // unit + mine


# ---------------------------------------------------------------- dealing


def deal(
    asked: Mapping[str, Demand], resources: Sequence[Resource], ledger: Ledger
) -> dict[str, Term]:
    """Every cap that opens something: its minimum plus its part of what is left, at most what
    it wants."""
    left = {resource.name: _left(asked, resource, ledger) for resource in resources}
    found = {}
    for name, demand in asked.items():
        parts = {
            resource.name: left[resource.name] // PARTS[name]
            for resource in resources
            if resource.per_unit[name]
        }
        found[name] = ledger.let(name, *_dealt(name, demand, resources, parts))
        if name in LAST:
            continue
        for resource in resources:
            if demand.want.value == demand.least or not resource.per_unit[name]:
                continue
            wanted = (demand.want - demand.least) * _unit(resource, name)
            left[resource.name] = ledger.let(
                f"{resource.name}.left.after.{name}",
                left[resource.name] - least(parts[resource.name], wanted),
                f"what {name} does not need goes to the others",
            )
    return found


def _left(asked: Mapping[str, Demand], resource: Resource, ledger: Ledger) -> Term:
    name = resource.name
    available = ledger.let(
        f"{name}.available",
        resource.share - total(resource.reserved),
        "what nobody else has a part of",
    )
    taken = minima(asked, resource)
    return ledger.let(f"{name}.left", available - taken, "once each cap has its minimum")


def _unit(resource: Resource, cap: str) -> Term:
    return Term(resource.per_unit[cap], f"{resource.name}.per.{cap}")


def _dealt(
    name: str, demand: Demand, resources: Sequence[Resource], parts: Mapping[str, Term]
) -> tuple[Term, str]:
    if demand.said or not demand.want.value:
        return demand.want, demand.because
    bounds, binding = [demand.want], ""
    lowest = demand.want.value
    for resource in resources:
        if resource.name not in parts:
            continue
        fits = term(demand.least) + parts[resource.name] // _unit(resource, name)
        bounds.append(fits)
        if fits.value < lowest:
            lowest, binding = fits.value, resource.noun
    because = f"limited by {binding}; a unit is {OPENS[name]}" if binding else demand.because
    return least(*bounds), because


# ---------------------------------------------------------------- dividing


def relay_rate(profile: Profile, wishes: Wishes, ledger: Ledger) -> Term:
    """`relay_bytes_per_second`. Raises Infeasible if the declaration wants more than the line."""
    name = "relay_bytes_per_second"
    link = of_profile(profile, "link_bytes_per_second")
    if name in wishes.caps:
        value, field = wishes.caps[name], wishes.caps_fields[name]
        if value and not wishes.relay:
            raise _relaying_is_off(field, value)
        if value > link.value:
            raise Infeasible(
                f"{field}: {value} bytes a second is more than the line carries; "
                f"at most {link.value}",
                constraint="link_bytes_per_second",
                wish=field,
                nearest=link.value,
            )
        return ledger.let(name, value, "the declaration's wish")
    if not wishes.relay:
        return ledger.let(name, 0, OFF)
    core = costs.RELAY_RATE.get(profile.architecture, costs.RELAY_RATE_ELSEWHERE)
    return ledger.let(
        name,
        least(link // costs.RELAY_LINK_PART, core),
        "a quarter of the line for strangers, and no more than half a core seals",
    )


def divide(wishes: Wishes, opened: Mapping[str, Term], ledger: Ledger) -> dict[str, Term]:
    """The caps that open nothing themselves but divide others. Raises Infeasible."""
    private, relayed = opened["inbound_private"], opened["relay_bytes_per_second"]
    reservations, circuits = opened["relay_reservations"], opened["relay_circuits"]

    def part(name: str, of: tuple[str, Term], computed: Term, because: str) -> Term:
        whole_name, whole = of
        if name not in wishes.caps:
            return ledger.let(name, least(computed, whole), because)
        value, field = wishes.caps[name], wishes.caps_fields[name]
        if value > whole.value:
            raise Infeasible(
                f"{field}: {value} is more than the {whole.value} of {whole_name} together; "
                f"at most {whole.value} fit",
                constraint=whole_name,
                wish=field,
                nearest=whole.value,
            )
        return ledger.let(name, value, "the declaration's wish")

    on = wishes.relay
    return {
        "per_relay_inbound": part(
            "per_relay_inbound",
            ("inbound_private", private),
            term(PER_RELAY_INBOUND),
            "no single relay may fill a home node",
        ),
        "unknown_relay_inbound": part(
            "unknown_relay_inbound",
            ("inbound_private", private),
            term(UNKNOWN_RELAY_INBOUND),
            "peers whose relay is not known share one bucket",
        ),
        "relay_circuits_per_peer": part(
            "relay_circuits_per_peer",
            ("relay_circuits", circuits),
            term(CIRCUITS_PER_PEER),
            "go-libp2p's limit" if on else OFF,
        ),
        "relay_reservations_per_ip": part(
            "relay_reservations_per_ip",
            ("relay_reservations", reservations),
            term(RESERVATIONS_PER_IP),
            "go-libp2p's limit" if on else OFF,
        ),
        "relay_circuit_bytes_per_second": part(
            "relay_circuit_bytes_per_second",
            ("relay_bytes_per_second", relayed),
            relayed // costs.CIRCUIT_PART,
            "the next circuit finds room at once" if on else OFF,
        ),
    }


def connections(wishes: Wishes, opened: Mapping[str, Term], ledger: Ledger) -> dict[str, Term]:
    """What the doors let in: all that the caps can need, and a few more."""
    relays = max(costs.RELAYS, wishes.relays)
    everyone = ledger.let(
        "connections",
        opened["inbound_private"]
        + opened["outbound_private"]
        + opened["relay_reservations"]
        + opened["relay_circuits"]
        + (relays + costs.VISITORS),
        "one for each unit of the caps, for our relays, and for peers that ask and leave",
    )
    return {
        "connections": everyone,
        "connections_per_ip": ledger.let(
            "connections_per_ip",
            least(everyone, most(CONNECTIONS_PER_IP, opened["relay_reservations_per_ip"] * 2)),
            "a household of holders and their diallers behind one address",
        ),
        "handshakes": ledger.let(
            "handshakes", least(everyone, HANDSHAKES), "half a second's worth on one core"
        ),
    }


def fixed(ledger: Ledger) -> dict[str, Term]:
    """The caps that every machine has alike."""
    return {
        "punches": ledger.let(
            "punches", costs.PUNCHES, "the norm of private peers may all come at once"
        ),
        "dials": ledger.let("dials", costs.DIALS, "two addresses for each punch"),
        "gossip": ledger.let("gossip", costs.GOSSIP, "short questions: more would gain nothing"),
        "scrapers": ledger.let(
            "scrapers", costs.SCRAPERS, "a pair of servers, their replacement and a human"
        ),
        "operators": ledger.let(
            "operators", costs.OPERATORS, "a few shells with `status --watch`, and scripts"
        ),
    }


def unread(everything: Term, ledger: Ledger) -> dict[str, Term]:
    """Bounds of bytes that nobody reads; `everything` is that of all connections together."""
    one = everything // costs.UNREAD_PER_CONNECTION_PART
    return {
        "unread_bytes": everything,
        "unread_bytes_per_connection": ledger.let(
            "unread_bytes_per_connection",
            least(costs.UNREAD_MOST, most(costs.UNREAD_LEAST, one)),
            "from one window of yamux to what 300 Mbit/s and 100 ms need; no peer holds it all",
        ),
        "unread_bytes_assured": ledger.let(
            "unread_bytes_assured", costs.ASSURED, "what each connection's budget holds for it"
        ),
    }
