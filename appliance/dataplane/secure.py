"""The secure channel as a byte stream: noise frames over a carrier.

The handshake is the library's (`bridge.secure`); what arrives here is a pair of functions that
encrypt and decrypt one message. The data plane issue replaces this file's inner loop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

from appliance.dataplane.streams import ByteStream
from appliance.errors import StreamReset
from appliance.units import KIB

MAX_PLAINTEXT: Final = 65_519
"""65,535 bytes of noise message less 16 bytes of tag (noise spec)."""
READ_SIZE: Final = 128 * KIB
"""Bytes taken from the carrier at a time."""
_TAG: Final = 16


class SecureStream:
    """Authenticated encryption over `carrier`; `leftover` is what was read behind the handshake.

    A message that does not authenticate, or an end of file inside one, resets the carrier and
    raises StreamReset, now and ever after: there is no way to go on. After `Cancelled` in
    `receive_some` nothing is lost; after `Cancelled` in `send_all` only `reset` makes sense.
    """

    def __init__(
        self,
        carrier: ByteStream,
        *,
        encrypt: Callable[[bytes], bytes],
        decrypt: Callable[[bytes], bytes],
        broken: type[Exception],
        leftover: bytes = b"",
    ) -> None:
        self._carrier = carrier
        self._encrypt = encrypt
        self._decrypt = decrypt
        self._broken = broken
        self._cipher = bytearray(leftover)
        self._plain = bytearray()
        self._failure: str | None = None

    async def receive_some(self, max_bytes: int = READ_SIZE) -> bytes:
        while not self._plain:
            if self._failure is not None:
                raise StreamReset(self._failure)
            self._open_whole_messages()
            if self._plain:
                break
            data = await self._carrier.receive_some(READ_SIZE)
            if not data:
                if self._cipher:
                    raise self._failed("the connection ended inside a noise message")
                return b""
            self._cipher += data
        else:
            await trio.lowlevel.checkpoint()
        out = bytes(self._plain[:max_bytes])
        del self._plain[:max_bytes]
        return out

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        sealed = bytearray()
        view = memoryview(data)
        while view:
            message = self._encrypt(bytes(view[:MAX_PLAINTEXT]))
            sealed += len(message).to_bytes(2, "big")
            sealed += message
            view = view[MAX_PLAINTEXT:]
        await self._carrier.send_all(sealed)

    async def send_eof(self) -> None:
        await self._carrier.send_eof()

    def reset(self) -> None:
        self._carrier.reset()

    async def aclose(self) -> None:
        await self._carrier.aclose()

    def _open_whole_messages(self) -> None:
        position, have = 0, len(self._cipher)
        view = memoryview(self._cipher)
        try:
            while have - position >= 2:
                end = position + 2 + int.from_bytes(view[position : position + 2], "big")
                if end > have:
                    break
                if end - position - 2 < _TAG:
                    raise self._failed("noise message shorter than its tag")
                self._plain += self._decrypt(bytes(view[position + 2 : end]))
                position = end
        except self._broken as error:
            raise self._failed("noise message does not authenticate") from error
        finally:
            view.release()
        del self._cipher[:position]

    def _failed(self, why: str) -> StreamReset:
        self._failure = why
        self._plain.clear()
        self._carrier.reset()
        return StreamReset(why)
