"""Merging claims, and who is evicted first."""

from __future__ import annotations

import pytest

from appliance.addresses.model import (
    MAX_ADDRESSES,
    PeerRecord,
    Source,
    failed,
    merged,
    succeeded,
    worth,
)

A, B, C = "/ip4/192.0.2.1/tcp/1", "/ip4/192.0.2.2/tcp/1", "/ip4/192.0.2.3/tcp/1"


def test_gossip_adds_to_what_we_know_ourselves_and_changes_none_of_it() -> None:
    known = PeerRecord("p", (A,), (B,), False, 10, 9, source=Source.MET)
    rumour = PeerRecord("p", (C, A), (), True, 20, 0, source=Source.GOSSIP)
    assert merged(known, rumour) == PeerRecord("p", (A, C), (B,), False, 20, 9, source=Source.MET)
    assert merged(rumour, known) == PeerRecord("p", (A, C), (B,), False, 20, 9, source=Source.MET)


def test_the_latest_claim_of_equal_trust_comes_first() -> None:
    assert merged(PeerRecord("p", (A, B)), PeerRecord("p", (C, B))).addresses == (C, B, A)


def test_addresses_stay_bounded_however_often_they_change() -> None:
    record = PeerRecord("p")
    for port in range(1, 500):
        record = merged(record, PeerRecord("p", (f"/ip4/192.0.2.1/tcp/{port}",)))
    assert len(record.addresses) == MAX_ADDRESSES
    assert record.addresses[0].endswith("/499")


def test_success_forgives_and_failure_counts() -> None:
    record = failed(failed(PeerRecord("p"), 5), 7)
    assert (record.failures, record.last_failure) == (2, 7)
    record = succeeded(record, 9)
    assert (record.failures, record.last_success, record.last_seen) == (0, 9, 9)
    for _ in range(2000):
        record = failed(record, 10)
    assert record.failures == 1000


def test_who_is_worth_more() -> None:
    ascending = [
        PeerRecord("p", last_seen=99, failures=3),
        PeerRecord("p", last_seen=98),
        PeerRecord("p", last_seen=99),
        PeerRecord("p", is_relay=True, last_seen=50),
        PeerRecord("p", last_success=10, failures=1),
        PeerRecord("p", last_success=10),
        PeerRecord("p", source=Source.DECLARED, failures=500),
    ]
    assert sorted([*ascending[3:], *ascending[:3]], key=worth) == ascending


@pytest.mark.parametrize(
    "fields",
    [
        {"peer_id": ""},
        {"peer_id": "a b"},
        {"peer_id": "x" * 129},
        {"addresses": (A,) * 17},
        {"addresses": ("",)},
        {"addresses": ("a" * 257,)},
        {"addresses": ("/dns4/\u202eevil",)},
        {"relays": (A,) * 9},
        {"last_seen": -1},
        {"failures": 1001},
    ],
)
def test_a_record_out_of_bounds_cannot_exist(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"peer_id|addresses|relays|last_seen|failures"):
        PeerRecord(**{"peer_id": "p", **fields})  # type: ignore[arg-type]
