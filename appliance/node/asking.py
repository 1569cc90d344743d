"""A short visit to a Kaspa node: shake hands, ask whom it knows, say who we are, leave.

The stream may be a TCP connection, or a libp2p stream to a relay-capable node: Kaspa's messages
are the same on both. Whoever is visited sees an ordinary peer that soon says goodbye.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import trio

from appliance import __version__
from appliance.dataplane.streams import ByteStream
from appliance.errors import RemoteProtocolError, StreamReset
from appliance.network import Network
from appliance.node import grpc
from appliance.node.grpc import GrpcCall
from appliance.reasons import Reason
from appliance.wire import kaspa_events as happened
from appliance.wire.capability import (
    Claim,
    PublicClaim,
    claimed_address,
    claiming,
    understands_claims,
)
from appliance.wire.kaspa import PROTOCOL_VERSION, KaspaSession, Timeouts
from appliance.wire.kaspa_messages import NetAddress, Version
from appliance.wire.synthetic import is_synthetic

VISIT: Final = 30.0
"""Seconds for all of it: stock's own time-outs of a handshake, and a slow answer behind them."""
ITS_TURN: Final = 2.0
"""Seconds that the node gets to ask us, too, once it has answered; stock asks at once."""
GOODBYE: Final = 1.0
"""Seconds for it to end its direction."""


@dataclass(frozen=True, slots=True)
class Visited:
    """What the node said of itself, and whom it knows; nothing of it is proven."""

    version: Version
    addresses: tuple[NetAddress, ...]


class Visitor:
    """Who visits: the same process id for all visits, and what we claim at each."""

    def __init__(
        self,
        network: Network,
        rng: random.Random,
        claim: Callable[[], Claim | None] = lambda: None,
    ) -> None:
        self._network = network
        self._rng = rng
        self._claim = claim
        # Not the embedded node's: whoever knows that one would refuse a second connection.
        self._peer_id = rng.randbytes(16)

    async def visit(
        self, stream: ByteStream, authority: str, timeouts: Timeouts | None = None
    ) -> Visited:
        """Over `stream`, which this owns and ends in any case; `authority` names the node in HTTP.

        Raises RemoteProtocolError for what the node must not say, for its reject and for its
        silence, and StreamReset. After Cancelled the stream is reset.
        """
        visited: Visited | None = None
        with trio.move_on_after(VISIT):
            async with grpc.dial(stream, authority) as call:
                visited = await self._converse(call, timeouts or Timeouts())
        if visited is None:
            raise RemoteProtocolError(Reason.KASPA_TIMEOUT, f"not done within {VISIT:g} s")
        return visited

    async def _converse(self, call: GrpcCall, timeouts: Timeouts) -> Visited:
        machine = KaspaSession(self._version(), rng=self._rng, timeouts=timeouts)
        machine.start(trio.current_time())
        conversation = _Conversation(machine, self._told)
        try:
            while not conversation.over:
                await _flush(call, machine)
                deadline = min(machine.next_deadline, conversation.leave_at)
                message: bytes | None = b""
                with trio.move_on_at(deadline) as timer:
                    message = await call.receive()
                if timer.cancelled_caught:
                    conversation.tick()
                elif message is None:
                    conversation.ended()
                else:
                    conversation.receive(message)
        except RemoteProtocolError:
            await _last_words(call, machine)
            raise
        await _last_words(call, machine)
        return conversation.result()

    def _version(self) -> Version:
        version = Version(
            protocol_version=PROTOCOL_VERSION,
            network=self._network.wire_name,
            peer_id=self._peer_id,
            user_agent=f"/kaspa-appliance:{__version__}/",
            timestamp_ms=int(time.time() * 1000),
        )
        return claiming(version, self._claim())

    def _told(self, asker: Version) -> list[NetAddress]:
        """Ourselves, if that helps the asker; an address that is none only if it understands."""
        claim = self._claim()
        if claim is None or not (isinstance(claim, PublicClaim) or claim.via is not None):
            return []
        address = claimed_address(claim)
        return [] if is_synthetic(address.ip) and not understands_claims(asker) else [address]


class _Conversation:
    """What came so far, and whether it is enough."""

    def __init__(self, machine: KaspaSession, told: Callable[[Version], list[NetAddress]]) -> None:
        self.over = False
        self.leave_at = float("inf")
        self._machine = machine
        self._told = told
        self._addresses: tuple[NetAddress, ...] | None = None
        self._was_asked = False

    def receive(self, message: bytes) -> None:
        """Raises RemoteProtocolError."""
        machine = self._machine
        events = machine.receive(message, trio.current_time())
        while events:
            event = events.pop(0)
            match event:
                case happened.PeerIdentified():
                    events += machine.accept(trio.current_time())
                case happened.AddressesRequested():
                    assert machine.peer is not None  # questions are heard after the handshake
                    machine.send_addresses(self._told(machine.peer))
                    self._was_asked = True
                case happened.AddressesReceived(addresses):
                    self._addresses = addresses
                    self.leave_at = trio.current_time() + ITS_TURN
                case happened.RejectReceived(text):
                    self.over = True
                    if self._addresses is None:
                        raise RemoteProtocolError(Reason.REJECTED_BY_PEER, text[:200])
        if self._addresses is not None and self._was_asked:
            self.over = True

    def tick(self) -> None:
        """Raises RemoteProtocolError for what did not come in time."""
        now = trio.current_time()
        if now >= self.leave_at:
            self.over = True
        else:
            self._machine.tick(now)

    def ended(self) -> None:
        """The node ended the stream. Raises StreamReset unless it has answered."""
        self.over = True
        if self._addresses is None:
            raise StreamReset("the node ended the stream before it answered")

    def result(self) -> Visited:
        assert self._machine.peer is not None
        assert self._addresses is not None
        return Visited(self._machine.peer, self._addresses)


async def _flush(call: GrpcCall, machine: KaspaSession) -> None:
    for message in machine.messages_to_send():
        await call.send(message)


async def _last_words(call: GrpcCall, machine: KaspaSession) -> None:
    """A reject, if there is one to be said, and a goodbye; the call is over afterwards."""
    with trio.move_on_after(GOODBYE) as waiting:
        try:
            await _flush(call, machine)
            machine.close()
            await call.finish()
        except StreamReset:
            pass
    if waiting.cancelled_caught:
        call.reset()
