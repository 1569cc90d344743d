"""Addresses, peers and claims for the tests of the book."""

from __future__ import annotations

from random import Random

from appliance.addresses.keys import MAPPED, pack
from appliance.addresses.model import Origin, RelayClaim, SignedClaim, Source
from appliance.network import Endpoint

NOW = 1_800_000_000
DAY = 86_400
ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def key(host: str, port: int = 16111) -> bytes:
    return pack(Endpoint(host, port))


def peer_id(number: int) -> str:
    return "12D3KooW" + "".join(Random(number).choices(ALPHABET, k=44))


def heard_from(who: str) -> Origin:
    return Origin(Source.GOSSIP, who)


def somewhere(rng: Random) -> bytes:
    """An address of a network that strangers may name."""
    first = rng.choice((rng.randrange(11, 100), rng.randrange(128, 168)))
    return MAPPED + bytes([first]) + rng.randbytes(3) + (16111).to_bytes(2, "big")


def relay_claim(address: bytes, **fields: object) -> RelayClaim:
    return RelayClaim(address, relay_port=16112, **fields)  # type: ignore[arg-type]


def signed(number: int, *addresses: bytes, seq: int = 1, expires: int = NOW + DAY) -> SignedClaim:
    return SignedClaim(peer_id(number), seq, expires, addresses, b"envelope %d" % seq, 16112)
