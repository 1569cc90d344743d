"""The internet of the laboratory: carries IPv4 frames between links, each after a fixed delay.

Links are veth ends in the WAN's namespace, read and written through packet sockets. (A TUN device
would need /dev/net/tun, which containers lack and which users often may not open.) All hosts' WAN
interfaces have one MAC address and no ARP, so that a frame goes to another link unchanged.

`python -m appliance.lab.forwarder CONFIG_JSON` is a process of its own, so that nothing else that
the laboratory does delays a packet. It prints its counters as one JSON line at the end of file on
standard input and ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import struct
import sys
import time
from collections import deque
from dataclasses import asdict, dataclass, field
from typing import Final

ETH_P_IP: Final = 0x0800
_ETHERNET_HEADER: Final = 14
_DESTINATION: Final = slice(_ETHERNET_HEADER + 16, _ETHERNET_HEADER + 20)
_FRAME: Final = 65536
# linux/if_packet.h; the socket module does not name the second.
_SOL_PACKET: Final = 263
_PACKET_STATISTICS: Final = 6
# Frames read from one link before the others and the clock get a look.
_BATCH: Final = 64
# A second of 100 Mbit/s full-size frames: more than a home's line holds at 200 ms.
QUEUE_FRAMES: Final = 8192
# The kernel clamps it to net.core.rmem_max for those who are not root.
_RECEIVE_BUFFER: Final = 4 * 1024 * 1024


@dataclass(slots=True)
class Counters:
    """What happened to frames; every frame read ends in exactly one of them or is still queued."""

    forwarded: int = 0
    forwarded_bytes: int = 0
    no_route: int = 0
    queue_full: int = 0
    send_failed: int = 0
    overrun: int = 0  # never read: the kernel had no room for them, as this process was too late


@dataclass(slots=True)
class Wan:
    """The routing and delaying part, without I/O: frames in, due frames out.

    One delay for all, so that the queue is in order of time. `routes` maps 4-byte destination
    addresses to link numbers.
    """

    routes: dict[bytes, int]
    delay: float = 0.0
    capacity: int = QUEUE_FRAMES
    counters: Counters = field(default_factory=Counters)
    _queue: deque[tuple[float, int, bytes]] = field(default_factory=deque)

    def accept(self, frame: bytes, now: float) -> None:
        """Queue an Ethernet frame for its destination's link, or drop and count it."""
        link = self.routes.get(frame[_DESTINATION])
        if link is None:
            self.counters.no_route += 1
        elif len(self._queue) >= self.capacity:
            self.counters.queue_full += 1
        else:
            self._queue.append((now + self.delay, link, frame))

    def next_due(self) -> float | None:
        """When the next frame is to leave; None when nothing waits."""
        return self._queue[0][0] if self._queue else None

    def pop_due(self, now: float) -> tuple[int, bytes] | None:
        """The next (link, frame) whose time has come."""
        if self._queue and self._queue[0][0] <= now:
            _, link, frame = self._queue.popleft()
            return link, frame
        return None


def open_link(interface: str) -> socket.socket:
    """A non-blocking packet socket for the IPv4 frames that arrive on `interface`."""
    link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_IP))
    try:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        link.bind((interface, ETH_P_IP))
        link.setblocking(False)
    except BaseException:  # whatever it is: the socket has no other owner
        link.close()
        raise
    return link


def forward(links: list[socket.socket], wan: Wan, stop: int) -> None:
    """Carry frames until `stop`, a descriptor, is readable."""
    clock = time.monotonic
    watched: list[socket.socket | int] = [*links, stop]
    while True:
        due = wan.next_due()
        # select, not epoll: its time-out is in microseconds, and there are four descriptors.
        timeout = None if due is None else max(0.0, due - clock())
        readable, _, _ = select.select(watched, [], [], timeout)
        for ready in readable:
            if isinstance(ready, int):
                return
            with contextlib.suppress(BlockingIOError):
                for _ in range(_BATCH):
                    wan.accept(ready.recv(_FRAME), clock())
        now = clock()
        while (leaving := wan.pop_due(now)) is not None:
            _send(links[leaving[0]], leaving[1], wan.counters)


def _send(link: socket.socket, frame: bytes, counters: Counters) -> None:
    try:
        link.send(frame)
    except OSError:
        # As on a real line: the frame is lost, TCP will notice.
        counters.send_failed += 1
    else:
        counters.forwarded += 1
        counters.forwarded_bytes += len(frame) - _ETHERNET_HEADER


def overruns(link: socket.socket) -> int:
    """Frames that the kernel dropped in front of this link since the last call (packet(7))."""
    _, dropped = struct.unpack("=II", link.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
    return int(dropped)


def _say(line: str) -> None:
    # The world may be dying: then nobody listens, and nothing is wrong.
    with contextlib.suppress(BrokenPipeError):
        os.write(sys.stdout.fileno(), line.encode() + b"\n")


def main() -> int:
    """Entry of the process; the argument is `{"links": [[interface, ip], …], "delay_ms": n}`."""
    config = json.loads(sys.argv[1])
    links = [open_link(interface) for interface, _ in config["links"]]
    routes = {socket.inet_aton(ip): index for index, (_, ip) in enumerate(config["links"])}
    wan = Wan(routes=routes, delay=config["delay_ms"] / 1000)
    _say("ready")
    forward(links, wan, sys.stdin.fileno())
    wan.counters.overrun = sum(map(overruns, links))
    _say(json.dumps(asdict(wan.counters)))
    return 0


if __name__ == "__main__":
    # The laboratory must not lose packets because a compiler runs beside it.
    if os.geteuid() == 0:
        with contextlib.suppress(OSError):
            os.nice(-5)
    sys.exit(main())
