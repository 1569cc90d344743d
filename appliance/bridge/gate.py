"""Who may come in: the caps on connections, and the punches whose sockets are expected.

Handshakes in progress count like connections, so that no cap can be passed while they last.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from appliance.errors import Refused
from appliance.network import Endpoint
from appliance.reasons import Reason


@dataclass(frozen=True, slots=True)
class HostLimits:
    """The plan's caps (`sizing`), as far as the host keeps them."""

    connections: int
    """In all, those that shake hands included."""
    connections_per_ip: int = 32
    handshakes: int = 64
    streams_per_connection: int = 64
    punches: int = 8
    """At once; also the sockets above each cap that only the addresses of punches in progress may
    take. More would let a peer that announces an address flood us from there."""
    dials: int = 16
    """Sockets that are being connected."""
    dials_per_second: int = 15
    """New connections that we begin, over a while."""


@dataclass(frozen=True, slots=True, eq=False)
class Expected:
    """A punch in progress: its socket may come in through the listener."""

    peer_id: str
    addresses: frozenset[Endpoint]
    client: bool
    introduced_by: str | None

    @property
    def hosts(self) -> frozenset[str]:
        return frozenset(endpoint.host for endpoint in self.addresses)


def one_customer(ip: str) -> str:
    """What a cap per address counts by: an IPv4 address, or the /64 that an IPv6 host owns."""
    address = ipaddress.ip_address(ip)
    if address.version == 4:
        return ip
    return str(ipaddress.ip_network((address, 64), strict=False))


class Gate:
    """Counts what is open and what is being opened. No I/O."""

    def __init__(self, limits: HostLimits) -> None:
        self.limits = limits
        self.connections = 0
        self.handshakes = 0
        self.closing = False
        """Set at shutdown: nobody gets in any more."""
        self._per_ip: Counter[str] = Counter()
        self._expected: list[Expected] = []

    @contextmanager
    def expecting(self, expected: Expected) -> Iterator[None]:
        self._expected.append(expected)
        try:
            yield
        finally:
            self._expected.remove(expected)

    def expectation_for(self, remote: Endpoint) -> Expected | None:
        """The punch that a socket from `remote` belongs to, as far as addresses can tell."""
        for expected in self._expected:
            if remote in expected.addresses:
                return expected
        # The NAT in front of the peer may have changed its port for us.
        same_host = [expected for expected in self._expected if remote.host in expected.hosts]
        return same_host[0] if len(same_host) == 1 else None

    def check_room(self, *, spare: int = 0) -> None:
        """Raises Refused if there are as many connections as may be."""
        if self.connections + self.handshakes >= self.limits.connections + spare:
            raise Refused(Reason.CONNECTIONS_FULL, f"{self.limits.connections} in use")

    def enter(self, ip: str) -> None:
        """Admit a socket and count its handshake; `left` follows. Raises Refused."""
        if self.closing:
            raise Refused(Reason.SHUTTING_DOWN)
        limits = self.limits
        expected = any(ip in expected.hosts for expected in self._expected)
        spare = limits.punches if expected else 0
        if self.handshakes >= limits.handshakes + spare:
            raise Refused(Reason.HANDSHAKES_FULL, f"{limits.handshakes} at once")
        self.check_room(spare=spare)
        if self._per_ip[one_customer(ip)] >= limits.connections_per_ip + spare:
            raise Refused(Reason.CONNECTIONS_PER_IP_FULL, f"{limits.connections_per_ip}")
        self.handshakes += 1
        self._per_ip[one_customer(ip)] += 1

    def left(self, ip: str) -> None:
        """The handshake is over, well or not."""
        self.handshakes -= 1
        self._less(ip)

    def opened(self, ip: str | None) -> None:
        """A connection stands; `ip` is None for one inside a circuit."""
        self.connections += 1
        if ip is not None:
            self._per_ip[one_customer(ip)] += 1

    def closed(self, ip: str | None) -> None:
        self.connections -= 1
        if ip is not None:
            self._less(ip)

    def _less(self, ip: str) -> None:
        customer = one_customer(ip)
        self._per_ip[customer] -= 1
        if not self._per_ip[customer]:
            del self._per_ip[customer]
