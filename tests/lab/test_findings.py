"""What counts as found, from events as appliances log them."""

from __future__ import annotations

from typing import Any

import pytest

from appliance.lab.findings import Findings, Meeting, bytes_each_way
from appliance.lab.journal import Event

IDS = {"relay-1": "R1", "relay-2": "R2", "home-a": "A", "home-b": "B"}
SLOT, SEEN_FROM = "127.0.0.1:16520", "127.64.24.21:44411"


def findings(*events: tuple[str, str, dict[str, Any]]) -> Findings:
    found = Findings.of(IDS, ["home-a", "home-b"])
    for at, (who, name, fields) in enumerate(events):
        found.take(Event(float(at), who, name, "info", fields))
    return found


def reserved(relay: str, at: str) -> tuple[str, str, dict[str, Any]]:
    return "home-a", "reservation_made", {"relay": relay, "address": at}


def conversation(path: str = "direct", count: int = 1) -> list[tuple[str, str, dict[str, Any]]]:
    """A dials B: everything that both sides log of it."""
    out = {"peer": "B", "path": path, "direction": "outbound", "local": SLOT}
    into = {"peer": "A", "path": path, "direction": "inbound", "local": SEEN_FROM}
    return [
        ("home-a", "relayed_connection", {"peer": "B", "relay": "R2", "direction": "outbound"}),
        ("home-a", "kaspa_stream", out),
        ("home-a", "direct_first_byte", {"peer": "B", "time_to_direct_ms": 117.1}),
        ("home-b", "kaspa_stream", into),
        ("home-a", "kaspa_handshake", {"remote": SLOT}),
        ("home-b", "kaspa_handshake", {"remote": SEEN_FROM}),
        ("home-a", "kaspa_addresses", {"remote": SLOT, "count": count}),
        ("home-b", "kaspa_addresses", {"remote": SEEN_FROM, "count": count}),
    ]


def test_a_renewed_reservation_is_one_and_a_lost_one_none() -> None:
    one, two = reserved("R1", "192.31.196.10:1"), reserved("R2", "192.52.193.10:1")
    assert findings(one, one, two).held["home-a"] == {"relay-1", "relay-2"}
    failed = ("home-a", "reservation_failed", {"relay": "R1"})
    assert findings(one, two, failed).held["home-a"] == {"relay-2"}
    dropped = ("home-a", "relay_dropped", {"relay": "192.52.193.10:1"})
    assert findings(one, two, dropped).held["home-a"] == {"relay-1"}
    assert findings(one, two).short_of(2) == ["home-b"]


def test_a_meeting_is_seen_from_both_sides() -> None:
    found = findings(*conversation())
    assert found.meetings == [Meeting("home-a", "home-b", 7.0, "relay-2", 117.1)]
    assert found.alone() == []


@pytest.mark.parametrize("missing", range(1, 8))
def test_a_conversation_that_lacks_anything_is_no_meeting(missing: int) -> None:
    events = conversation()
    lacking = events.pop(missing)
    found = findings(*events)
    if lacking[1] == "direct_first_byte":
        assert found.meetings[0].time_to_direct_ms is None
    else:
        assert found.alone() == ["home-a", "home-b"]


def test_neither_a_relayed_stream_nor_one_without_addresses_counts() -> None:
    assert findings(*conversation(path="relayed")).alone()
    assert findings(*conversation(count=0)).alone()


def test_a_stream_that_closed_before_does_not_count() -> None:
    *events, last = conversation()
    closed = ("home-a", "kaspa_stream_closed", {"peer": "B", "path": "direct"})
    assert findings(*events, closed, last).alone()


def test_relays_and_nodes_that_only_ask_are_not_watched() -> None:
    visit = ("home-a", "kaspa_handshake", {"remote": "203.0.113.9:5"})
    granted = ("relay-1", "reservation_made", {"relay": "R2", "address": "192.52.193.10:1"})
    assert findings(visit, granted).held == {"home-a": set(), "home-b": set()}


def test_a_stream_that_was_just_beginning_hides_nothing_that_others_carried() -> None:
    def closed(path: str, into: int, out: int, who: str = "home-a") -> Event:
        fields = {"path": path, "bytes_in": into, "bytes_out": out}
        return Event(0.0, who, "kaspa_stream_closed", "info", fields)

    events = [closed("direct", 300, 200), closed("direct", 0, 80), closed("relayed", 900, 900)]
    events.append(closed("direct", 50, 70, who="relay-1"))
    assert bytes_each_way(events, ["home-a", "home-b"]) == 200
