"""Back-off, each peer's loopback address, and which path may carry a Kaspa stream."""

from __future__ import annotations

import ipaddress
import random
from collections import Counter

import pytest

from appliance.policy.backoff import RELAY_CEILING, RELAY_FIRST, Backoff
from appliance.policy.loopback import NETWORK, loopback_of
from appliance.policy.path import KASPA_STREAM_BYTES, KASPA_STREAM_SECONDS, allows_kaspa
from appliance.units import KIB


def test_delays_double_up_to_the_ceiling_and_start_anew() -> None:
    backoff, rng = Backoff(RELAY_FIRST, RELAY_CEILING), random.Random(1)
    for failure in range(100):
        middle = min(RELAY_CEILING, RELAY_FIRST * 2**failure)
        assert 0.75 * middle <= backoff.failed(rng) < 1.25 * middle
    backoff.succeeded()
    assert backoff.failed(rng) < 1.25 * RELAY_FIRST


def test_two_that_fail_together_do_not_come_back_together() -> None:
    delays = {Backoff(1.0, 60.0).failed(random.Random(seed)) for seed in range(50)}
    assert len(delays) == 50


def test_a_peer_always_has_the_same_address() -> None:
    # SHA-256 of it starts with 3a175349; written down, since a node's bans outlive our versions.
    assert loopback_of("12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA") == "127.87.85.26"


def test_addresses_stay_in_the_range_and_spread_over_it() -> None:
    addresses = [ipaddress.IPv4Address(loopback_of(f"peer {n}")) for n in range(20_000)]
    assert all(address in NETWORK for address in addresses)
    ends = {NETWORK.network_address, NETWORK.broadcast_address}
    assert not ends & set(addresses)
    # 20,000 draws of 4 million meet some 48 times; far more would be a bad spread.
    assert len(addresses) - len(set(addresses)) < 100
    per_octet = Counter(str(address).split(".")[1] for address in addresses)
    assert len(per_octet) == 64
    assert max(per_octet.values()) < 2 * min(per_octet.values())


@pytest.mark.parametrize(
    ("seconds", "data_bytes", "allowed"),
    [
        (0, 0, True),
        (120, 128 * KIB, False),  # what most relays in the field grant
        (0, 128 * KIB, False),
        (120, 0, False),
        (int(KASPA_STREAM_SECONDS), KASPA_STREAM_BYTES, True),
        (int(KASPA_STREAM_SECONDS) - 1, 0, False),
        (0, KASPA_STREAM_BYTES - 1, False),
        (0, KASPA_STREAM_BYTES, True),
    ],
)
def test_a_path_carries_a_kaspa_stream_or_does_not(
    seconds: int, data_bytes: int, allowed: bool
) -> None:
    assert allows_kaspa(seconds=seconds, data_bytes=data_bytes) is allowed
