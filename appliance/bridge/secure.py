"""The library's noise handshake over any byte stream, giving an authenticated `SecureStream`.

Plug point: `libp2p.security.noise.patterns.PatternXX`. We keep its handshake and its checks, and
take the keys and nonces for the transport phase; all objects around them are left behind.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Final

from cryptography.exceptions import InvalidTag
from google.protobuf.message import DecodeError
from multiaddr import Multiaddr
from noise.exceptions import NoiseHandshakeError, NoiseInvalidMessage, NoiseValueError
from noise.state import CipherState

from appliance.bridge.identity import Identity
from appliance.bridge.library import lean
from appliance.bridge.negotiate import NegotiatedStream
from appliance.dataplane.channel import CipherState as OurCipherState
from appliance.dataplane.channel import SecureChannel
from appliance.dataplane.secure import SecureStream
from appliance.errors import RemoteProtocolError
from appliance.reasons import Reason

with lean():
    from libp2p.abc import IRawConnection
    from libp2p.connection_types import ConnectionType
    from libp2p.crypto.x25519 import create_new_key_pair as new_x25519
    from libp2p.exceptions import BaseLibp2pError
    from libp2p.peer.id import ID
    from libp2p.security.noise.io import NoiseTransportReadWriter
    from libp2p.security.noise.patterns import PatternXX
    from libp2p.security.secure_session import SecureSession

PROTOCOL: Final = "/noise"

# All that a hostile handshake message can make the library, its noise and its parsers raise.
_HANDSHAKE_ERRORS: Final = (
    BaseLibp2pError,
    NoiseInvalidMessage,
    NoiseHandshakeError,
    NoiseValueError,
    InvalidTag,
    DecodeError,
    ValueError,
    TypeError,
    AssertionError,
)


class _Raw(IRawConnection):
    """What the library's handshake reads from and writes to: exact reads over a byte stream."""

    def __init__(self, stream: NegotiatedStream, is_initiator: bool) -> None:
        self._stream = stream
        self.is_initiator = is_initiator

    async def read(self, n: int | None = None) -> bytes:
        return await self._stream.receive_exactly(n or 0)

    async def write(self, data: bytes) -> None:
        await self._stream.send_all(data)

    async def close(self) -> None:
        self._stream.reset()

    def get_remote_address(self) -> tuple[str, int] | None:
        return None

    def get_transport_addresses(self) -> list[Multiaddr]:
        return []

    def get_connection_type(self) -> ConnectionType:
        return ConnectionType.DIRECT


class Noise:
    """Makes secure channels for one identity."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        # One static noise key for the life of the process; it is signed by the identity.
        self._static = new_x25519().private_key

    async def handshake(
        self, stream: NegotiatedStream, *, client: bool, expect: str | None
    ) -> tuple[SecureStream, str]:
        """The channel and the authenticated peer id (base58).

        `client` is the noise initiator and must say whom it expects. Raises RemoteProtocolError
        (handshake-failed, wrong-peer) or StreamReset; after `Cancelled` reset the stream.
        """
        session, peer_id = await self.authenticate(stream, client=client, expect=expect)
        assert isinstance(session.conn, NoiseTransportReadWriter)
        phase = session.conn.noise_state.noise_protocol
        secured = SecureChannel(
            _taken_over(phase.cipher_state_encrypt), _taken_over(phase.cipher_state_decrypt)
        )
        return SecureStream(stream, secured, leftover=stream.take_buffered()), peer_id

    async def authenticate(
        self, stream: NegotiatedStream, *, client: bool, expect: str | None
    ) -> tuple[SecureSession, str]:
        """The handshake alone: the library's session and the peer id. Raises as `handshake`."""
        pattern = PatternXX(
            ID.from_pubkey(self._identity.keys.public_key),
            self._identity.keys.private_key,
            self._static,
        )
        raw = _Raw(stream, client)
        # None: the identity is compared here, so that a mismatch is told from a broken handshake.
        body: Awaitable[object] = (
            pattern.handshake_outbound(raw, None) if client else pattern.handshake_inbound(raw)
        )
        try:
            session = await body
        except _HANDSHAKE_ERRORS as error:
            raise RemoteProtocolError(
                Reason.HANDSHAKE_FAILED, f"{type(error).__name__}: {error}"[:200]
            ) from error
        assert isinstance(session, SecureSession)
        peer_id = str(session.get_remote_peer())
        if expect is not None and peer_id != expect:
            raise RemoteProtocolError(Reason.WRONG_PEER, f"expected {expect}, got {peer_id}")
        return session, peer_id


def _taken_over(state: CipherState) -> OurCipherState:
    return OurCipherState(state.k, state.n)
