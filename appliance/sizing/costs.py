"""What the solver counts with: the measured costs, the bounds that stand above what is measured,
and how much of a machine is ours. One table, so that no two numbers can disagree.
"""

from __future__ import annotations

from typing import Final

from appliance.sizing.measured import UNITS
from appliance.units import GIB, KIB, MIB

# --- bounds of the data plane: what a peer can make us hold, though it seldom does
PARTIAL_MESSAGE: Final = 64 * KIB  # of a Noise message that is not whole yet: its length is 16 bits
UNSENT: Final = 2 * 256 * KIB  # a batch each way that the kernel, or a stalled reader, did not take
ASSURED: Final = 16 * KIB  # what a connection may hold unread when all hold too much
UNREAD_PART: Final = 8  # an eighth of our memory for bytes that nobody reads
UNREAD_PER_CONNECTION_PART: Final = 8  # of that for one connection: nobody alone can hold it all
UNREAD_LEAST: Final = 256 * KIB  # one window of yamux
UNREAD_MOST: Final = 4 * MIB  # a full window at 300 Mbit/s and 100 ms
EMBEDDED_PEER: Final = 1 * MIB  # node/http2: a window of 512 KiB unread, 512 KiB unsent

# --- files of the daemon
NODE_FDS: Final = 2  # a health check of the node, and its RPC
GOSSIP: Final = 4  # other nodes that are asked for addresses at once
RELAYS: Final = 4  # relays that we keep reservations at, if fewer are declared
VISITORS: Final = 16  # connections beyond the caps: peers that identify, ask and leave
PUNCHES: Final = 8  # under way: the norm of private peers may all come at once
DIALS: Final = 16  # sockets that are being connected: two addresses for each punch
SCRAPERS: Final = 4  # a pair of Prometheus servers, their replacement and a human
OPERATORS: Final = 8  # a few shells with `status --watch`, and scripts
HEADROOM: Final = 16  # one part in 16 of files and of memory is left alone
LEAST_SPARE_FDS: Final = 16
FD_CEILING: Final = 65_536
"""More open files than the caps can ever use; a larger limit only costs kernel memory."""

# --- how much of the machine is ours
MEMORY_PART_BESIDE_KASPAD: Final = 8
MEMORY_PART_ALONE: Final = 3
MEMORY_FLOOR: Final = 112 * MIB
MEMORY_CEILING: Final = 4 * GIB
SYSTEM_MEMORY: Final = 48 * MIB  # systemd, journald, udev, networkd of a Debian that does no more
SYSTEM_PART: Final = 16  # and a sixteenth for the kernel's own tables
SSH_MEMORY: Final = 16 * MIB  # sshd and two sessions
OBSERVABILITY_MEMORY: Final = 32 * MIB  # the node exporter
CONNTRACK_PART: Final = 4  # a quarter: the household behind the same router needs the rest
UPSTREAM_PART: Final = 2  # half of the new connections that the router takes, each way
RELAY_LINK_PART: Final = 4  # a quarter of the line for strangers
CIRCUIT_PART: Final = 2  # half of that for one circuit: the next finds room at once
CIRCUIT_RATE: Final = 16 * KIB  # bytes a second for each of them when all are busy
RELAY_RATE: Final = {"x86_64": 80_000_000}
"""Bytes a second that one core relays at half load: 4 to 5 ms a megabyte (docs/benchmarks.md)."""
RELAY_RATE_ELSEWHERE: Final = 8_000_000  # assumed for cores without instructions for ciphers
RESERVATIONS_PER_CORE: Final = 1024  # pings and renewals of 1,024 holders: a few percent of a core
CORES_COUNTED: Final = 16  # one process: more cores than this do not help it

# --- systemd's TasksMax
WORKERS: Final = 40  # trio's own limit of worker threads
SPARE_THREADS: Final = 16

# --- the address book
ENTRIES_PART: Final = 32  # of our memory, for the index of the address book
ENTRY_MEMORY: Final = 136  # docs/address-book.md: 132 bytes an entry, rounded up
ENTRIES_LEAST: Final = 4096
AS_TABLE_MEMORY: Final = 24 * MIB  # docs/address-book.md: 2,000,000 ranges, 8 to 12 bytes each
ENTRIES_MOST: Final = 1_000_000

# --- kaspad: rusty-kaspa 2.0.1
KASPAD_FDS: Final = 8192  # kaspad/src/daemon.rs, DESIRED_DAEMON_SOFT_FD_LIMIT
KASPAD_FDS_LEAST: Final = 4096  # the same, MINIMUM_DAEMON_SOFT_FD_LIMIT
KASPAD_PEERS_PART: Final = 8  # an eighth of its files for sockets, the rest for its database
KASPAD_RPC_CLIENTS: Final = 128  # kaspad/src/args.rs, rpcmaxclients
KASPAD_SCALE_MEMORY: Final = 16 * GIB
"""The machine that `--ram-scale=1` is made for: its help and docs/archival.md name 0.2 to 0.3 for
4 GB, 0.5 for 8 GB, 1.0 for 16 GB and 3.0 to 4.0 for 64 GB."""
KASPAD_SYSTEM: Final = 1 * GIB  # of that, what docs/archival.md leaves to the system
KASPAD_SCALE_LEAST: Final = 20  # hundredths; the smallest that its documents name
KASPAD_SCALE_MOST: Final = 400  # hundredths; beyond 4.0 they promise nothing

PARTS: Final = {
    "inbound_private": 3,
    "outbound_private": 2,
    "outbound_direct": 4,
    "inbound_direct": 3,
    "relay_reservations": 2,
    "relay_circuits": 2,
}
"""The caps that open something, in the order in which they are served: one part in so many of what
is left after their minima and after those before them. The two of the relay come last and share
alike: their wishes grow with the machine, the others' do not."""

OPENS: Final = {
    "inbound_private": "its connection, and a pipe to the node",
    "outbound_private": "its connection, its slot, and the slot's pipe",
    "inbound_direct": "its connection, and another one that shakes hands",
    "outbound_direct": "its connection",
    "relay_reservations": "the holder's connection",
    "relay_circuits": "the dialler's connection; the target's is its reservation's",
}


def memory_of(*names: str) -> int:
    """Bytes of one of each of these, measured."""
    return sum(UNITS[name].memory_bytes + UNITS[name].kernel_bytes for name in names)


def fds_of(*names: str) -> int:
    """Open files of one of each of these, measured."""
    return sum(UNITS[name].fds for name in names)


def conntrack_of(*names: str) -> int:
    """Tracked connections of one of each of these, measured."""
    return sum(UNITS[name].conntrack for name in names)
