"""What one unit of each cap costs, and what the process takes before the first peer: one table.

The memory figures are provisional: taken from measurements of the library that we stand on (one
noise + yamux connection 63 KB, one circuit 20 KB, an idle host 88 MB and 12 open files) and rounded
up. The sizing issue measures our own and replaces them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from appliance.units import GIB, KIB, MIB

# --- memory of the parts, provisional
CONNECTION_MEMORY: Final = 64 * KIB + 32 * KIB  # 63 KB measured in the process; socket buffers
PIPE_MEMORY: Final = 2 * 64 * KIB + 32 * KIB  # 64 KiB each way, and the socket to the node
STREAM_MEMORY: Final = 256 * KIB  # yamux's initial receive window: a peer may fill it
CIRCUIT_MEMORY: Final = 20 * KIB  # measured with the library's relay
STREAMS: Final = {"inbound_private": 1, "outbound_private": 1, "inbound_direct": 1,
                  "relay_circuits": 2}  # fmt: skip
"""Streams of a unit that may hold `STREAM_MEMORY`."""
UNREAD_PART: Final = 8  # an eighth for one connection: nobody alone can hold it all
UNREAD_PER_CONNECTION: Final = 4 * MIB  # a full window at 300 Mbit/s and 100 ms

# --- the process before the first peer
PROCESS_MEMORY: Final = 104 * MIB  # 88 MB measured for an idle host; embedded node, store, metrics
STORE_MEMORY: Final = 24 * MIB  # RocksDB: block cache 8 MiB, two write buffers of 4 MiB, slack
RUNTIME_FDS: Final = 16  # 12 measured for an idle host: standard streams, epoll, wake-up, log
STORE_FDS: Final = 64  # RocksDB with max_open_files = 48, its log, lock and manifest
NODE_FDS: Final = 4  # RPC and health checks of the node
METRICS_FDS: Final = 4  # scrapers at once
CONTROL_FDS: Final = 8  # operators at once, each a socket and perhaps a file
DIAL_FDS: Final = 16  # dials and punches under way: 4 at once, 4 addresses each
HANDSHAKE_FDS: Final = 16  # accepted, not yet authenticated
RELAY_FDS: Final = 4  # relays that we keep reservations at, if fewer are declared
HEADROOM: Final = 16  # one part in 16 of files and of memory is left alone

FD_CEILING: Final = 65_536
"""More open files than the caps can ever use; a larger limit only costs kernel memory."""

# --- how much of the machine is ours
MEMORY_PART_BESIDE_KASPAD: Final = 8
MEMORY_PART_EMBEDDED: Final = 4
MEMORY_FLOOR: Final = 256 * MIB
MEMORY_CEILING: Final = 4 * GIB
CONNTRACK_PART: Final = 4  # a quarter: the household behind the same router needs the rest
RELAY_LINK_PART: Final = 4  # a quarter of the line for strangers
CIRCUIT_PART: Final = 2  # half of that for one circuit: the next finds room at once
TASKS_MAX: Final = 128  # one thread runs us; RocksDB's and trio's worker threads come on top

SHARES: Final = 16
"""What is left after the minima is dealt out in sixteenths, by `UnitCost.share`."""


@dataclass(frozen=True, slots=True)
class UnitCost:
    """One unit of a cap. `pipes` are connections to the node; an embedded node holds their other
    end too. `share` is in sixteenths."""

    connections: int
    pipes: int
    memory: int
    share: int
    because: str

    def fds(self, *, embedded: bool) -> int:
        return self.connections + self.pipes * (2 if embedded else 1)

    def conntrack(self) -> int:
        return self.connections + self.pipes


_PEER_MEMORY: Final = CONNECTION_MEMORY + STREAM_MEMORY + PIPE_MEMORY

UNIT_COSTS: Final[dict[str, UnitCost]] = {
    "inbound_private": UnitCost(1, 1, _PEER_MEMORY, 2, "its connection, and a pipe to the node"),
    "outbound_private": UnitCost(1, 1, _PEER_MEMORY, 2, "its connection, and the slot's pipe"),
    "outbound_direct": UnitCost(1, 0, CONNECTION_MEMORY + PIPE_MEMORY, 1, "one connection"),
    "inbound_direct": UnitCost(1, 1, _PEER_MEMORY, 4, "its connection, and a pipe to the node"),
    "relay_reservations": UnitCost(1, 0, CONNECTION_MEMORY, 3, "the holder's connection"),
    "relay_circuits": UnitCost(
        1,
        0,
        CONNECTION_MEMORY + CIRCUIT_MEMORY + 2 * STREAM_MEMORY,
        4,
        "the dialler's connection; the target's is its reservation's",
    ),
}
"""The caps that open something. The others only divide these."""

assert sum(cost.share for cost in UNIT_COSTS.values()) == SHARES
