"""The map: public hosts, and homes behind routers, on a WAN with a delay.

```
   home-a ──lan── router-a ═╗             ╔═ router-b ──lan── home-b
 192.168.1.10   203.0.113.21╠═ forwarder ═╣203.0.113.77    192.168.1.20
                            ╚══ relay ════╝
                            198.51.100.10
```

All homes use the same LAN range, as real homes do. WAN addresses are from the documentation ranges
(RFC 5737), which the appliance treats as any public address.
"""

from __future__ import annotations

import array
import fcntl
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from appliance.errors import ApplianceError
from appliance.lab.kernel import NetNamespace
from appliance.lab.routers import LAN_INTERFACE, WAN_INTERFACE, Router

RELAY_IP: Final = "198.51.100.10"
ROUTER_IPS: Final = {"a": "203.0.113.21", "b": "203.0.113.77"}
LAN_ROUTER_IP: Final = "192.168.1.1"
HOME_IPS: Final = {"a": "192.168.1.10", "b": "192.168.1.20"}

# On every WAN interface; see forwarder.py.
_WAN_MAC: Final = "02:00:00:00:00:01"
_SBIN: Final = ("/usr/sbin", "/sbin", "/usr/local/sbin")

# linux/sockios.h, linux/ethtool.h
_SIOCETHTOOL: Final = 0x8946
_ETHTOOL_STXCSUM: Final = 0x17
_ETHTOOL_STSO: Final = 0x1F


def find_tool(name: str) -> str:
    """The path of a system tool, also where `sbin` is not on the PATH. Raises ApplianceError."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *_SBIN])
    found = shutil.which(name, path=path)
    if found is None:
        package = {"ip": "iproute2", "nft": "nftables"}[name]
        raise ApplianceError(
            f"the laboratory needs the command {name}, which is not installed",
            hint=f"install the package {package}",
        )
    return found


def _tool(command: Sequence[str], text: str) -> None:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        complaint = (done.stderr.strip().splitlines() or ["no message"])[0]
        raise ApplianceError(f"{Path(command[0]).name} failed in the laboratory: {complaint}")


def _ip(namespace: NetNamespace, commands: str) -> None:
    with namespace.entered():
        _tool([find_tool("ip"), "-batch", "-"], commands)


def _plain_frames(namespace: NetNamespace, interface: str) -> None:
    """Make the kernel finish checksums and cut segments before a frame leaves `interface`.

    A veth passes unfinished frames on, which is fine between kernels but not through a forwarder.
    """
    with namespace.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for command in (_ETHTOOL_STXCSUM, _ETHTOOL_STSO):
            value = array.array("I", [command, 0])
            request = struct.pack("16sP", interface.encode(), value.buffer_info()[0])
            fcntl.ioctl(control, _SIOCETHTOOL, request)


@dataclass(frozen=True, slots=True)
class Home:
    """A host in a LAN, and the router between it and the WAN."""

    ip: str
    router_ip: str
    router: Router


@dataclass(frozen=True, slots=True)
class Topology:
    """The namespaces of a built map, by name, and the running forwarder."""

    namespaces: dict[str, NetNamespace]
    forwarder: subprocess.Popen[str]

    def stop_forwarder(self) -> dict[str, Any]:
        """End it; returns its counters."""
        assert self.forwarder.stdin is not None
        assert self.forwarder.stdout is not None
        self.forwarder.stdin.close()
        line = self.forwarder.stdout.readline()
        self.forwarder.wait()
        counters: dict[str, Any] = json.loads(line or "{}")
        return counters


def _create_namespaces(names: Sequence[str]) -> dict[str, NetNamespace]:
    namespaces = {}
    for name in names:
        namespaces[name] = NetNamespace.create(name)
        _ip(namespaces[name], "link set lo up\n")
    return namespaces


def _attach_to_wan(wan: NetNamespace, host: NetNamespace, end: str, ip: str) -> None:
    peer = f"/proc/{os.getpid()}/fd/{host.fd}"
    _ip(
        wan,
        f"link add {end} type veth peer name {WAN_INTERFACE} netns {peer}\nlink set {end} up\n",
    )
    _ip(
        host,
        f"link set {WAN_INTERFACE} address {_WAN_MAC} arp off up\n"
        f"address add {ip}/32 dev {WAN_INTERFACE}\n"
        f"route add default dev {WAN_INTERFACE} src {ip}\n",
    )
    _plain_frames(host, WAN_INTERFACE)


def _attach_home(router: NetNamespace, home: NetNamespace, ip: str, kind: Router) -> None:
    peer = f"/proc/{os.getpid()}/fd/{home.fd}"
    _ip(
        router,
        f"link add {LAN_INTERFACE} type veth peer name {LAN_INTERFACE} netns {peer}\n"
        f"link set {LAN_INTERFACE} up\n"
        f"address add {LAN_ROUTER_IP}/24 dev {LAN_INTERFACE}\n",
    )
    _ip(
        home,
        f"link set {LAN_INTERFACE} up\n"
        f"address add {ip}/24 dev {LAN_INTERFACE}\n"
        f"route add default via {LAN_ROUTER_IP}\n",
    )
    with router.entered():
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1\n", encoding="ascii")
        _tool([find_tool("nft"), "-f", "-"], kind.ruleset())


def _start_forwarder(
    wan: NetNamespace, links: Sequence[tuple[str, str]], delay_ms: float
) -> subprocess.Popen[str]:
    config = json.dumps({"links": links, "delay_ms": delay_ms})
    with wan.entered():
        process = subprocess.Popen(
            [sys.executable, "-m", "appliance.lab.forwarder", config],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
    assert process.stdout is not None
    if not process.stdout.readline():
        raise ApplianceError("the laboratory's forwarder did not start")
    return process


def router_of(home: str) -> str:
    """The name of the host that stands between this home and the WAN."""
    return home.replace("home", "router", 1)


@contextmanager
def built(
    publics: Mapping[str, str], homes: Mapping[str, Home], delay_ms: float
) -> Iterator[Topology]:
    """Build a map of public hosts (name → address) and homes (called `home-…`).

    The forwarder ends with the block, the namespaces with the process. `delay_ms` is one way,
    between any two WAN addresses. Blocks for some 30 ms a host. Raises ApplianceError where tools
    or kernel parts are missing.
    """
    on_wan = {**publics, **{router_of(name): home.router_ip for name, home in homes.items()}}
    namespaces = _create_namespaces(["wan", *on_wan, *homes])
    links = []
    for host, ip in on_wan.items():
        end = f"to-{host}"
        _attach_to_wan(namespaces["wan"], namespaces[host], end, ip)
        links.append((end, ip))
    for name, home in homes.items():
        _attach_home(namespaces[router_of(name)], namespaces[name], home.ip, home.router)
    forwarder = _start_forwarder(namespaces["wan"], links, delay_ms)
    try:
        yield Topology(namespaces, forwarder)
    finally:
        forwarder.kill()
        forwarder.wait()


@contextmanager
def two_homes(router_a: Router, router_b: Router, delay_ms: float) -> Iterator[Topology]:
    """The map above: `relay`, and `home-a` and `home-b` behind such routers."""
    homes = {
        f"home-{side}": Home(HOME_IPS[side], ROUTER_IPS[side], kind)
        for side, kind in (("a", router_a), ("b", router_b))
    }
    with built({"relay": RELAY_IP}, homes, delay_ms) as topology:
        yield topology
