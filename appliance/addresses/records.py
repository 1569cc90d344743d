"""Signed records of the book, to hand on to others."""

from __future__ import annotations

import contextlib
from itertools import chain, takewhile
from random import Random
from typing import Final

from appliance.addresses.fields import CodecError
from appliance.addresses.model import Capability
from appliance.addresses.rocks import Store
from appliance.addresses.values import PEER, decode_capability

_FIRST_LETTERS: Final = b"12D3KooW"  # of the text of every ed25519 peer id
_BASE58: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def live_records(store: Store, now: float, rng: Random, most: int) -> list[Capability]:
    """At most so many that still hold, in order from anywhere on. Raises StoreError."""
    begin = PEER + _FIRST_LETTERS + "".join(rng.choices(_BASE58, k=2)).encode()
    rows = store.items("capabilities", PEER, start=begin)
    others = store.items("capabilities", PEER)
    found: list[Capability] = []
    for _, value in chain(rows, takewhile(lambda row: row[0] < begin, others)):
        with contextlib.suppress(CodecError):
            peer = decode_capability(value)
            if peer.signed and peer.expires > now:
                found.append(peer)
        if len(found) == most:
            break
    return found
