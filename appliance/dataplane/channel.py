"""The transport phase of noise as a machine without I/O: plaintext in, sealed messages out.

Source: noise protocol framework, sections 5.1 and 11.3; libp2p specs, noise/README.md ("Wire
format": two bytes of length in front of each message). The handshake gives keys and nonces.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from appliance.errors import LocalProtocolError, RemoteProtocolError
from appliance.reasons import Reason

TAG: Final = 16
PREFIX: Final = 2
MAX_MESSAGE: Final = 65_535
"""Bytes of a sealed message (noise specification, section 3)."""
MAX_PLAINTEXT: Final = MAX_MESSAGE - TAG
LAST_NONCE: Final = 2**64 - 2
"""The value behind it is reserved (noise specification, section 5.1)."""


@lru_cache(maxsize=64)
def _cipher(key: bytes) -> ChaCha20Poly1305:
    """OpenSSL's state for a key takes 2 KB: only the busiest connections keep theirs."""
    return ChaCha20Poly1305(key)


class CipherState:
    """One direction: a key and the nonce of its next message."""

    __slots__ = ("_key", "_nonce")

    def __init__(self, key: bytes, nonce: int = 0) -> None:
        self._key = key
        self._nonce = nonce

    @property
    def nonce(self) -> int:
        return self._nonce

    @property
    def exhausted(self) -> bool:
        return self._nonce > LAST_NONCE

    def seal_into(self, plain: memoryview, out: memoryview) -> int:
        """One message; `out` has room for it. Its length: that of `plain` and a tag.

        Raises LocalProtocolError once the nonces are exhausted.
        """
        if self.exhausted:
            raise LocalProtocolError(Reason.NOISE_VIOLATION, "the nonces are exhausted")
        nonce = b"\0\0\0\0" + self._nonce.to_bytes(8, "little")
        size = len(plain) + TAG
        _cipher(self._key).encrypt_into(nonce, plain, None, out[:size])
        self._nonce += 1
        return size

    def open_into(self, sealed: memoryview, out: memoryview) -> int:
        """The plaintext of one message; `out` has room for it. Its length.

        Raises RemoteProtocolError(noise-violation) if the message is not authentic, or one too
        many for its key.
        """
        if self.exhausted:
            raise _violation("the nonces are exhausted")
        size = len(sealed) - TAG
        if size < 0:
            raise _violation("noise message shorter than its tag")
        nonce = b"\0\0\0\0" + self._nonce.to_bytes(8, "little")
        try:
            _cipher(self._key).decrypt_into(nonce, sealed, None, out[:size])
        except InvalidTag:
            raise _violation("noise message does not authenticate") from None
        self._nonce += 1
        return size


class SecureChannel:
    """Both directions of a connection's transport phase."""

    __slots__ = ("_receiving", "_sending")

    def __init__(self, sending: CipherState, receiving: CipherState) -> None:
        self._sending = sending
        self._receiving = receiving

    def seal(self, plain: memoryview, out: memoryview) -> int:
        """All of `plain` as messages into `out`; the bytes written.

        `out` has room for 18 bytes more for each 65,519 of `plain`. Raises LocalProtocolError.
        """
        written = 0
        seal_into = self._sending.seal_into
        for start in range(0, len(plain), MAX_PLAINTEXT):
            size = seal_into(plain[start : start + MAX_PLAINTEXT], out[written + PREFIX :])
            out[written : written + PREFIX] = size.to_bytes(PREFIX, "big")
            written += PREFIX + size
        return written

    def open(self, sealed: memoryview, out: memoryview) -> tuple[int, int]:
        """Every whole message of `sealed` into `out`, as far as it has room.

        Bytes of `sealed` consumed, bytes of `out` written. Raises RemoteProtocolError; what
        was written before it is authentic, but must not be used.
        """
        position, written = 0, 0
        have, room = len(sealed), len(out)
        open_into = self._receiving.open_into
        while have - position >= PREFIX:
            start = position + PREFIX
            end = start + int.from_bytes(sealed[position:start], "big")
            if end > have or written + end - start - TAG > room:
                break
            written += open_into(sealed[start:end], out[written:])
            position = end
        return position, written


def _violation(detail: str) -> RemoteProtocolError:
    return RemoteProtocolError(Reason.NOISE_VIOLATION, detail)
