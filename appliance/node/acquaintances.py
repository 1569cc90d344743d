"""What the node says of itself and of others: its claim, and the addresses that it passes on."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable, Iterable
from dataclasses import replace
from ipaddress import ip_address
from typing import Final

from appliance.clock import Clock
from appliance.errors import RemoteProtocolError
from appliance.events import emit
from appliance.network import Endpoint
from appliance.node.address_list import AddressList
from appliance.wire.capability import (
    Claim,
    PublicClaim,
    claimed_address,
    claiming,
    read_claim,
    read_version,
    understands_claims,
)
from appliance.wire.kaspa_messages import MAX_ADDRESSES_SENT, IpAddress, NetAddress, Version
from appliance.wire.synthetic import is_synthetic

_log: Final = logging.getLogger(__name__)


class Acquaintances:
    """`claim` is asked whenever something is said of us; `external` is said if it gives none."""

    def __init__(
        self,
        rng: random.Random,
        clock: Clock,
        claim: Callable[[], Claim | None],
        external: Endpoint | None,
        known: Iterable[NetAddress],
    ) -> None:
        self._clock = clock
        self._claim = claim
        self._external = external
        self._addresses = AddressList(rng)
        self._addresses.add(known, -math.inf)  # what they claimed is over: nobody just said it

    def __len__(self) -> int:
        return len(self._addresses)

    def introduce(self, version: Version) -> Version:
        """`version` with our address in it, and all that we can claim now."""
        return claiming(replace(version, address=self._plain_address()), self._claim())

    def tell(self, asker: Version) -> list[NetAddress]:
        """The answer to who said `asker`: our own first, unless it would be taken for a host's."""
        claims, claim = understands_claims(asker), self._claim()
        helps = isinstance(claim, PublicClaim) or (claim is not None and claim.via is not None)
        own = [claimed_address(claim)] if claim is not None and helps else []
        told = [address for address in own if claims or not is_synthetic(address.ip)]
        limit = MAX_ADDRESSES_SENT - len(told)
        return told + self._addresses.sample(self._clock.monotonic(), claims=claims, limit=limit)

    def learn(self, addresses: Iterable[NetAddress]) -> None:
        """What a peer passed on. An address with a claim that cannot be is left out."""
        self._addresses.add(filter(_is_sane, addresses), self._clock.monotonic())

    def met(self, remote: Endpoint, version: Version, *, outbound: bool) -> None:
        """A peer came through the handshake: where we dialled it, and what it says of itself."""
        if outbound:
            self.learn([NetAddress(ip=ip_address(remote.host), port=remote.port)])
            self._addresses.reached(ip_address(remote.host), remote.port)
        try:
            claim = read_version(version)
        except RemoteProtocolError as error:
            emit(
                _log,
                logging.INFO,
                "kaspa_claim_ignored",
                remote=str(remote),
                reason=error.reason.value,
                detail=error.detail,
            )
            return
        if claim is not None:
            self.learn([claimed_address(claim)])
        elif version.address is not None:
            self.learn([version.address])

    def failed(self, remote: Endpoint) -> None:
        """A dial did not come through."""
        self._addresses.failed(ip_address(remote.host), remote.port)

    def forget(self, ip: IpAddress) -> None:
        self._addresses.remove_ip(ip)

    def _plain_address(self) -> NetAddress | None:
        """Only what strangers can route to is worth saying."""
        if self._external is None or not ip_address(self._external.host).is_global:
            return None
        return NetAddress(ip=ip_address(self._external.host), port=self._external.port)


def _is_sane(address: NetAddress) -> bool:
    try:
        read_claim(address)
    except RemoteProtocolError:
        return False
    return True
