"""py-libp2p's own secure channel as a byte stream, for `bridge/stock.py`."""

from __future__ import annotations

from typing import Final

import trio
from cryptography.exceptions import InvalidTag

from appliance.bridge.identity import Identity
from appliance.bridge.library import lean
from appliance.bridge.negotiate import NegotiatedStream
from appliance.bridge.secure import Noise
from appliance.dataplane.streams import ByteStream
from appliance.errors import StreamReset

with lean():
    from libp2p.exceptions import BaseLibp2pError
    from libp2p.io.exceptions import IncompleteReadError
    from libp2p.network.connection.exceptions import RawConnError
    from libp2p.security.secure_session import SecureSession

READ: Final = 64 * 1024


class Waiting:
    """The driven side of a `Carrier`, which the library has not: only the waiting side works."""

    @property
    def sending(self) -> bool:
        return False

    def receive_nowait(self, into: memoryview) -> int:
        raise NotImplementedError("the library's streams cannot be driven")

    async def wait_receivable(self) -> None:
        raise NotImplementedError("the library's streams cannot be driven")

    def send_nowait(self, data: memoryview) -> None:
        raise NotImplementedError("the library's streams cannot be driven")

    async def drain(self) -> None:
        await trio.lowlevel.checkpoint()


class StockNoise:
    """The library's handshake, and its session behind it."""

    def __init__(self, identity: Identity) -> None:
        self._noise = Noise(identity)

    async def handshake(
        self, stream: NegotiatedStream, *, client: bool, expect: str | None
    ) -> tuple[StockChannel, str]:
        """As `Noise.handshake`."""
        session, peer_id = await self._noise.authenticate(stream, client=client, expect=expect)
        return StockChannel(stream, session), peer_id


class StockChannel(Waiting):
    """The library's secure session over `stream`, behind a handshake on it."""

    def __init__(self, stream: NegotiatedStream, session: SecureSession) -> None:
        self._stream = stream
        self.session = session
        # The handshake reads what it was told exactly, which is not how the library does it.
        session.conn.read_writer.read_write_closer = Raw(stream)
        self.rest = b""
        """What was opened but not received yet."""

    async def receive_some(self, max_bytes: int = READ) -> bytes:
        try:
            data: bytes = self.rest or await self.session.read(None)
        except IncompleteReadError as error:
            if error.is_clean_close:
                return b""
            raise StreamReset(str(error)) from error
        except (BaseLibp2pError, InvalidTag) as error:
            raise StreamReset(str(error)) from error
        self.rest = data[max_bytes:]
        return data[:max_bytes]

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        try:
            await self.session.write(bytes(data))
        except BaseLibp2pError as error:
            raise StreamReset(str(error)) from error

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    def reset(self) -> None:
        self._stream.reset()

    async def aclose(self) -> None:
        await self._stream.aclose()


class Raw:
    """A byte stream as the library's secure session wants it: `read` gives what is there."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream

    async def read(self, n: int | None = None) -> bytes:
        try:
            return await self._stream.receive_some(n or READ)
        except StreamReset as error:
            raise RawConnError(str(error)) from error

    async def write(self, data: bytes) -> None:
        try:
            await self._stream.send_all(data)
        except StreamReset as error:
            raise RawConnError(str(error)) from error

    async def close(self) -> None:
        await self._stream.aclose()
