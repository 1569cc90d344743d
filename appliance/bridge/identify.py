"""identify 1.0: who we are, what we speak, where we see the other side.

Source: libp2p specs, identify/README.md. The message is the library's protobuf; what a peer says
here is a claim, used for its observation of our address and for the agent string in lists.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import DecodeError

from appliance import __version__
from appliance.bridge.identity import Identity
from appliance.bridge.library import lean
from appliance.errors import RemoteProtocolError
from appliance.network import Endpoint
from appliance.reasons import Reason
from appliance.wire import multiaddr

with lean():
    from libp2p.identity.identify.pb import identify_pb2

PROTOCOL: Final = "/ipfs/id/1.0.0"
PUSH: Final = "/ipfs/id/push/1.0.0"
MAX_MESSAGE: Final = 8192
"""Bytes; go-libp2p's limit for an identify message without a signed record is 8 KiB."""
AGENT: Final = f"kaspa-appliance/{__version__}"
MAX_AGENT: Final = 128


@dataclass(frozen=True, slots=True)
class PeerInfo:
    """What a peer claims: where it sees us, and its agent string (printable, bounded)."""

    observed: Endpoint | None
    agent: str


def encode(
    identity: Identity,
    *,
    listen: Iterable[Endpoint],
    observed: Endpoint | None,
    protocols: Iterable[str],
) -> bytes:
    """Our own message for one connection."""
    message = identify_pb2.Identify(
        protocol_version="ipfs/0.1.0",
        agent_version=AGENT,
        public_key=identity.keys.public_key.serialize(),
        listen_addrs=[multiaddr.encode(endpoint) for endpoint in listen],
        protocols=sorted(protocols),
    )
    if observed is not None:
        message.observed_addr = multiaddr.encode(observed)
    return bytes(message.SerializeToString())


def decode(data: bytes) -> PeerInfo:
    """Raises RemoteProtocolError(malformed-message)."""
    try:
        message = identify_pb2.Identify.FromString(data)
    except DecodeError:
        raise RemoteProtocolError(Reason.MALFORMED_MESSAGE, "undecodable identify") from None
    address = multiaddr.decode(message.observed_addr)
    claimed: str | bytes = message.agent_version
    if isinstance(claimed, bytes):
        # A proto2 string that is not UTF-8 comes out of the library as bytes.
        claimed = claimed.decode("utf-8", "replace")
    agent = "".join(c if c.isprintable() else "?" for c in claimed[:MAX_AGENT])
    return PeerInfo(None if address is None else address.endpoint, agent)
