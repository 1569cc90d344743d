"""Who comes in through a listener: admitted by the gate, greeted with the handshake, or refused."""

from __future__ import annotations

import errno
from collections.abc import Awaitable
from dataclasses import replace
from functools import partial
from typing import Final, Protocol

import trio

from appliance.bridge.connection import Connection, Direct, Direction
from appliance.bridge.gate import Gate
from appliance.bridge.guard import guarded
from appliance.bridge.refusals import refuse
from appliance.bridge.telemetry import Telemetry
from appliance.dataplane.tcp import TcpStream
from appliance.errors import Fault, Refused
from appliance.reasons import Reason

_EXHAUSTED: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)
_PAUSE: Final = 0.1
"""Seconds without accepting while descriptors or memory are short; peers wait in the backlog."""


class Adopt(Protocol):
    """`Host.adopt`, as far as it is needed here."""

    def __call__(
        self, carrier: TcpStream, path: Direct, direction: Direction, /, *, client: bool,
        expect: str | None,
    ) -> Awaitable[Connection]: ...  # fmt: skip


class Reception:
    """Accepts sockets and makes connections of them. `run` owns the handshakes in progress."""

    def __init__(self, gate: Gate, telemetry: Telemetry, adopt: Adopt) -> None:
        self._gate = gate
        self._telemetry = telemetry
        self._adopt = adopt

    async def run(self, listener: trio.socket.SocketType) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                tcp = await self._accepted(listener)
                if tcp is not None:
                    nursery.start_soon(self._greet, tcp)

    async def _accepted(self, listener: trio.socket.SocketType) -> TcpStream | None:
        """The next socket that the gate lets in; None if this one did not get so far."""
        try:
            sock, _ = await listener.accept()
        except OSError as error:
            if error.errno in _EXHAUSTED:
                full = Refused(Reason.CONNECTIONS_FULL, str(error))
                refuse(self._telemetry, "connection", full, peer=None)
                await trio.sleep(_PAUSE)
            return None
        try:
            tcp = TcpStream(sock)
        except OSError:
            sock.close()  # the peer reset it before we looked
            return None
        try:
            self._gate.enter(tcp.remote.host)
        except Refused as fault:
            refuse(self._telemetry, "connection", fault, peer=str(tcp.remote))
            tcp.reset()
            return None
        return tcp

    async def _greet(self, tcp: TcpStream) -> None:
        try:
            await guarded(
                self._telemetry, "handshake", str(tcp.remote), partial(self._upgrade, tcp)
            )
        finally:
            self._gate.left(tcp.remote.host)

    async def _upgrade(self, tcp: TcpStream) -> None:
        expected = self._gate.expectation_for(tcp.remote)
        path = Direct(tcp.remote, tcp.local, punched=expected is not None)
        client = expected is not None and expected.client
        expect = expected.peer_id if expected is not None and client else None
        try:
            conn = await self._adopt(tcp, path, "inbound", client=client, expect=expect)
        except Fault as fault:
            refuse(self._telemetry, "connection", fault, peer=str(tcp.remote))
            return
        if expected is None:
            return
        if conn.peer_id == expected.peer_id:
            conn.introduced_by = expected.introduced_by
        else:
            conn.path = replace(path, punched=False)  # a neighbour of the one we wait for
