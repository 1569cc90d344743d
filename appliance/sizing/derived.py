"""What follows from the budgets and caps: limits of the units, the kernel, the packet filter, the
thresholds of the alerts, and what kaspad is told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from appliance.sizing import costs
from appliance.sizing.measured import UNITS
from appliance.sizing.model import Budget, Kaspad, Wishes
from appliance.sizing.profile import Profile
from appliance.sizing.resources import Resource, headroom, of_profile
from appliance.sizing.traced import Ledger, Term, least, most, term, total

Numbers = dict[str, int]

HEADROOM: Final = "headroom"
WATCHED: Final = (
    "connections",
    "inbound_private",
    "relay_reservations",
    "relay_circuits",
    "relay_bytes_per_second",
)
"""Caps whose use an alert watches."""


def budget(resource: Resource, opened: Mapping[str, Term], ledger: Ledger) -> Budget:
    """A resource's budget, no larger than the caps need: what they cannot take stays with others.

    Holds: the limit is the sum of what is reserved and what all caps together can open.
    """
    name = resource.name
    used = total(
        {
            cap: opened[cap] * Term(unit, f"{name}.per.{cap}")
            for cap, unit in resource.per_unit.items()
            if unit
        }
    )
    taken = ledger.let(f"{name}.used", used, "what all caps together can take")
    kept = {owner: part for owner, part in resource.reserved.items() if owner != HEADROOM}
    reserved = {owner: part.value for owner, part in kept.items()}
    limit = taken + total(kept)
    if HEADROOM in resource.reserved:
        spare = costs.LEAST_SPARE_FDS if name == "fds" else 0
        room = ledger.let(f"{name}.headroom", headroom(limit, spare), "left alone")
        reserved[HEADROOM] = room.value
        limit = limit + room
    whole = ledger.let(f"{name}.limit", limit, "what the caps need, and no more")
    assert whole.value <= resource.share.value, f"{name}: {whole.value} of {resource.share.value}"
    return Budget(whole.value, reserved, taken.value, resource.per_unit, taken.value)


def kaspad_budget(resource: Resource, opened: Mapping[str, Term]) -> Budget:
    """Kaspad's files: all of its share, since its database uses what it gets."""
    used = sum(opened[cap].value * unit for cap, unit in resource.per_unit.items())
    reserved = {owner: part.value for owner, part in resource.reserved.items()}
    return Budget(resource.share.value, reserved, resource.available, resource.per_unit, used)


def unit(files: Budget, memory: Budget, ledger: Ledger) -> Numbers:
    """The daemon's systemd limits."""
    threads = UNITS["process"].threads + UNITS["store"].threads
    most_memory = Term(memory.limit, "memory.limit")
    return _numbers(
        ledger.let("LimitNOFILE", Term(files.limit, "fds.limit"), "the plan counts on it"),
        ledger.let(
            "MemoryHigh", most_memory - most_memory // costs.HEADROOM, "slow down before the end"
        ),
        ledger.let("MemoryMax", most_memory, "a leak must not take the node down"),
        ledger.let(
            "TasksMax",
            term(threads) + costs.WORKERS + costs.SPARE_THREADS,
            "measured threads, trio's workers and a few more",
        ),
    )


def sysctl(profile: Profile, caps: Mapping[str, Term], ledger: Ledger) -> Numbers:
    """Kernel settings of the machine."""
    backlog = most(128, caps["connections"])
    return _numbers(
        ledger.let("net.core.somaxconn", backlog, "everybody comes back at once after an outage"),
        ledger.let("net.ipv4.tcp_max_syn_backlog", backlog * 2, "the same, before the handshake"),
        ledger.let(
            "net.netfilter.nf_conntrack_max",
            of_profile(profile, "conntrack_max"),
            "the plan counts on it",
        ),
    )


def upstream(profile: Profile, ledger: Ledger) -> Term:
    """`dials_per_second`: what the router in front sets up for us."""
    taken = of_profile(profile, "new_connections_per_second") // costs.UPSTREAM_PART
    because = "half of what the router upstream takes; the other half comes in"
    return ledger.let("dials_per_second", most(1, taken), because)


def firewall(profile: Profile, caps: Mapping[str, Term], ledger: Ledger) -> Numbers:
    """Limits in front of the bridge's port and of SSH."""
    taken = of_profile(profile, "new_connections_per_second") // costs.UPSTREAM_PART
    rate = ledger.let(
        "bridge_new_per_second",
        most(1, least(taken, most(8, caps["connections"] // 10))),
        "everybody is back ten seconds after an outage, if the router keeps up",
    )
    return _numbers(
        rate,
        ledger.let(
            "bridge_new_per_second_per_prefix",
            most(1, rate // 4),
            "one /24 or /48 gets a quarter at most",
        ),
        ledger.let(
            "bridge_connections_per_address",
            caps["connections_per_ip"],
            "beyond it the daemon refuses anyway",
        ),
        ledger.let("ssh_new_per_minute", 6, "a human, or a playbook that keeps its connection"),
    )


def alerts(
    profile: Profile, caps: Mapping[str, Term], limits: Mapping[str, int], ledger: Ledger
) -> Numbers:
    """Thresholds. `limits` are those of `unit`."""
    files = Term(limits["LimitNOFILE"], "LimitNOFILE")
    high = Term(limits["MemoryHigh"], "MemoryHigh")
    tracked = of_profile(profile, "conntrack_max") * 3 // 4
    numbers = {
        "fds": (files - files // costs.HEADROOM, "the headroom is touched"),
        "memory_bytes": (high, "the kernel begins to slow us down"),
        "conntrack": (tracked, "a full table drops packets of others"),
    }
    for name in WATCHED:
        numbers[name] = (most(1, caps[name] * 9 // 10), "nine tenths of the cap")
    return {
        name: ledger.let(f"alert.{name}", number, because).value
        for name, (number, because) in numbers.items()
    }


def kaspad(
    wishes: Wishes,
    caps: Mapping[str, Term],
    files: Budget | None,
    memory: Term | None,
    ledger: Ledger,
) -> Kaspad | None:
    """What kaspad is told; `files` and `memory` are what it gets if it runs on this machine."""
    if wishes.node == "embedded":
        return None
    inbound = ledger.let(
        "kaspad.maxinpeers",
        caps["inbound_direct"] + caps["inbound_private"],
        "kaspad counts what the bridge brings as inbound, and beyond it drops at random",
    )
    outbound = ledger.let(
        "kaspad.outpeers",
        caps["outbound_direct"] + caps["outbound_private"],
        "the slots fill places of it: --addpeer counts as outbound",
    )
    flags = [f"--maxinpeers={inbound.value}", f"--outpeers={outbound.value}"]
    if files is None or memory is None:
        return Kaspad(tuple(flags), None, {})
    scale = ledger.let(
        "kaspad.ram_scale_percent",
        least(
            costs.KASPAD_SCALE_MOST,
            (memory + costs.KASPAD_SYSTEM) * 100 // costs.KASPAD_SCALE_MEMORY,
        ),
        "16 GB for each 1.0, of which one is the system's: kaspad's own documents",
    )
    flags.append(f"--ram-scale={scale.value // 100}.{scale.value % 100:02}")
    limits = {
        "LimitNOFILE": ledger.let(
            "kaspad.LimitNOFILE", Term(files.limit, "kaspad.fds.share"), "what it asks for"
        ).value,
        "MemoryMax": ledger.let("kaspad.MemoryMax", memory, "all that is left for it").value,
    }
    return Kaspad(tuple(flags), files, limits)


def _numbers(*terms: Term) -> Numbers:
    """By the names under which the ledger has them."""
    return {each.formula: each.value for each in terms}
