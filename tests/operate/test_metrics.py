"""Metrics: what Prometheus and go-libp2p's dashboards find, over real HTTP."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families
from trio.testing import MockClock, wait_all_tasks_blocked

from appliance.errors import ApplianceError
from appliance.network import Endpoint
from appliance.operate import metrics_http
from appliance.operate.metrics import (
    MAX_SERIES,
    DiscoveryMetrics,
    MetricsSnapshot,
    PunchMetrics,
    RelayMetrics,
    expose,
)
from appliance.operate.status import Usage
from appliance.reasons import Reason

SNAPSHOT = MetricsSnapshot(
    version="0.1.0",
    network="mainnet",
    node_kind="kaspad",
    uptime_s=61.5,
    public=True,
    node_reachable=True,
    relay=RelayMetrics(True, 5, 2, 1, 4, 3, 90.5, 4096, Usage(4, 64), Usage(1, 16)),
    punch=PunchMetrics(
        {("initiator", 1, "success"): 2, ("receiver", 9, "failed"): 1},
        {Reason.PUNCH_TIMEOUT: 1},
        3,
        4,
    ),
    refusals={
        ("reservation", Reason.RESERVATIONS_FULL): 7,
        ("reservation", Reason.MALFORMED_MESSAGE): 1,
        ("circuit", Reason.NO_RESERVATION): 2,
        ("circuit", Reason.TARGET_UNREACHABLE): 6,
        ("kaspa", Reason.INBOUND_PRIVATE_FULL): 3,
    },
    connections_closed={Reason.PING_TIMEOUT: 2},
    faults={"/kaspad/transport/1.0.0": 1},
    streams_opened={("in", "direct"): 3},
    streams_open={("in", "direct"): 1},
    stream_bytes={"in": 10, "out": 20},
    inbound={"direct": Usage(1, 8)},
    reservations_held=2,
    slots={"open": 1, "waiting": 2},
    discovery=DiscoveryMetrics(
        book={"entries": 40, "relays": 3},
        asked={"gossip": 5},
        failed={("kaspa", Reason.DIAL_FAILED): 2},
        served=7,
        records_rejected={Reason.MALFORMED_MESSAGE: 1},
    ),
    fds=Usage(30, 1024),
    connections=17,
    resident_bytes=90_000_000,
)


def samples(snapshot: MetricsSnapshot) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    found = {}
    for family in text_string_to_metric_families(expose(snapshot).decode()):
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found
            found[key] = sample.value
    return found


def test_the_names_and_labels_of_go_libp2p() -> None:
    found = samples(SNAPSHOT)

    def value(name: str, **labels: str) -> float:
        return found[name, tuple(sorted(labels.items()))]

    assert value("libp2p_relaysvc_status") == 1
    assert value("libp2p_relaysvc_reservations_total", type="opened") == 5
    assert value("libp2p_relaysvc_reservations_total", type="renewed") == 2
    assert value("libp2p_relaysvc_reservations_total", type="closed") == 1
    answers = "libp2p_relaysvc_reservation_request_response_status_total"
    assert value(answers, status="ok") == 7
    assert value(answers, status="rejected") == 8
    rejections = "libp2p_relaysvc_reservation_rejections_total"
    assert value(rejections, reason="ip constraint violation") == 7
    assert value(rejections, reason="malformed message") == 1
    assert value("libp2p_relaysvc_connections_total", type="opened") == 4
    answers = "libp2p_relaysvc_connection_request_response_status_total"
    assert value(answers, status="rejected") == 2
    assert value(answers, status="error") == 6
    assert value("libp2p_relaysvc_connection_rejections_total", reason="no reservation") == 2
    assert value("libp2p_relaysvc_connection_duration_seconds_sum") == 90.5
    assert value("libp2p_relaysvc_connection_duration_seconds_count") == 3
    assert value("libp2p_relaysvc_data_transferred_bytes_total") == 4096
    assert value("libp2p_holepunch_direct_dials_total", outcome="success") == 3
    outcomes = "libp2p_holepunch_outcomes_total"
    assert value(outcomes, side="initiator", num_attempts="1", outcome="success") == 2
    assert value(outcomes, side="receiver", num_attempts="> 5", outcome="failed") == 1
    assert value(outcomes, side="receiver", num_attempts="3", outcome="failed") == 0


def test_the_rest_begins_with_our_own_name() -> None:
    names = {name for name, _ in samples(SNAPSHOT)}
    assert all(
        name.startswith(("libp2p_relaysvc_", "libp2p_holepunch_", "kaspa_appliance_"))
        for name in names
    )
    found = samples(SNAPSHOT)
    refused = (("reason", "inbound-private-full"), ("subject", "kaspa"))
    assert found["kaspa_appliance_refusals_total", refused] == 3
    assert found["kaspa_appliance_slots", (("state", "waiting"),)] == 2
    assert found["kaspa_appliance_book_entries", (("kind", "relays"),)] == 3
    assert found["kaspa_appliance_gossip_asked_total", (("way", "gossip"),)] == 5
    failed = (("reason", "dial-failed"), ("way", "kaspa"))
    assert found["kaspa_appliance_gossip_failed_total", failed] == 2
    assert found["kaspa_appliance_gossip_served_total", ()] == 7
    assert found["kaspa_appliance_open_fds", ()] == 30
    assert found["kaspa_appliance_connections", ()] == 17
    assert found["kaspa_appliance_resident_memory_bytes", ()] == 90_000_000


def test_series_are_bounded_whatever_is_counted() -> None:
    faults = {f"/stranger/{number}": 1 for number in range(10_000)}
    found = samples(MetricsSnapshot("1", "simnet", "embedded", 0.0, False, faults=faults))
    mine = {key: v for key, v in found.items() if key[0] == "kaspa_appliance_faults_total"}
    assert len(mine) == MAX_SERIES + 1
    assert sum(mine.values()) == 10_000


def test_every_metric_keeps_the_conventions() -> None:
    # What `promtool check metrics` looks at.
    for snapshot in (SNAPSHOT, MetricsSnapshot("1", "simnet", "embedded", 0.0, False)):
        text = expose(snapshot).decode()
        families = list(text_string_to_metric_families(text))
        assert len(families) == text.count("# HELP ") == text.count("# TYPE ")
        for family in families:
            assert family.documentation
            counted = [sample.name.endswith("_total") for sample in family.samples]
            assert all(counted) if family.type == "counter" else not any(counted)
            assert family.type in ("counter", "gauge", "histogram")


def raises() -> MetricsSnapshot:
    raise KeyError("a counter that is not there")


@asynccontextmanager
async def serving(faulty: bool = False) -> AsyncIterator[Endpoint]:
    def collect() -> MetricsSnapshot:
        return SNAPSHOT if not faulty else raises()

    async with trio.open_nursery() as nursery:
        yield await nursery.start(metrics_http.serve, Endpoint("127.0.0.1", 0), collect)
        nursery.cancel_scope.cancel()


async def exchange(endpoint: Endpoint, request: bytes) -> bytes:
    async with await trio.open_tcp_stream(endpoint.host, endpoint.port) as stream:
        await stream.send_all(request)
        return b"".join([chunk async for chunk in stream])


async def test_a_scrape_gets_the_text_format() -> None:
    async with serving() as endpoint:
        reply = await exchange(endpoint, b"GET /metrics?x=1 HTTP/1.1\r\nHost: x\r\n\r\n")
    head, _, body = reply.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"text/plain; version=0.0.4" in head
    assert body == expose(SNAPSHOT)


@pytest.mark.parametrize(
    ("request_text", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"GET /metrics/../secret HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", 405),
        (b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"HEAD / HTTP/1.0\r\n\r\n", 404),
        (b"PUT /metrics HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz", 405),
        (b"HELO\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nX: " + b"y" * 100_000 + b"\r\n\r\n", 431),
    ],
)
async def test_everything_else_is_refused(request_text: bytes, status: int) -> None:
    async with serving() as endpoint:
        reply = await exchange(endpoint, request_text)
    assert reply.startswith(b"HTTP/1.1 %d " % status)
    assert len(reply) < 1000


async def test_head_gets_the_headers_only() -> None:
    async with serving() as endpoint:
        reply = await exchange(endpoint, b"HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    assert reply.startswith(b"HTTP/1.1 200 ")
    assert reply.endswith(b"\r\n\r\n")


async def test_a_fault_while_collecting_is_logged_and_the_next_scrape_is_served(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving(faulty=True) as endpoint:
        for _ in range(2):
            reply = await exchange(endpoint, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            assert reply.startswith(b"HTTP/1.1 500 ")
    assert [record.message for record in caplog.records] == ["metrics_fault"] * 2


async def test_a_silent_client_is_dropped(autojump_clock: MockClock) -> None:
    async with (
        serving() as endpoint,
        await trio.open_tcp_stream(endpoint.host, endpoint.port) as stream,
    ):
        await stream.send_all(b"GET /met")
        assert await stream.receive_some() == b""
        assert trio.current_time() == pytest.approx(metrics_http.DEADLINE)


async def test_idle_clients_are_bounded() -> None:
    async with serving() as endpoint:
        idle = [
            await trio.open_tcp_stream(endpoint.host, endpoint.port)
            for _ in range(metrics_http.MAX_CLIENTS)
        ]
        await wait_all_tasks_blocked()
        async with await trio.open_tcp_stream(endpoint.host, endpoint.port) as one_more:
            assert await one_more.receive_some() == b""
        for stream in idle:
            await stream.aclose()
        await wait_all_tasks_blocked()
        assert await exchange(endpoint, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")


async def test_an_occupied_port_is_one_sentence() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen(1)
        port = other.getsockname()[1]
        with pytest.raises(ApplianceError, match=rf"metrics\.listen: 127\.0\.0\.1:{port} is in u"):
            await metrics_http.serve(Endpoint("127.0.0.1", port), lambda: SNAPSHOT)
