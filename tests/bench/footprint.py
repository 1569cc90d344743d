"""What the channel and muxer alone hold for an idle connection, an idle stream and a circuit.

    .venv/bin/python -m tests.bench.footprint

One process, real sockets, the real channel and muxer, nothing of the host above them. Memory is
what the kernel counts as ours alone (Private_Dirty), the same before subtracted; the first rows
carry what is paid once, the last what one more costs.
"""

from __future__ import annotations

import gc
import socket
from pathlib import Path
from typing import Final

import trio

from appliance.dataplane.channel import CipherState, SecureChannel
from appliance.dataplane.pipe import PipeCounts, PipeEnd
from appliance.dataplane.plane import Plane
from appliance.dataplane.secure import SecureStream
from appliance.dataplane.session import MuxStream, Session
from appliance.dataplane.splice import Splice
from appliance.dataplane.tcp import TcpStream
from tests.bench.machine import raise_file_limit

COUNTS: Final = (10, 100, 1_000, 9_000)
"""Two descriptors for a connection: both ends are here."""
KEY: Final = bytes(32)
UNLIMITED: Final = 1 << 30


def held() -> int:
    gc.collect()
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty"))


def ignore_stream(_: MuxStream) -> None:
    pass


def ignore_end(_: PipeEnd) -> None:
    pass


class World:
    """Connections to peers that are sockets and nothing more."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._plane = Plane()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1000)
        self._peers: list[socket.socket] = []
        self.sessions: list[Session] = []
        self.streams: list[MuxStream] = []
        self.splices: list[Splice] = []

    def connect(self) -> None:
        self._peers.append(socket.create_connection(self._listener.getsockname()))
        sock, _ = self._listener.accept()
        tcp = TcpStream(trio.socket.from_stdlib_socket(sock))
        channel = SecureChannel(CipherState(KEY), CipherState(KEY))
        carrier = SecureStream(tcp, channel)
        session = Session(carrier, client=True, max_inbound=UNLIMITED, plane=self._plane)
        self.sessions.append(session)
        self._nursery.start_soon(session.run, ignore_stream)

    def open(self) -> None:
        self.streams.append(self.sessions[0].open_stream())

    def join(self) -> None:
        left, right = (session.open_stream() for session in self.sessions[1:3])
        counts = PipeCounts()
        self.splices.append(Splice(left, right, counts, plane=self._plane, on_end=ignore_end))

    def close(self) -> None:
        for sock in (self._listener, *self._peers):
            sock.close()


def tasks() -> int:
    return trio.lowlevel.current_statistics().tasks_living


async def main() -> None:
    print(f"{'':12} {'count':>6} {'bytes each':>11} {'the last each':>14} {'tasks each':>11}")
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        for name, add in (
            ("connection", world.connect),
            ("stream", world.open),
            ("circuit", world.join),
        ):
            empty = before = held()
            idle, have = tasks(), 0
            for count in COUNTS:
                more, have = count - have, count
                for number in range(more):
                    add()
                    if number % 100 == 0:
                        await trio.sleep(0.01)
                await trio.sleep(0.1)
                now, each = held(), (tasks() - idle) / count
                print(
                    f"{name:12} {count:6} {(now - empty) // count:11} "
                    f"{(now - before) // more:14} {each:11.2f}"
                )
                before = now
        world.close()
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    raise_file_limit()
    trio.run(main)
