"""What the laboratory's tests do inside a world; each function is a target of `world.run`."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from appliance.lab.forwarder import open_link, overruns
from appliance.lab.kernel import NetNamespace
from appliance.lab.routers import DROPS, RESETS, SYMMETRIC, Router
from appliance.lab.topology import RELAY_IP, ROUTER_IPS, Topology, two_homes
from appliance.lab.world import Send

Order = dict[str, Any]
KINDS = {"drops": DROPS, "resets": RESETS, "symmetric": SYMMETRIC}
PORT = 16112


def _kind(order: Order) -> Router:
    return KINDS[order.get("router", "drops")]


def _socket(namespace: NetNamespace, port: int = 0) -> socket.socket:
    with namespace.entered():
        made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind(("0.0.0.0", port))
    made.settimeout(5)
    return made


def _relay_listener(topology: Topology, port: int = PORT) -> socket.socket:
    listener = _socket(topology.namespaces["relay"], port)
    listener.listen()
    return listener


def how_the_relay_sees_a_home(order: Order, send: Send) -> dict[str, Any]:
    """Home A dials two ports of the relay from one port of its own."""
    kind = _kind(order)
    with two_homes(kind, kind, 0) as topology:
        seen = []
        for port in (PORT, PORT + 1):
            with (
                _relay_listener(topology, port) as listener,
                _socket(topology.namespaces["home-a"], PORT) as home,
            ):
                home.connect((RELAY_IP, port))
                accepted, address = listener.accept()
                home.sendall(b"ping")
                assert accepted.recv(4) == b"ping"
                # Reset, so that no TIME_WAIT holds the home's port.
                home.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                accepted.close()
                seen.append(address)
        return {"seen": seen, "counters": topology.stop_forwarder()}


def dial_a_home_from_outside(order: Order, send: Send) -> dict[str, Any]:
    """The relay dials home B's router, where home B listens on the same port."""
    kind = _kind(order)
    with two_homes(kind, kind, 0) as topology:
        with _socket(topology.namespaces["home-b"], PORT) as listener:
            listener.listen()
            with _socket(topology.namespaces["relay"]) as stranger:
                stranger.settimeout(1.5)
                try:
                    stranger.connect((ROUTER_IPS["b"], PORT))
                except OSError as error:
                    return {"outcome": type(error).__name__}
        return {"outcome": "connected"}


def simultaneous_open(order: Order, send: Send) -> dict[str, Any]:
    """Both homes dial each other's router at once, each from the port that the other dials."""
    kind = _kind(order)
    with two_homes(kind, kind, order.get("delay_ms", 0)) as topology:
        start = time.monotonic()
        homes = {}
        for side, other in (("a", "b"), ("b", "a")):
            home = _socket(topology.namespaces[f"home-{side}"], PORT)
            home.setblocking(False)
            assert home.connect_ex((ROUTER_IPS[other], PORT)) == errno.EINPROGRESS
            homes[side] = home
        for home in homes.values():
            _, done, _ = select.select([], [home], [], order.get("patience", 3))
            code = home.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if not done or code:
                return {"connected": False, "error": errno.errorcode.get(code, "silence")}
        took = time.monotonic() - start
        homes["a"].sendall(b"through")
        homes["b"].setblocking(True)
        return {
            "connected": homes["b"].recv(7) == b"through",
            "took": took,
            "peer": homes["b"].getpeername(),
            "shortest_round_trips": [_shortest_round_trip(home) for home in homes.values()],
        }


def _shortest_round_trip(sock: socket.socket) -> float:
    """What the kernel believes, in seconds: `tcpi_min_rtt` (linux/tcp.h)."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 152)
    (microseconds,) = struct.unpack_from("=I", info, 148)
    return float(microseconds) / 1e6


def round_trip(order: Order, send: Send) -> dict[str, Any]:
    """The smallest of ten echoes from home A to the relay, in seconds."""
    with (
        two_homes(DROPS, DROPS, order["delay_ms"]) as topology,
        _relay_listener(topology) as listener,
        _socket(topology.namespaces["home-a"]) as home,
    ):
        home.connect((RELAY_IP, PORT))
        echo, _ = listener.accept()
        times = []
        for _ in range(10):
            start = time.monotonic()
            home.sendall(b"x")
            echo.sendall(echo.recv(1))
            home.recv(1)
            times.append(time.monotonic() - start)
        return {"seconds": min(times)}


def bulk(order: Order, send: Send) -> dict[str, Any]:
    """`bytes` from home A to the relay; how long it took and what the forwarder counted."""
    total = order["bytes"]
    with two_homes(DROPS, DROPS, order.get("delay_ms", 0)) as topology:
        with _relay_listener(topology) as listener, _socket(topology.namespaces["home-a"]) as home:
            home.connect((RELAY_IP, PORT))
            sink, _ = listener.accept()
            start = time.monotonic()
            sender = threading.Thread(target=home.sendall, args=(bytes(total),))
            sender.start()
            got = 0
            while got < total:
                data = sink.recv(1 << 18)
                assert data
                got += len(data)
            took = time.monotonic() - start
            sender.join()
        return {"seconds": took, "counters": topology.stop_forwarder()}


def late_forwarder(order: Order, send: Send) -> dict[str, Any]:
    """A link that nobody reads, with room for a few frames; `frames` come."""
    with NetNamespace.create("late").entered():
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        with (
            open_link("lo") as link,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
        ):
            link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            for _ in range(order["frames"]):
                sender.sendto(bytes(1000), ("127.0.0.1", 9))
            read = 0
            with contextlib.suppress(BlockingIOError):
                while link.recv(2048):
                    read += 1
            return {"read": read, "overruns": overruns(link), "again": overruns(link)}


def linger(order: Order, send: Send) -> dict[str, Any]:
    """Fill a world with processes and files, say so, and stay until killed."""
    marker = order["marker"]
    Path(order["scratch"], marker).write_text("a file of the world", encoding="ascii")
    with two_homes(DROPS, DROPS, 0) as topology:
        for namespace in topology.namespaces.values():
            with namespace.entered():
                # A grandchild in a session of its own: nothing but the kernel will find it.
                script = f"import time; time.sleep(600) # {marker}"
                subprocess.Popen([sys.executable, "-c", script], start_new_session=True)
        send({"kind": "settled", "scratch": order["scratch"], "pid": os.getpid()})
        if order.get("raise"):
            raise RuntimeError("a bug in the laboratory")
        time.sleep(600)
    return {}


def crash(order: Order, send: Send) -> dict[str, Any]:
    """Die of a signal that also the first process of a namespace dies of."""
    ctypes.string_at(0)
    return {}
