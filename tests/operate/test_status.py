"""The status document: its promised shape, and what people read."""

from __future__ import annotations

import json

import pytest

from appliance.operate import status as st
from appliance.operate.status_text import WIDTH, render

PEER = "12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5"
RELAY = "12D3KooWRBhwfeP2Y4TCx1SM6s9rUoHhR5STiGwxBhgFRcw3UERE"

PROMISED = {
    "schema", "name", "version", "network", "uptime_s", "peer_id", "role", "listen", "external",
    "relay", "reservations", "inbound", "outbound", "punch", "fds", "node", "faults",
}  # fmt: skip

FULL = st.Status(
    name="home-pi",
    version="0.1.0",
    network="mainnet",
    uptime_s=3725.5,
    peer_id=PEER,
    role=st.RoleStatus("auto", "private", 1000.0, ("nobody could dial us at 203.0.113.7:16112",)),
    node=st.NodeStatus("kaspad", "127.0.0.1:16111", True),
    listen=("0.0.0.0:16112",),
    external=("203.0.113.7:40001",),
    relay=st.RelayStatus(True, 16112, st.Usage(3, 64), st.Usage(1, 16), 5 * 1024 * 1024),
    reservations=(
        st.ReservationStatus(
            RELAY, "active", f"/ip4/198.51.100.1/tcp/16112/p2p/{RELAY}", 1000.0, 4600.0, 120, 131072
        ),
        st.ReservationStatus(PEER, "failed", failure="reservations-full"),
    ),
    inbound=st.InboundStatus(st.Usage(2, 8), st.Usage(1, 8), {RELAY: st.Usage(1, 2)}),
    outbound=(
        st.OutboundStatus(PEER, "direct", None, 61.0, "127.0.0.1:16120", 1536, 10),
        st.OutboundStatus(PEER, "relayed", RELAY, 5.0),
    ),
    slots=(
        st.SlotStatus("127.0.0.1:16120", PEER, "open"),
        st.SlotStatus("127.0.0.1:16121", RELAY, "open", origin="book", relay="198.51.100.1:16112"),
        st.SlotStatus("127.0.0.1:16122", "", "vacant", "no-candidate", "book"),
        st.SlotStatus("127.0.0.1:16123", "", "vacant", "no-candidate", "book"),
    ),
    discovery=st.DiscoveryStatus(40, 3, 2, 9, 8, 7),
    punch=st.PunchStatus(5, 4, 1, {"punch-timeout": 1}),
    fds=st.FdStatus(34, 1024),
    faults=(st.FaultStatus("handler-fault", 2, 1990.0, "KeyError: 'x'\x1b[2J"),),
)


def test_the_document_has_every_promised_field() -> None:
    document = json.loads(FULL.to_json())
    assert next(iter(document)) == "schema"
    assert document["schema"] == "appliance.status/v1"
    assert set(document) >= PROMISED
    assert set(document["role"]) >= {"mode", "effective", "since", "evidence"}
    assert set(document["relay"]) >= {"running", "port", "reservations", "circuits", "bytes_total"}
    for usage in (
        document["relay"]["reservations"],
        document["relay"]["circuits"],
        document["inbound"]["direct"],
        document["inbound"]["private"],
        document["inbound"]["per_relay"][RELAY],
    ):
        assert set(usage) >= {"used", "cap"}
    assert set(document["outbound"][0]) >= {"peer", "path", "relay", "since_s"}
    assert set(document["punch"]) >= {"attempts", "succeeded", "failed", "by_cause"}
    assert set(document["fds"]) >= {"used", "limit"}
    assert set(document["node"]) >= {"kind", "p2p", "reachable"}


def test_a_client_reads_back_what_the_daemon_said() -> None:
    assert st.parse(json.loads(FULL.to_json())) == FULL


def test_a_client_of_today_reads_a_document_with_fields_of_tomorrow() -> None:
    document = json.loads(FULL.to_json())
    document["weather"] = "fine"
    document["relay"]["colour"] = {"r": 1}
    assert st.parse(document) == FULL


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"schema": "appliance.status/v9"},
        {"schema": st.SCHEMA},
        {**json.loads(FULL.to_json()), "role": []},
        {**json.loads(FULL.to_json()), "uptime_s": "long"},
        {**json.loads(FULL.to_json()), "outbound": [3]},
    ],
)
def test_another_document_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        st.parse(wrong)


def test_people_see_who_they_are_and_what_is_wrong_in_80_columns() -> None:
    text = render(FULL, now=2000.0)
    assert max(map(len, text.splitlines())) <= WIDTH
    flat = " ".join(text.split())
    for expected in (
        "home-pi on mainnet, version 0.1.0, up 1 h 2 min",
        PEER,
        "private for 16 min 40 s (relay_mode: auto)",
        "nobody could dial us",
        "kaspad at 127.0.0.1:16111, reachable",
        "serving on port 16112: 3 of 64 reservations, 1 of 16 circuits, 5 MiB carried",
        "active, 43 min 20 s left, cuts circuits after 2 min 0 s or 128 KiB each way",
        "failed, reservations-full",
        "direct 2 of 8, private 1 of 8",
        "(found): open",
        "40 addresses, 3 relays, 2 private peers; asked 9 times, answered 8, served 7",
        "127.0.0.1:16122 and 1 more: vacant (no-candidate)",
        "5 tried, 4 succeeded, 1 failed (punch-timeout 1)",
        "34 of 1024 open",
        "handler-fault, 2 times, last 10 s ago: KeyError: 'x'\\x1b[2J",
    ):
        assert expected in flat, expected
    assert "\x1b" not in text


def test_an_idle_appliance_and_a_crowded_one_both_fit() -> None:
    idle = st.Status(
        "a",
        "1",
        "simnet",
        0.4,
        PEER,
        st.RoleStatus("auto", "private", 0.0),
        st.NodeStatus("embedded", "127.0.0.1:1"),
    )
    assert "not tried yet" in render(idle)
    assert "at no relay" in render(idle)
    crowd = st.Status(
        "a",
        "1",
        "simnet",
        0.4,
        PEER,
        st.RoleStatus("auto", "private", 0.0),
        st.NodeStatus("embedded", "127.0.0.1:1"),
        outbound=(st.OutboundStatus(PEER, "direct", None, 1.0),) * 500,
    )
    assert "and 488 more" in render(crowd)
    assert len(render(crowd).splitlines()) < 60
