"""Knocks at TCP ports and prints, as JSON, what came of it.

    python -m tests.roles.scan ADDRESS [--source ADDRESS]
    python -m tests.roles.scan ADDRESS --port N --times N [--source ADDRESS] [--step N]

The first form tries every port and prints the open ones and how many refused; silence is what a
filter that drops gives. The second opens one port many times at once, and prints how many
connections came about.
"""

from __future__ import annotations

import argparse
import errno
import ipaddress
import itertools
import json
import os
import resource
import select
import socket
import time
from dataclasses import dataclass
from typing import Final

PORTS: Final = range(1, 65536)
PATIENCE: Final = 0.8  # seconds: shorter than the second after which the kernel asks again
BIND_ADDRESS_NO_PORT: Final = 24  # of linux/in.h: the port is chosen when the door is known
ROOM: Final = 256  # descriptors left for everything but knocking


@dataclass(frozen=True, slots=True)
class Door:
    """Where to knock, and from which address; None is the system's choice."""

    address: str
    port: int
    source: str | None = None


def knock(doors: list[Door]) -> tuple[list[Door], int]:
    """Tries all at once: the doors that opened, and how many refused. Opened ones stay open until
    all are judged. Errors: OSError when it could not even be tried."""
    pending: dict[int, tuple[Door, socket.socket]] = {}
    poll = select.epoll()
    try:
        for door in doors:
            family = socket.AF_INET6 if ":" in door.address else socket.AF_INET
            sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            pending[sock.fileno()] = (door, sock)
            if door.source is not None:
                sock.setsockopt(socket.IPPROTO_IP, BIND_ADDRESS_NO_PORT, 1)
                sock.bind((door.source, 0))
            code = sock.connect_ex((door.address, door.port))
            if code not in {0, errno.EINPROGRESS, errno.ECONNREFUSED}:
                raise OSError(code, os.strerror(code), f"{door}")
            poll.register(sock, select.EPOLLOUT)
        opened: list[Door] = []
        refused = 0
        until = time.monotonic() + PATIENCE
        while len(opened) + refused < len(doors) and (left := until - time.monotonic()) > 0:
            for descriptor, _ in poll.poll(left):
                door, sock = pending[descriptor]
                poll.unregister(descriptor)
                match sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    case 0:
                        opened.append(door)
                    case errno.ECONNREFUSED:
                        refused += 1
                    case code:
                        raise OSError(code, os.strerror(code), f"{door}")
        return opened, refused
    finally:
        poll.close()
        for _, sock in pending.values():
            sock.close()


def scan(address: str, source: str | None) -> dict[str, object]:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    ports = iter(PORTS)
    opened: list[int] = []
    refused = 0
    while batch := list(itertools.islice(ports, min(most, 16384) - ROOM)):
        found, denied = knock([Door(address, port, source) for port in batch])
        opened += [door.port for door in found]
        refused += denied
    return {"open": sorted(opened), "refused": refused}


def repeat(address: str, port: int, sources: list[str | None]) -> dict[str, object]:
    opened, _ = knock([Door(address, port, source) for source in sources])
    return {"connected": len(opened), "tried": len(sources)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("--source", help="address to come from; the first, with --step")
    parser.add_argument("--step", type=int, default=0, help="how far the next one's source is off")
    parser.add_argument("--port", type=int)
    parser.add_argument("--times", type=int, default=1)
    given = parser.parse_args()
    if given.port is None:
        found = scan(given.address, given.source)
    else:
        sources = [
            given.source and str(ipaddress.ip_address(given.source) + given.step * index)
            for index in range(given.times)
        ]
        found = repeat(given.address, given.port, sources)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
