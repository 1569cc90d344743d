"""Which private peers may reach the node: the budget, and each relay's share of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from appliance.errors import Refused
from appliance.reasons import Reason


@dataclass(frozen=True, slots=True)
class InboundLimits:
    """The plan's caps for streams that the bridge brings to the node."""

    private: int
    per_relay: int
    unknown_relay: int


@dataclass(frozen=True, slots=True)
class Admission:
    """One admitted stream; hand it back with `leave`."""

    peer_id: str
    relay: str | None


class InboundBudget:
    """Admits one stream per peer, within the private budget and the relay's quota.

    `relay` is the peer id of the relay that introduced the peer (also of a punched connection),
    None where nobody did; those share the quota of unknown relays.
    """

    def __init__(self, limits: InboundLimits) -> None:
        self.limits = limits
        self._peers: dict[str, Admission] = {}
        self._per_relay: Counter[str] = Counter()
        self._unknown = 0

    @property
    def used(self) -> int:
        return len(self._peers)

    def holds(self, peer_id: str) -> bool:
        """Whether a stream of the peer is admitted."""
        return peer_id in self._peers

    def per_relay(self) -> dict[str, int]:
        """Streams in use by introducing relay."""
        return dict(self._per_relay)

    def admit(self, peer_id: str, relay: str | None) -> Admission:
        """Raises Refused with the binding limit."""
        if peer_id in self._peers:
            raise Refused(Reason.PEER_HAS_STREAM)
        if len(self._peers) >= self.limits.private:
            raise Refused(Reason.INBOUND_PRIVATE_FULL, f"{self.limits.private} in use")
        if relay is None:
            if self._unknown >= self.limits.unknown_relay:
                raise Refused(Reason.UNKNOWN_RELAY_FULL, f"{self.limits.unknown_relay} in use")
            self._unknown += 1
        else:
            if self._per_relay[relay] >= self.limits.per_relay:
                raise Refused(Reason.PER_RELAY_FULL, f"{self.limits.per_relay} in use")
            self._per_relay[relay] += 1
        admission = Admission(peer_id, relay)
        self._peers[peer_id] = admission
        return admission

    def leave(self, admission: Admission) -> None:
        """Idempotent."""
        if self._peers.get(admission.peer_id) is not admission:
            return
        del self._peers[admission.peer_id]
        if admission.relay is None:
            self._unknown -= 1
        else:
            self._per_relay[admission.relay] -= 1
            if not self._per_relay[admission.relay]:
                del self._per_relay[admission.relay]
