"""What our relay service grants: reservations and circuits, each with its bounds.

A table of facts and answers, no I/O. The shell (`bridge.relay`) tells it what happened.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Final

from appliance.errors import Refused
from appliance.reasons import Reason

STOP_DEADLINE: Final = 15.0
"""Seconds that the target gets to accept a circuit (go-libp2p: 60 s; a slot is held meanwhile)."""


@dataclass(frozen=True, slots=True)
class RelayLimits:
    """The plan's caps and the declaration's terms. 0 means no limit for what is about circuits."""

    reservations: int
    reservations_per_ip: int
    circuits: int
    circuits_per_peer: int
    reservation_seconds: int
    circuit_seconds: int
    circuit_bytes: int
    circuit_bytes_per_second: int = 0
    """Each direction of one circuit."""
    relay_bytes_per_second: int = 0
    """All circuits together, in fair shares."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """One peer's right to be dialled through us, as long as its connection lives."""

    peer_id: str
    ip: str
    connection: int
    expires: float


class RelayTable:
    """Who has reserved, who is connected to whom.

    Times are seconds on the monotonic clock. `connection` is any number that names the live
    connection on which the reservation was made.
    """

    def __init__(self, limits: RelayLimits) -> None:
        self.limits = limits
        # In the order of their ends, since all last equally long: the first ends first.
        self._reservations: dict[str, Reservation] = {}
        self._per_ip: Counter[str] = Counter()
        self._on_connection: dict[int, set[str]] = {}
        self._circuits: dict[int, tuple[str, str]] = {}
        self._per_peer: Counter[str] = Counter()
        self._next_circuit = 1
        self.draining = False

    @property
    def reservations(self) -> int:
        """Slots in use, expired ones included until the next `expire`."""
        return len(self._reservations)

    @property
    def circuits(self) -> int:
        return len(self._circuits)

    def reserve(self, peer_id: str, ip: str, connection: int, now: float) -> Reservation:
        """Grant or renew; a renewal needs no free slot. Raises Refused."""
        self.expire(now)
        if self.draining:
            raise Refused(Reason.SHUTTING_DOWN)
        held = self._reservations.get(peer_id)
        if held is None and len(self._reservations) >= self.limits.reservations:
            raise Refused(Reason.RESERVATIONS_FULL, f"{self.limits.reservations} in use")
        same = self._per_ip[ip] - (held is not None and held.ip == ip)
        if same >= self.limits.reservations_per_ip and (held is None or held.ip != ip):
            raise Refused(Reason.RESERVATIONS_PER_IP_FULL, f"{same} from one address")
        if held is not None:
            self._forget(held)
        granted = Reservation(peer_id, ip, connection, now + self.limits.reservation_seconds)
        self._reservations[peer_id] = granted
        self._per_ip[ip] += 1
        self._on_connection.setdefault(connection, set()).add(peer_id)
        return granted

    def reservation_of(self, peer_id: str, now: float) -> Reservation:
        """The peer's valid reservation. Raises Refused(no-reservation)."""
        held = self._reservations.get(peer_id)
        if held is None or held.expires <= now:
            raise Refused(Reason.NO_RESERVATION)
        return held

    def open_circuit(self, source: str, target: str, now: float) -> int:
        """A circuit's number, counted from now on. Raises Refused."""
        if source == target:
            raise Refused(Reason.CONNECT_TO_SELF)
        if self.draining:
            raise Refused(Reason.SHUTTING_DOWN)
        self.reservation_of(target, now)
        if len(self._circuits) >= self.limits.circuits:
            raise Refused(Reason.CIRCUITS_FULL, f"{self.limits.circuits} in use")
        for peer_id in (source, target):
            if self._per_peer[peer_id] >= self.limits.circuits_per_peer:
                raise Refused(Reason.CIRCUITS_PER_PEER_FULL, f"{self.limits.circuits_per_peer}")
        number = self._next_circuit
        self._next_circuit += 1
        self._circuits[number] = (source, target)
        self._per_peer[source] += 1
        self._per_peer[target] += 1
        return number

    def close_circuit(self, number: int) -> None:
        """Idempotent."""
        for peer_id in self._circuits.pop(number, ()):
            self._per_peer[peer_id] -= 1
            if not self._per_peer[peer_id]:
                del self._per_peer[peer_id]

    def connection_closed(self, connection: int) -> None:
        """A reservation ends with the connection that it was made on (spec)."""
        for peer_id in list(self._on_connection.get(connection, ())):
            self._forget(self._reservations[peer_id])

    def expire(self, now: float) -> None:
        while self._reservations:
            first = next(iter(self._reservations.values()))
            if first.expires > now:
                return
            self._forget(first)

    def _forget(self, held: Reservation) -> None:
        del self._reservations[held.peer_id]
        peers = self._on_connection[held.connection]
        peers.remove(held.peer_id)
        if not peers:
            del self._on_connection[held.connection]
        self._per_ip[held.ip] -= 1
        if not self._per_ip[held.ip]:
            del self._per_ip[held.ip]
