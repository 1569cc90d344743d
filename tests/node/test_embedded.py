"""Embedded nodes with each other, over loopback and in virtual time."""

from __future__ import annotations

import itertools
import logging
import socket
from ipaddress import IPv4Address, ip_address

import pytest
import trio
import trio.testing

from appliance.errors import ApplianceError
from appliance.network import Endpoint, Network
from appliance.node import embedded, lab_payload
from appliance.node.embedded import EmbeddedNode
from appliance.units import MIB
from appliance.wire.kaspa_messages import NetAddress
from tests.node.peers import ANY, STRANGER, MemoryStream, journal, memory_pair, running

PUBLIC = NetAddress(ip=IPv4Address("203.0.113.7"), port=16111)


async def test_two_nodes_shake_hands_and_exchange_addresses() -> None:
    with journal() as log:
        async with running(known=[PUBLIC]) as (server, at), running(at) as (client, _):
            await log.wait("kaspa_handshake", count=2)
            (addresses,) = [
                entry for entry in await log.wait("kaspa_addresses", count=2) if entry["count"]
            ]
            assert addresses["remote"] == str(at)
            assert client.address_count == 1
            (outbound,) = client.peers()
            (inbound,) = server.peers()
            assert outbound.remote == at
            assert outbound.outbound
            assert not inbound.outbound
            assert outbound.protocol_version == inbound.protocol_version == 10
            assert outbound.user_agent.startswith("/kaspa-appliance:")
    assert {entry["direction"] for entry in log.all("kaspa_handshake")} == {"inbound", "outbound"}
    assert len(log.all("kaspa_listening")) == 2


async def test_sixteen_mebibytes_come_back_intact() -> None:
    size = 16 * MIB
    with journal() as log:
        async with running(lab_payload=size) as (_, at), running(at, lab_payload=size):
            results = await log.wait("lab_payload", count=2, within=60)
    assert {entry["direction"] for entry in results} == {"inbound", "outbound"}
    assert all(entry["intact"] and entry["bytes"] == size for entry in results)
    assert len({entry["sha256"] for entry in results}) == 1


@pytest.mark.parametrize(("here", "there"), [(1000, 0), (0, 1000)])
async def test_a_payload_goes_only_where_it_is_wanted(here: int, there: int) -> None:
    with journal() as log:
        async with running(lab_payload=there) as (_, at), running(at, lab_payload=here):
            await log.wait("kaspa_addresses", count=2)
    assert not log.all("lab_payload")


def test_who_speaks_the_payload() -> None:
    assert lab_payload.speaks_it("/kaspa-appliance:0.1.0(lab-payload)/")
    assert not lab_payload.speaks_it("/kaspa-appliance:0.1.0/")
    assert not lab_payload.speaks_it("/kaspad:1.1.0/kaspad:1.1.0(lab-payload)/")


async def test_a_node_of_another_network_is_left_and_tried_again() -> None:
    with journal() as log:
        async with (
            running(network=Network.TESTNET_10) as (other, at),
            running(at, retry=0.05) as (node, _),
        ):
            # Whoever judges first says so; the other hears the reject.
            gone = await log.wait("kaspa_disconnected", count=6)
            assert node.peers() == other.peers() == ()
    assert {entry["reason"] for entry in gone} <= {"wrong-network", "rejected-by-peer"}
    assert "wrong-network" in {entry["reason"] for entry in gone}
    assert not log.all("kaspa_handshake")


async def test_a_node_that_dials_itself_notices() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = Endpoint("127.0.0.1", probe.getsockname()[1])
    node = EmbeddedNode(Network.SIMNET, free, [free], retry=30)
    with journal() as log:
        async with trio.open_nursery() as nursery:
            await nursery.start(node.run)
            gone = await log.wait("kaspa_disconnected", count=2)
            assert node.peers() == ()
            nursery.cancel_scope.cancel()
    assert "self-connection" in {entry["reason"] for entry in gone}


async def test_a_node_that_starts_late_and_one_that_restarts_are_found() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        at = Endpoint("127.0.0.1", probe.getsockname()[1])
    with journal() as log:
        async with running(at, retry=0.05):
            await log.wait("kaspa_dial_failed", count=2)
            for times in (2, 4):
                async with trio.open_nursery() as nursery:
                    await nursery.start(EmbeddedNode(Network.SIMNET, at).run)
                    await log.wait("kaspa_handshake", count=times)
                    nursery.cancel_scope.cancel()
    assert {entry["reason"] for entry in log.all("kaspa_dial_failed")} == {"dial-failed"}


@pytest.mark.parametrize(
    ("most_doublings", "waits"), [(0, [5, 5, 5, 5]), (1, [5, 10, 10, 10]), (4, [5, 10, 20, 40])]
)
async def test_how_long_it_waits_between_dials_that_fail(
    most_doublings: int, waits: list[float], autojump_clock: trio.testing.MockClock
) -> None:
    nobody = Endpoint("127.0.0.1", 1)
    at: list[float] = []
    with journal() as log:
        async with running(nobody, retry=5, most_doublings=most_doublings):
            for count in range(1, 6):
                await log.wait("kaspa_dial_failed", count=count, within=100)
                at.append(trio.current_time())
    assert [later - earlier for earlier, later in itertools.pairwise(at)] == pytest.approx(waits)


async def test_of_dials_that_fail_in_a_row_one_is_news(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "appliance.node.embedded")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        at = Endpoint("127.0.0.1", probe.getsockname()[1])
    with journal() as log:
        async with running(at, retry=0.02):
            await log.wait("kaspa_dial_failed", count=3)
            async with trio.open_nursery() as nursery:
                await nursery.start(EmbeddedNode(Network.SIMNET, at).run)
                await log.wait("kaspa_handshake", count=2)
                before = len(log.all("kaspa_dial_failed"))
                nursery.cancel_scope.cancel()
            await log.wait("kaspa_dial_failed", count=before + 3)
    failed = [one.levelno for one in caplog.records if one.getMessage() == "kaspa_dial_failed"]
    assert failed[:3] == [logging.INFO, logging.DEBUG, logging.DEBUG]
    assert failed[before : before + 3] == [logging.INFO, logging.DEBUG, logging.DEBUG]


async def test_stopping_takes_less_than_two_seconds_and_leaves_nothing_open() -> None:
    with journal() as log:
        async with running() as (_, at):
            async with running(at) as (node, _):
                await log.wait("kaspa_handshake", count=2)
                before = trio.current_time()
            assert trio.current_time() - before < 2
            assert node.peers() == ()
            await log.wait("kaspa_disconnected", count=2)
        with pytest.raises(OSError):
            await trio.open_tcp_stream(at.host, at.port)
    assert {entry["reason"] for entry in log.all("kaspa_disconnected")} == {
        "shutting-down",
        "connection-lost",
    }


async def test_a_taken_port_is_one_sentence() -> None:
    async with running() as (_, at), trio.open_nursery() as nursery:
        with pytest.raises(ApplianceError, match=f"cannot listen on {at}") as caught:
            await nursery.start(EmbeddedNode(Network.SIMNET, at).run)
        assert caught.value.hint


async def test_a_banned_address_is_dropped_and_refused() -> None:
    with journal() as log:
        async with running(known=[PUBLIC]) as (node, at), running(at, retry=0.05):
            await log.wait("kaspa_handshake", count=2)
            node.ban("127.0.0.1")
            await log.wait("kaspa_disconnected", count=2)
            await log.wait("kaspa_dial_failed")
            assert node.peers() == ()
            node.ban(str(PUBLIC.ip))
            assert node.address_count == 0


async def test_a_declared_peer_cannot_be_banned() -> None:
    with journal() as log:
        async with running() as (_, at), running(at) as (node, _):
            await log.wait("kaspa_handshake", count=2)
            node.ban("127.0.0.1")
            assert len(node.peers()) == 1


async def test_above_the_limit_inbound_peers_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "TRIM_INTERVAL", 0.05)
    with journal() as log:
        async with running(inbound_limit=1) as (node, at), running(at), running(at):
            await log.wait("kaspa_handshake", count=4)
            (gone,) = await log.wait("kaspa_disconnected")
            assert gone["reason"] == "connections-full"
            assert len(node.peers()) == 1


# --- in virtual time


async def connected(
    nursery: trio.Nursery, left: EmbeddedNode, right: EmbeddedNode
) -> tuple[MemoryStream, MemoryStream]:
    ends = memory_pair()
    nursery.start_soon(left.dial_stream, ends[0], Endpoint("203.0.113.1", 16111))
    nursery.start_soon(right.serve_stream, ends[1], Endpoint("203.0.113.2", 40000))
    return ends


def node(**options: object) -> EmbeddedNode:
    return EmbeddedNode(Network.SIMNET, ANY, **options)  # type: ignore[arg-type] # each test its own


async def test_pings_keep_an_idle_connection_alive(
    autojump_clock: trio.testing.MockClock,
) -> None:
    left, right = node(), node()
    async with trio.open_nursery() as nursery:
        ends = await connected(nursery, left, right)
        await trio.sleep(3600)
        for side in (left, right):
            (peer,) = side.peers()
            assert peer.ping_s is not None
            assert 3590 < peer.since_s < 3610
        ends[0].reset()
    assert left.peers() == right.peers() == ()


async def test_a_peer_that_falls_silent_is_left(autojump_clock: trio.testing.MockClock) -> None:
    server = node()
    left, right = memory_pair()
    with journal() as log:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.serve_stream, right, Endpoint("203.0.113.2", 40000))
            began = trio.current_time()
            while await left.receive_some():  # says nothing: no preface, no request
                pass
            assert 9 < trio.current_time() - began < 15
            left.reset()
    assert not log.all("kaspa_handshake")


async def test_outbound_addresses_are_remembered(autojump_clock: trio.testing.MockClock) -> None:
    left, right = node(), node(external=Endpoint("198.51.100.1", 16111))
    public = node(external=Endpoint("8.8.8.8", 16111))
    async with trio.open_nursery() as nursery:
        first = await connected(nursery, left, right)
        await trio.sleep(1)
        # 198.51.100.0/24 is documentation space: nobody can route to it, so it is not said.
        told = left._acquaintances.tell(STRANGER)
        assert [address.ip for address in told] == [ip_address("203.0.113.1")]
        second = await connected(nursery, public, right)
        await trio.sleep(1)
        told = right._acquaintances.tell(STRANGER)
        assert ip_address("8.8.8.8") in [address.ip for address in told]
        for ends in (first, second):
            ends[0].reset()


async def test_back_off_doubles_up_to_sixteen_times(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nobody(*_: object, **__: object) -> trio.SocketStream:
        dials.append(trio.current_time())
        raise OSError("nobody there")

    dials: list[float] = []
    monkeypatch.setattr(trio, "open_tcp_stream", nobody)
    async with running(Endpoint("203.0.113.1", 16111)):
        await trio.sleep(30 * (1 + 2 + 4 + 8 + 16 + 16) + 1)
    gaps = [round(after - before) for before, after in itertools.pairwise(dials)]
    assert gaps == [30, 60, 120, 240, 480, 480]
