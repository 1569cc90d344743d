"""One Kaspa connection: the machine of `wire.kaspa` driven over a gRPC call."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import trio

from appliance.errors import RemoteProtocolError, StreamReset
from appliance.events import emit
from appliance.network import Endpoint
from appliance.node import lab_payload
from appliance.node.grpc import GrpcCall
from appliance.node.lab_payload import LabExchange, PayloadResult
from appliance.node.outbox import Outbox
from appliance.reasons import Reason
from appliance.wire import kaspa_events as happened
from appliance.wire.kaspa import KaspaSession, Timeouts
from appliance.wire.kaspa_messages import LabChunk, NetAddress, Version

_log = logging.getLogger(__name__)

LAST_WORDS: Final = 1.0
"""Seconds for a reject to go out and for the peer to end its direction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a session needs of its node."""

    local_version: Callable[[], Version]
    admit: Callable[[PeerSession, Version], Reason | None]
    """The peer said who it is; a reason refuses it."""
    opened: Callable[[PeerSession, Version], None]
    known_addresses: Callable[[Version], list[NetAddress]]
    """What to tell the peer that said this of itself."""
    learn: Callable[[tuple[NetAddress, ...]], None]
    rng: random.Random
    timeouts: Timeouts
    lab_payload: int  # bytes; 0: a lab chunk is a payload that we do not know


class PeerSession:
    """From the first `version` to the end of the call."""

    def __init__(
        self, call: GrpcCall, remote: Endpoint, *, outbound: bool, node: Surroundings
    ) -> None:
        self.remote = remote
        self.outbound = outbound
        self.opened_at: float | None = None  # trio's clock; None until `ready` went both ways
        self.ping: float | None = None  # seconds, the latest round trip
        self._node = node
        self._call = call
        self._machine = KaspaSession(node.local_version(), rng=node.rng, timeouts=node.timeouts)
        self._outbox = Outbox()
        self._alive = trio.CancelScope()
        self._end: tuple[Reason, str] | None = None
        self._lab: LabExchange | None = None

    @property
    def version(self) -> Version | None:
        """What the peer said of itself, as soon as it did."""
        return self._machine.peer

    def stop(self, reason: Reason, text: str = "") -> None:
        """End it in peace; `run` returns within `LAST_WORDS`. Idempotent."""
        self._finish(reason, text)
        self._alive.cancel()

    async def run(self) -> None:
        """Returns when the session is over and the call is ended; says so in the log.

        After Cancelled the call is reset.
        """
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write)
                with self._alive:
                    await self._converse(nursery)
                self._flush()
                self._machine.close()
                self._outbox.close()
                nursery.cancel_scope.deadline = trio.current_time() + LAST_WORDS
            with trio.move_on_after(LAST_WORDS):
                await self._call.finish()
        except BaseException:  # Cancelled too: the call has no other owner
            self._finish(Reason.HANDLER_FAULT, "")
            self._call.reset()
            raise
        finally:
            self._log_end()

    async def _converse(self, nursery: trio.Nursery) -> None:
        machine = self._machine
        try:
            machine.start(trio.current_time())
            while self._end is None:
                self._flush()
                await trio.lowlevel.checkpoint()
                if trio.current_time() >= machine.next_deadline:
                    machine.tick(trio.current_time())
                    continue
                message: bytes | None = b""
                with trio.move_on_at(machine.next_deadline) as timer:
                    message = await self._call.receive()
                if timer.cancelled_caught:
                    continue
                if message is None:
                    self._finish(Reason.CONNECTION_LOST, "the peer ended the stream")
                    return
                for event in machine.receive(message, trio.current_time()):
                    await self._on_event(event, nursery)
        except RemoteProtocolError as error:
            self._finish(error.reason, error.detail)
        except StreamReset as error:
            self._finish(Reason.CONNECTION_LOST, str(error))

    async def _on_event(self, event: happened.Event, nursery: trio.Nursery) -> None:
        match event:
            case happened.PeerIdentified(version):
                refusal = self._node.admit(self, version)
                if refusal is not None:
                    self._machine.refuse(refusal)
                    self._finish(refusal, "")
                    return
                for further in self._machine.accept(trio.current_time()):
                    await self._on_event(further, nursery)
            case happened.HandshakeDone(version):
                self._on_open(version, nursery)
            case happened.AddressesRequested():
                assert self._machine.peer is not None  # questions are heard after the handshake
                self._machine.send_addresses(self._node.known_addresses(self._machine.peer))
            case happened.AddressesReceived(addresses):
                self._node.learn(addresses)
                self._say(logging.INFO, "kaspa_addresses", count=len(addresses))
            case happened.PongReceived(round_trip):
                self.ping = round_trip
            case happened.LabChunkReceived(chunk):
                if self._lab is not None:
                    await self._lab.receive(chunk)
            case happened.OpaqueReceived(number, size):
                self._say(logging.DEBUG, "kaspa_payload_ignored", number=number, bytes=size)
            case happened.RejectReceived(text):
                self._finish(Reason.REJECTED_BY_PEER, text)

    def _on_open(self, version: Version, nursery: trio.Nursery) -> None:
        self.opened_at = trio.current_time()
        self._say(
            logging.INFO,
            "kaspa_handshake",
            direction="outbound" if self.outbound else "inbound",
            user_agent=version.user_agent,
        )
        self._node.opened(self, version)
        if self._node.lab_payload and lab_payload.speaks_it(version.user_agent):
            self._lab = LabExchange(
                dialled=self.outbound, send=self._send_chunk, done=self._on_payload
            )
            if self.outbound:
                nursery.start_soon(self._originate, self._lab)

    async def _originate(self, lab: LabExchange) -> None:
        try:
            await lab.originate(self._node.lab_payload)
        except StreamReset as error:
            self.stop(Reason.CONNECTION_LOST, str(error))

    async def _send_chunk(self, chunk: LabChunk) -> None:
        if self._end is not None:
            raise StreamReset("the session is over")
        with trio.move_on_after(self._node.timeouts.answer) as waiting:
            await self._outbox.put_bulk(self._machine.encode_lab_chunk(chunk))
        if waiting.cancelled_caught:
            raise StreamReset("the peer does not read")

    def _on_payload(self, result: PayloadResult) -> None:
        self._say(
            logging.INFO,
            "lab_payload",
            bytes=result.size,
            sha256=result.sha256,
            intact=result.intact,
            direction="outbound" if self.outbound else "inbound",
        )

    def _flush(self) -> None:
        for message in self._machine.messages_to_send():
            if not self._outbox.put_nowait(message):
                self._finish(Reason.CONNECTION_LOST, "the peer asks faster than it reads")
                return

    async def _write(self) -> None:
        try:
            while (message := await self._outbox.take()) is not None:
                await self._call.send(message)
        except StreamReset as error:
            # Unless the reader knows better: a peer that rejects us resets the call, too.
            await trio.lowlevel.checkpoint()
            self.stop(Reason.CONNECTION_LOST, str(error))

    def _finish(self, reason: Reason, text: str) -> None:
        if self._end is None:
            self._end = (reason, text)

    def _log_end(self) -> None:
        assert self._end is not None
        reason, text = self._end
        self._say(
            logging.INFO,
            "kaspa_disconnected",
            reason=reason.value,
            detail=text,
            handshake=self.opened_at is not None,
        )

    def _say(self, level: int, event: str, **fields: object) -> None:
        emit(_log, level, event, remote=str(self.remote), **fields)
