"""The secure channel over a carrier: a byte stream during the upgrade, a carrier afterwards."""

from __future__ import annotations

from typing import Final

import trio

from appliance.dataplane.buffers import borrow, give_back
from appliance.dataplane.channel import MAX_PLAINTEXT, PREFIX, TAG, SecureChannel
from appliance.dataplane.streams import BATCH, Carrier
from appliance.errors import Fault, RemoteProtocolError, StreamReset
from appliance.units import KIB

READ_SIZE: Final = 64 * KIB


class SecureStream:
    """Authenticated encryption over `carrier`; `leftover` is what was read behind the handshake.

    A message that does not authenticate, or an end of file inside one, resets the carrier and
    raises StreamReset (RemoteProtocolError from `receive_nowait`), now and ever after: there is
    no way to go on. After `Cancelled` in `receive_some` nothing is lost; after `Cancelled` in
    `send_all` only `reset` makes sense.
    """

    __slots__ = ("_carrier", "_channel", "_failure", "_looked", "_plain", "_sealed")

    def __init__(self, carrier: Carrier, channel: SecureChannel, *, leftover: bytes = b"") -> None:
        self._carrier = carrier
        self._channel = channel
        # The part of a message that came so far, and what was opened but not yet received.
        self._sealed = leftover
        self._plain = b""
        # Whole messages are opened as they come; only a leftover may hold some.
        self._looked = not leftover
        self._failure: str | None = None

    # --- driven

    @property
    def sending(self) -> bool:
        return self._carrier.sending

    def receive_nowait(self, into: memoryview) -> int:
        if self._plain:
            size = min(len(self._plain), len(into))
            into[:size] = self._plain[:size]
            self._plain = self._plain[size:]
            return size
        if self._failure is not None:
            raise StreamReset(self._failure)
        sealed = borrow()
        try:
            have = len(self._sealed)
            sealed[:have] = self._sealed
            if self._looked:
                size = self._carrier.receive_nowait(sealed[have:BATCH])
                if size == 0:
                    if have:
                        raise self._failed("the connection ended inside a noise message")
                    return 0
                have += size
            try:
                consumed, opened = self._channel.open(sealed[:have], into)
            except RemoteProtocolError as error:
                self._failed(error.detail)
                raise
            self._sealed = bytes(sealed[consumed:have])
            self._looked = True
        finally:
            give_back(sealed)
        if not opened:
            raise trio.WouldBlock
        return opened

    async def wait_receivable(self) -> None:
        if self._plain or self._failure is not None or not self._looked:
            await trio.lowlevel.checkpoint()
        else:
            await self._carrier.wait_receivable()

    def send_nowait(self, data: memoryview) -> None:
        sealed = borrow()
        try:
            self._carrier.send_nowait(sealed[: self._seal(data, sealed)])
        finally:
            give_back(sealed)

    async def drain(self) -> None:
        await self._carrier.drain()

    # --- as a byte stream

    async def receive_some(self, max_bytes: int = READ_SIZE) -> bytes:
        await trio.lowlevel.checkpoint_if_cancelled()
        while True:
            into = borrow()
            try:
                data = bytes(into[: self.receive_nowait(into)])
            except trio.WouldBlock:
                data = None
            except Fault as fault:
                raise StreamReset(fault.detail) from fault
            finally:
                give_back(into)
            if data is None:
                await self.wait_receivable()
                continue
            self._plain = data[max_bytes:] + self._plain
            await trio.lowlevel.cancel_shielded_checkpoint()
            return data[:max_bytes]

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        view = memoryview(data)
        messages = len(view) // MAX_PLAINTEXT + 1
        sealed = bytearray(len(view) + messages * (PREFIX + TAG))
        await self._carrier.send_all(memoryview(sealed)[: self._seal(view, memoryview(sealed))])

    async def send_eof(self) -> None:
        await self._carrier.send_eof()

    def reset(self) -> None:
        self._carrier.reset()

    async def aclose(self) -> None:
        await self._carrier.aclose()

    def _seal(self, plain: memoryview, out: memoryview) -> int:
        try:
            return self._channel.seal(plain, out)
        except Fault as fault:
            raise self._failed(fault.detail) from fault

    def _failed(self, why: str) -> StreamReset:
        self._failure = why
        self._plain = b""
        self._carrier.reset()
        return StreamReset(why)
