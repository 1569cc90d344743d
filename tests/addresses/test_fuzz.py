"""The fuzz targets of the book run here for a while; by name they run for a million inputs."""

from __future__ import annotations

from tests.fuzz import addresses


def test_no_input_breaks_a_parser() -> None:
    refused = addresses.run(8_000, seed=20)
    assert set(refused) == set(addresses.TARGETS)
    assert 200 < refused["kaspad_address"] < 1000
