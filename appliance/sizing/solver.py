"""The solver: budgets first, then a minimum for every cap, then what is left in fixed shares.

Each cap is the least of what it wants and what its share of every resource has room for, so more
of a resource never makes a cap smaller. The limits of the units follow from the caps: they are no
larger than needed, and no two numbers are computed twice.
"""

from __future__ import annotations

from collections.abc import Mapping

from appliance.sizing import caps as dealing
from appliance.sizing import costs, derived
from appliance.sizing import resources as having
from appliance.sizing.model import Bandwidth, Budget, Caps, Machine, Plan, Wishes
from appliance.sizing.profile import Profile
from appliance.sizing.traced import Ledger, Term, total


def plan(profile: Profile, wishes: Wishes) -> Plan:
    """Every budget and cap for `profile`. Raises `Infeasible`, naming what binds."""
    ledger = Ledger()
    owners = having.machine_owners(profile, ledger)
    kaspad_least = having.kaspad_least(profile, wishes, owners)
    share = having.memory_share(profile, wishes, owners, kaspad_least, ledger)
    files_share = having.fds_share(profile, ledger)
    store = having.store_size(share, files_share, ledger)
    unread = ledger.let("unread_bytes", share // costs.UNREAD_PART, "an eighth of our memory")
    resources = [
        having.fds(wishes, files_share, store, ledger),
        having.memory(wishes, share, unread, having.store_memory(store, ledger), ledger),
        having.conntrack(profile, wishes, ledger),
    ]
    kaspad = having.kaspad_fds(profile, ledger) if wishes.node == "kaspad" else None
    everything = [*resources, kaspad] if kaspad is not None else resources

    rate = dealing.relay_rate(profile, wishes, ledger)
    asked = dealing.demands(profile, wishes, rate)
    dealing.check_minima(asked, everything)
    numbers = dealing.deal(asked, everything, ledger) | {"relay_bytes_per_second": rate}
    numbers |= dealing.divide(wishes, numbers, ledger)
    numbers |= dealing.connections(wishes, numbers, ledger)
    numbers |= dealing.fixed(ledger) | dealing.unread(unread, ledger)
    numbers["dials_per_second"] = derived.upstream(profile, ledger)
    caps = Caps(**{name: number.value for name, number in numbers.items()})

    fds, memory, conntrack = (derived.budget(each, numbers, ledger) for each in resources)
    unit = derived.unit(fds, memory, ledger)
    machine, left = _machine(profile, owners, memory, ledger)
    files = None if kaspad is None else derived.kaspad_budget(kaspad, numbers)
    return Plan(
        profile=profile,
        machine=machine if kaspad is None else _with_kaspad(machine),
        fds=fds,
        memory=memory,
        conntrack=conntrack,
        bandwidth=Bandwidth(
            link_bytes_per_second=profile.link_bytes_per_second,
            relay_bytes_per_second=caps.relay_bytes_per_second,
            per_circuit_bytes_per_second=caps.relay_bytes_per_second // max(1, caps.relay_circuits),
        ),
        caps=caps,
        unit=unit,
        sysctl=derived.sysctl(profile, numbers, ledger),
        firewall=derived.firewall(profile, numbers, ledger),
        store={name: number.value for name, number in store.items()},
        alerts=derived.alerts(profile, numbers, unit, ledger),
        kaspad=derived.kaspad(wishes, numbers, files, None if kaspad is None else left, ledger),
        derivation=ledger.steps(),
    )


def _machine(
    profile: Profile, owners: Mapping[str, Term], memory: Budget, ledger: Ledger
) -> tuple[Machine, Term]:
    parts = {name: owner.value for name, owner in owners.items()} | {"appliance": memory.limit}
    kept = {**owners, "appliance": Term(memory.limit, "memory.limit")}
    left = ledger.let(
        "machine.left",
        having.of_profile(profile, "memory_bytes") - total(kept),
        "for kaspad, or for the file cache",
    )
    return Machine(profile.memory_bytes, parts, left.value), left


def _with_kaspad(machine: Machine) -> Machine:
    """All that is left is kaspad's: its database lives on the file cache."""
    return Machine(machine.memory, {**machine.owners, "kaspad": machine.free}, 0)
