"""Which connection may carry a Kaspa stream."""

from __future__ import annotations

from typing import Final

from appliance.units import HOUR, MIB

KASPA_STREAM_BYTES: Final = 64 * MIB
"""A relay's byte limit has to allow at least this: an initial block download moves gigabytes, but
a synced node exchanges some 50 MB in an hour."""
KASPA_STREAM_SECONDS: Final = HOUR
"""A relay's time limit has to allow at least this, or the node sees its peers flap."""


def allows_kaspa(*, seconds: int, data_bytes: int) -> bool:
    """Whether a Kaspa stream may live within a circuit's limit instead of dying in the middle.

    The arguments are the relay's `Limit` of the circuit: 0 means no limit.
    """
    long_enough = not seconds or seconds >= KASPA_STREAM_SECONDS
    large_enough = not data_bytes or data_bytes >= KASPA_STREAM_BYTES
    return long_enough and large_enough
