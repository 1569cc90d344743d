"""The resources of one machine before the caps are known: what there is, who has a part of it
already, and what one unit of each cap takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from appliance.sizing import costs
from appliance.sizing.costs import PARTS, conntrack_of, fds_of, memory_of
from appliance.sizing.model import Infeasible, Wishes
from appliance.sizing.profile import Profile
from appliance.sizing.traced import Ledger, Term, least, most, term, total
from appliance.units import MIB, human_bytes

NODE_FIELD: Final = "node.kind"
STEP: Final = 256
"""Open files are dealt out in such steps."""


@dataclass(frozen=True, slots=True)
class Resource:
    """`share` is what may be taken of it, `per_unit` what one unit of each cap takes."""

    name: str
    noun: str
    share: Term
    reserved: Mapping[str, Term]
    per_unit: Mapping[str, int]

    @property
    def available(self) -> int:
        """What is left for the caps; below zero where the reserved parts alone are too much."""
        return self.share.value - total(self.reserved).value

    def show(self, amount: int) -> str:
        """An amount of it, for people."""
        return human_bytes(amount) if self.name == "memory" else str(amount)

    def of(self, amount: int) -> str:
        """`636 KiB of memory`, `12 open files`."""
        return f"{self.show(amount)} {'of ' if self.name == 'memory' else ''}{self.noun}"


def of_profile(profile: Profile, field: str) -> Term:
    """A figure of the profile, by its name."""
    return Term(getattr(profile, field), f"profile.{field}")


def _recorded(name: str, units: Mapping[str, Term | int], ledger: Ledger) -> dict[str, int]:
    """What a unit of each cap takes, written down where it takes something."""
    found = dict.fromkeys(units, 0)
    for cap, unit in units.items():
        if term(unit).value:
            found[cap] = ledger.let(f"{name}.per.{cap}", unit, costs.OPENS[cap]).value
    return found


def headroom(share: Term, least_spare: int = 0) -> Term:
    """What is left alone of a share."""
    part = share // costs.HEADROOM
    return most(least_spare, part) if least_spare else part


# ---------------------------------------------------------------- memory


def machine_owners(profile: Profile, ledger: Ledger) -> dict[str, Term]:
    """The parts of the machine's memory that neither we nor kaspad get."""
    memory = of_profile(profile, "memory_bytes")
    return {
        "system": ledger.let(
            "machine.system",
            term(costs.SYSTEM_MEMORY) + memory // costs.SYSTEM_PART,
            "a Debian that does no more, and a sixteenth for the kernel's own tables",
        ),
        "ssh": ledger.let("machine.ssh", costs.SSH_MEMORY, "sshd and two sessions"),
        "observability": ledger.let(
            "machine.observability", costs.OBSERVABILITY_MEMORY, "the node exporter"
        ),
    }


def kaspad_least(profile: Profile, wishes: Wishes, owners: Mapping[str, Term]) -> Term:
    """The memory that kaspad cannot do without. Raises Infeasible if the machine has less."""
    if wishes.node != "kaspad":
        return term(0)
    hint = "run kaspad on another machine and say node.kind: remote"
    scaled = costs.KASPAD_SCALE_MEMORY * costs.KASPAD_SCALE_LEAST // 100
    needs = scaled - costs.KASPAD_SYSTEM
    rest = profile.memory_bytes - total(owners).value - costs.MEMORY_FLOOR
    if rest < needs:
        lacking = human_bytes(needs - rest)
        raise Infeasible(
            f"{NODE_FIELD}: kaspad needs {human_bytes(needs)} of memory beside the appliance and "
            f"the system, and {profile.name} leaves {human_bytes(max(0, rest))}: {lacking} less "
            "than kaspad needs",
            constraint="memory",
            wish=NODE_FIELD,
            nearest=profile.memory_bytes + needs - rest,
            hint=hint,
        )
    if profile.nofile < costs.KASPAD_FDS_LEAST:
        raise Infeasible(
            f"{NODE_FIELD}: kaspad needs {costs.KASPAD_FDS_LEAST} open files, and {profile.name} "
            f"grants a process {profile.nofile}",
            constraint="fds",
            wish=NODE_FIELD,
            nearest=costs.KASPAD_FDS_LEAST,
            hint=hint,
        )
    return term(needs)


def memory_share(profile: Profile, wishes: Wishes, owners: Mapping[str, Term], kaspad: Term,
                 ledger: Ledger) -> Term:  # fmt: skip
    """The most that the daemon may take."""
    memory = of_profile(profile, "memory_bytes")
    beside = wishes.node == "kaspad"
    part = costs.MEMORY_PART_BESIDE_KASPAD if beside else costs.MEMORY_PART_ALONE
    kept = {name: Term(owner.value, f"machine.{name}") for name, owner in owners.items()}
    if kaspad.value:
        kept["kaspad"] = kaspad
    bounds = [
        most(costs.MEMORY_FLOOR, memory // part),
        term(costs.MEMORY_CEILING),
        memory // 2,
        memory - total(kept),
    ]
    because = "the rest is for the system" + (" and kaspad" if beside else "")
    # In whole steps, so that its parts divide without a rest: else one byte more of memory could
    # make two parts larger, and what they leave smaller.
    return ledger.let("memory.share", most(0, least(*bounds)) // MIB * MIB, because)


def memory(wishes: Wishes, share: Term, unread: Term, store: Term, ledger: Ledger) -> Resource:
    """The daemon's memory, in bytes."""
    process = ("process", "embedded_node") if wishes.embedded else ("process",)
    connection = ledger.let(
        "memory.connection",
        term(memory_of("connection")) + costs.PARTIAL_MESSAGE + costs.ASSURED,
        "measured; a message that is not whole, and bytes that nobody reads",
    )
    relays = max(costs.RELAYS, wishes.relays) + costs.VISITORS
    reserved = {
        "process": ledger.let("memory.process", memory_of(*process), "measured, before any peer"),
        "store": store,
        "unread": unread,
        "visitors": ledger.let(
            "memory.visitors",
            connection * relays,
            "our relays, and peers that ask and leave",
        ),
        "headroom": ledger.let("memory.spare", headroom(share), "one part in 16 is left alone"),
    }
    if wishes.as_table:
        reserved["as_table"] = ledger.let(
            "memory.as_table", costs.AS_TABLE_MEMORY, "discovery.as_table, as large as it may be"
        )
    busy = ledger.let("memory.busy", costs.UNSENT, "a batch each way that the kernel did not take")
    embedded = costs.EMBEDDED_PEER if wishes.embedded else 0
    stream = connection + busy + memory_of("private_stream")
    slot = connection + busy + memory_of("slot", "slot_stream")
    per_unit = {
        "inbound_private": stream + embedded if embedded else stream,
        "outbound_private": slot + embedded if embedded else slot,
        "inbound_direct": term(embedded),
        "outbound_direct": term(embedded),
        "relay_reservations": connection + memory_of("reservation"),
        "relay_circuits": connection + busy + memory_of("circuit"),
    }
    return Resource("memory", "memory", share, reserved, _recorded("memory", per_unit, ledger))


def store_size(share: Term, files: Term, ledger: Ledger) -> dict[str, Term]:
    """RocksDB's options and the book's size, by their names in the plan; `share` is of memory,
    `files` of open files."""
    entries = least(
        costs.ENTRIES_MOST,
        most(costs.ENTRIES_LEAST, share // costs.ENTRIES_PART // costs.ENTRY_MEMORY),
    )
    return {
        "entries": ledger.let(
            "store.entries", entries, "kaspad's 4,096 at least; a 32nd of our memory"
        ),
        "block_cache_bytes": ledger.let(
            "store.block_cache_bytes",
            least(64 * MIB, most(MIB, share // 128)),
            "the blocks that are read again and again",
        ),
        "write_buffer_bytes": ledger.let(
            "store.write_buffer_bytes",
            least(16 * MIB, most(MIB, share // 128)),
            "of all column families together; the write-ahead log is as large",
        ),
        "max_open_files": ledger.let(
            "store.max_open_files",
            least(48, most(16, files // STEP)),
            "the log, the manifest and the tables of a full book",
        ),
    }


def store_memory(sizes: Mapping[str, Term], ledger: Ledger) -> Term:
    """What the book takes of our memory at most."""
    return ledger.let(
        "memory.store",
        term(memory_of("store"))
        + sizes["entries"] * costs.ENTRY_MEMORY
        + sizes["block_cache_bytes"]
        + sizes["write_buffer_bytes"],
        "measured when empty; its index, its cache and its write buffer",
    )


# ---------------------------------------------------------------- open files, tracked connections


def fds_share(profile: Profile, ledger: Ledger) -> Term:
    """The most files that the daemon may open."""
    return ledger.let(
        "fds.share",
        least(of_profile(profile, "nofile"), costs.FD_CEILING) // STEP * STEP,
        "the system's limit for one process, in whole steps; the caps cannot use more than the "
        "second",
    )


def fds(wishes: Wishes, share: Term, store: Mapping[str, Term], ledger: Ledger) -> Resource:
    """The daemon's open files."""
    # The control socket and the metrics listen too, and so does the embedded node.
    listeners = wishes.listeners + 2 + (1 if wishes.embedded else 0)
    runtime = ("process", "embedded_node") if wishes.embedded else ("process",)
    reserved = {
        "runtime": ledger.let("fds.runtime", fds_of(*runtime), "measured, before any peer"),
        "store": ledger.let(
            "fds.store", most(fds_of("store"), store["max_open_files"]), "the address book's"
        ),
        "node": ledger.let("fds.node", costs.NODE_FDS, "a health check of the node, and its RPC"),
        "listeners": ledger.let("fds.listeners", listeners, "one for each address that listens"),
        # One more of each is let in to be told that there is no room.
        "metrics": ledger.let("fds.metrics", costs.SCRAPERS + 1, "scrapers, and one turned away"),
        "control": ledger.let("fds.control", costs.OPERATORS + 1, "operators, and one turned away"),
        "relays": ledger.let(
            "fds.relays", max(costs.RELAYS, wishes.relays), "the relays that we reserve at"
        ),
        "visitors": ledger.let("fds.visitors", costs.VISITORS, "peers that ask and leave"),
        "gossip": ledger.let("fds.gossip", costs.GOSSIP, "nodes that are asked for addresses"),
        "punches": ledger.let(
            "fds.punches", costs.PUNCHES, "sockets of punches that come in through the listener"
        ),
        "dials": ledger.let("fds.dials", costs.DIALS, "sockets that are being connected"),
        "headroom": ledger.let(
            "fds.spare", headroom(share, costs.LEAST_SPARE_FDS), "one part in 16 is left alone"
        ),
    }
    within = 1 if wishes.embedded else 0
    per_unit = {
        "inbound_private": fds_of("connection", "private_stream") + within,
        "outbound_private": fds_of("connection", "slot", "slot_stream") + within,
        "inbound_direct": 2 * within,
        "outbound_direct": within,
        "relay_reservations": fds_of("connection", "reservation"),
        "relay_circuits": fds_of("connection", "circuit"),
    }
    return Resource("fds", "open files", share, reserved, _recorded("fds", per_unit, ledger))


def conntrack(profile: Profile, wishes: Wishes, ledger: Ledger) -> Resource:
    """Entries of the tightest connection-tracking table on the way out."""
    share = ledger.let(
        "conntrack.share",
        of_profile(profile, "conntrack_max") // costs.CONNTRACK_PART,
        "the household behind the same router needs the rest of its table",
    )
    reserved = {
        "relays": ledger.let(
            "conntrack.relays", max(costs.RELAYS, wishes.relays), "the relays that we reserve at"
        ),
        "visitors": ledger.let("conntrack.visitors", costs.VISITORS, "peers that ask and leave"),
        "punches": ledger.let(
            "conntrack.punches", costs.PUNCHES + costs.DIALS, "punches and dials under way"
        ),
        "gossip": ledger.let(
            "conntrack.gossip", costs.GOSSIP, "nodes that are asked for addresses"
        ),
    }
    units = {
        "inbound_private": conntrack_of("connection", "private_stream"),
        "outbound_private": conntrack_of("connection", "slot_stream"),
        "inbound_direct": 1,
        "outbound_direct": 1,
        "relay_reservations": conntrack_of("connection"),
        "relay_circuits": conntrack_of("connection"),
    }
    per_unit = _recorded("conntrack", units, ledger)
    return Resource("conntrack", "tracked connections", share, reserved, per_unit)


def kaspad_fds(profile: Profile, ledger: Ledger) -> Resource:
    """The files of the kaspad beside us. What the bridge brings counts as its peers, too."""
    share = ledger.let(
        "kaspad.fds.share",
        least(of_profile(profile, "nofile"), costs.KASPAD_FDS),
        "what kaspad asks of the system",
    )
    reserved = {
        "database": ledger.let(
            "kaspad.fds.database",
            share - share // costs.KASPAD_PEERS_PART,
            "its RocksDB takes what peers and clients leave; fewer files make it slow",
        ),
        "rpc": ledger.let("kaspad.fds.rpc", costs.KASPAD_RPC_CLIENTS, "its own --rpcmaxclients"),
    }
    peers = ("inbound_private", "outbound_private", "inbound_direct", "outbound_direct")
    units = {name: 1 if name in peers else 0 for name in PARTS}
    per_unit = _recorded("kaspad.fds", units, ledger)
    return Resource("kaspad.fds", "open files of kaspad's", share, reserved, per_unit)
