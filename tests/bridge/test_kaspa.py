"""Kaspa streams as the node beside us sees them: real sockets on both ends."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest
import trio

from appliance.bridge import kaspa
from appliance.bridge.connection import Connection
from appliance.bridge.host import Host
from appliance.bridge.kaspa import PROTOCOL, KaspaStreams
from appliance.bridge.negotiate import NegotiatedStream
from appliance.dataplane.tcp import TcpStream
from appliance.errors import Refused, StreamReset
from appliance.network import Endpoint
from appliance.policy.admission import InboundLimits
from appliance.policy.loopback import NETWORK
from appliance.reasons import Reason
from appliance.units import KIB, MIB
from tests.bridge.test_slots import echo
from tests.bridge.world import World, logged, small_world, until
from tests.dataplane.sessions import read_to_end

LIMITS = InboundLimits(8, 8, 8)


class Node:
    """A Kaspa node as a TCP server whose connections the test handles itself."""

    def __init__(self) -> None:
        self._sock = trio.socket.socket()
        self._accepted: list[TcpStream] = []
        self.endpoint = Endpoint("127.0.0.1", 1)

    async def bind(self, **options: int) -> None:
        """Take a port; until `listen` every SYN is answered with RST."""
        for name, value in options.items():
            self._sock.setsockopt(socket.SOL_SOCKET, getattr(socket, name), value)
        await self._sock.bind(("127.0.0.1", 0))
        self.endpoint = Endpoint(*self._sock.getsockname()[:2])

    def listen(self, backlog: int = 16) -> None:
        self._sock.listen(backlog)

    async def accept(self) -> TcpStream:
        with trio.fail_after(10):
            sock, _ = await self._sock.accept()
        self._accepted.append(TcpStream(sock))
        return self._accepted[-1]

    def close(self) -> None:
        for stream in self._accepted:
            stream.reset()
        self._sock.close()


@asynccontextmanager
async def node(*, up: bool = True, **options: int) -> AsyncIterator[Node]:
    made = Node()
    try:
        await made.bind(**options)
        if up:
            made.listen()
        yield made
    finally:
        made.close()


@asynccontextmanager
async def served(limits: InboundLimits = LIMITS) -> AsyncIterator[tuple[World, Host, Node, Any]]:
    """A world with `b`, whose node is at hand, and b's streams."""
    async with node() as beside, small_world() as world:
        b = await world.host()
        yield world, b, beside, KaspaStreams(b, beside.endpoint, limits)


async def opened(conn: Connection, first: bytes = b"\0") -> NegotiatedStream:
    """A Kaspa stream; the peer hears of it with the first bytes."""
    stream = conn.open(PROTOCOL)
    await stream.send_all(first)
    return stream


async def refused(conn: Connection) -> None:
    stream = await opened(conn)
    with trio.fail_after(5), pytest.raises(StreamReset):
        await stream.receive_some()


async def reset_seen(stream: TcpStream | NegotiatedStream) -> None:
    with pytest.raises(StreamReset):
        await read_to_end(stream)


# --- what the node sees


async def test_the_node_sees_a_loopback_address_of_its_own_for_each_peer() -> None:
    async with served() as (world, b, beside, _):
        seen: dict[str, set[str]] = {}
        for a in (await world.host(), await world.host(), await world.host()):
            conn = await world.connect(a, b)
            for _ in range(2):
                stream = await opened(conn)
                accepted = await beside.accept()
                seen.setdefault(a.peer_id, set()).add(accepted.remote.host)
                accepted.reset()
                await reset_seen(stream)
        addresses = {next(iter(hosts)) for hosts in seen.values() if len(hosts) == 1}
        assert len(addresses) == 3
        assert all(ip_address(address) in NETWORK for address in addresses)


async def test_bytes_pass_unchanged_and_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with served() as (world, b, beside, streams):
        a = await world.host()
        conn = await world.connect(a, b)
        question, answer = bytes(range(256)) * 4096, b"yes" * 100_000
        stream = conn.open(PROTOCOL)

        async def ask() -> None:
            await stream.send_all(question)
            await stream.send_eof()

        world.nursery.start_soon(ask)
        accepted = await beside.accept()
        assert await read_to_end(accepted) == question
        assert [entry.path for entry in streams.open] == ["direct"]
        await accepted.send_all(answer)
        await accepted.aclose()
        assert await read_to_end(stream) == answer
        await until(lambda: logged(caplog, "kaspa_stream_closed"))
        assert b.telemetry.kaspa_bytes == {"in": len(question), "out": len(answer)}
        assert b.telemetry.kaspa_streams == {("inbound", "direct"): 1}
        [closed] = logged(caplog, "kaspa_stream_closed")
        assert closed == {
            "peer": a.peer_id, "path": "direct", "reason": "closed",
            "bytes_in": len(question), "bytes_out": len(answer),
        }  # fmt: skip
        assert not streams.open and streams.budget.used == 0


@pytest.mark.parametrize("first", ["peer", "node"])
async def test_half_close_is_carried_and_the_other_half_lives_on(first: str) -> None:
    async with served() as (world, b, beside, _):
        stream = await opened(await world.connect(await world.host(), b), b"hello")
        accepted = await beside.accept()
        assert await accepted.receive_some() == b"hello"
        early, late = (stream, accepted) if first == "peer" else (accepted, stream)
        await early.send_eof()
        assert await read_to_end(late) == b""
        await late.send_all(b"still here")
        await late.send_eof()
        assert await read_to_end(early) == b"still here"


@pytest.mark.parametrize("first", ["peer", "node"])
async def test_a_reset_is_carried(first: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with served() as (world, b, beside, streams):
        stream = await opened(await world.connect(await world.host(), b))
        accepted = await beside.accept()
        await accepted.receive_some()
        early, late = (stream, accepted) if first == "peer" else (accepted, stream)
        early.reset()
        await reset_seen(late)
        await until(lambda: not streams.open)
        [closed] = logged(caplog, "kaspa_stream_closed")
        assert closed["reason"] == f"{first}-reset"


async def test_a_lost_connection_is_not_called_a_reset(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with served() as (world, b, beside, streams):
        a = await world.host()
        await opened(await world.connect(a, b))
        accepted = await beside.accept()
        await world.stop(a)
        await reset_seen(accepted)
        await until(lambda: not streams.open)
        [closed] = logged(caplog, "kaspa_stream_closed")
        assert closed["reason"] == "connection-lost"


# --- the node is not there


async def test_a_node_that_is_down_resets_the_stream_and_the_next_one_finds_it_back() -> None:
    async with node(up=False) as beside, small_world() as world:
        b = await world.host()
        streams = KaspaStreams(b, beside.endpoint, LIMITS)
        conn = await world.connect(await world.host(), b)
        assert streams.node_reachable is None
        await refused(conn)
        assert b.telemetry.refusals == {("kaspa", Reason.NODE_UNREACHABLE): 1}
        assert streams.node_reachable is False
        await until(lambda: streams.budget.used == 0)

        beside.listen()
        stream = await opened(conn, b"hello")
        accepted = await beside.accept()
        assert await accepted.receive_some() == b"hello"
        assert streams.node_reachable is True
        assert not conn.closed
        stream.reset()


@asynccontextmanager
async def deaf_node() -> AsyncIterator[Endpoint]:
    """A node whose SYN queue is full: dials hang, as with one that is frozen."""
    async with node(up=False) as beside:
        beside.listen(0)
        with trio.socket.socket() as filler:
            await filler.connect((beside.endpoint.host, beside.endpoint.port))
            yield beside.endpoint


async def test_the_node_is_looked_for_until_it_is_there(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """`appliance status` says that the node is down before any peer has asked for it."""
    caplog.set_level("WARNING")
    monkeypatch.setattr(kaspa, "NODE_LOOK_EVERY", 0.01)
    async with node(up=False) as beside, small_world() as world:
        streams = KaspaStreams(await world.host(), beside.endpoint, LIMITS)
        world.nursery.start_soon(streams.watch_node)
        await until(lambda: streams.node_reachable is False)
        beside.listen()
        looked = await beside.accept()
        assert await looked.receive_some() == b""
        await until(lambda: streams.node_reachable)
    assert len(logged(caplog, "node_unreachable")) == 1


async def test_a_node_that_does_not_answer_is_given_up(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(kaspa, "NODE_DIAL_DEADLINE", 0.2)
    async with deaf_node() as endpoint, small_world() as world:
        b = await world.host()
        KaspaStreams(b, endpoint, LIMITS)
        await refused(await world.connect(await world.host(), b))
        [entry] = logged(caplog, "refused")
        assert entry["reason"] == "node-unreachable"
        assert entry["detail"] == f"{endpoint}: no answer within 0.2 s"


async def test_a_peer_that_leaves_while_the_node_is_dialled_gives_its_place_back() -> None:
    async with deaf_node() as endpoint, small_world() as world:
        b = await world.host()
        streams = KaspaStreams(b, endpoint, InboundLimits(1, 1, 1))
        a = await world.host()
        await opened(await world.connect(a, b))
        await until(lambda: streams.budget.used == 1)
        await world.stop(a)
        await until(lambda: streams.budget.used == 0)


# --- budgets


async def test_a_peer_has_one_stream() -> None:
    async with served() as (world, b, beside, streams):
        conn = await world.connect(await world.host(), b)
        stream = await opened(conn)
        accepted = await beside.accept()
        await refused(conn)
        assert b.telemetry.refusals == {("kaspa", Reason.PEER_HAS_STREAM): 1}
        accepted.reset()
        await reset_seen(stream)
        await until(lambda: streams.budget.used == 0)
        await opened(conn)
        await beside.accept()


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (replace(LIMITS, private=1), Reason.INBOUND_PRIVATE_FULL),
        (replace(LIMITS, unknown_relay=1), Reason.UNKNOWN_RELAY_FULL),
    ],
)
async def test_strangers_share_a_budget(limits: InboundLimits, reason: Reason) -> None:
    async with served(limits) as (world, b, beside, _):
        await opened(await world.connect(await world.host(), b))
        await beside.accept()
        await refused(await world.connect(await world.host(), b))
        assert b.telemetry.refusals == {("kaspa", reason): 1}


async def test_no_relay_fills_the_budget_alone() -> None:
    async with served(replace(LIMITS, per_relay=1, unknown_relay=1)) as (world, b, beside, streams):
        one = await world.relay(circuit_bytes=0, circuit_seconds=0)
        two = await world.relay(circuit_bytes=0, circuit_seconds=0)
        await world.reserve(b, one, two)
        await opened(await world.circuit(await world.host(), one, b))
        await beside.accept()
        await refused(await world.circuit(await world.host(), one, b))
        assert b.telemetry.refusals == {("kaspa", Reason.PER_RELAY_FULL): 1}
        await opened(await world.circuit(await world.host(), two, b))
        await beside.accept()
        # Whoever came by himself has a share of his own.
        await opened(await world.connect(await world.host(), b))
        await beside.accept()
        assert streams.budget.per_relay() == {one.peer_id: 1, two.peer_id: 1}
        assert streams.budget.used == 3


# --- relayed connections


async def test_a_small_circuit_carries_no_stream() -> None:
    async with served() as (world, b, _, streams):
        relay = await world.relay(circuit_seconds=120, circuit_bytes=128 * KIB)
        await world.reserve(b, relay)
        conn = await world.circuit(await world.host(), relay, b)
        started = trio.current_time()
        await refused(conn)
        assert trio.current_time() - started < 1
        assert b.telemetry.refusals == {("kaspa", Reason.RELAY_LIMIT_TOO_SMALL): 1}
        # Nobody asked the node.
        assert streams.node_reachable is None


async def test_an_unlimited_circuit_carries_it() -> None:
    async with served() as (world, b, beside, streams):
        relay = await world.relay(circuit_seconds=0, circuit_bytes=0)
        await world.reserve(b, relay)
        stream = await opened(await world.circuit(await world.host(), relay, b), b"hello")
        accepted = await beside.accept()
        assert await accepted.receive_some() == b"hello"
        [entry] = streams.open
        assert (entry.path, entry.relay, entry.direction) == ("relayed", relay.peer_id, "inbound")
        assert entry.local == str(accepted.remote)
        await accepted.aclose()
        assert await read_to_end(stream) == b""


# --- memory, shutdown


async def test_a_node_that_never_reads_takes_little_of_us() -> None:
    async with node(SO_RCVBUF=64 * KIB) as beside, small_world() as world:
        b = await world.host()
        KaspaStreams(b, beside.endpoint, LIMITS)
        conn = await world.connect(await world.host(), b)
        stream = await opened(conn)
        accepted = await beside.accept()
        sent = 0

        async def pour() -> None:
            nonlocal sent
            while sent < 50 * MIB:
                await stream.send_all(bytes(64 * KIB))
                sent += 64 * KIB

        world.nursery.start_soon(pour)
        seen = -1
        while seen != sent:
            seen = sent
            await trio.sleep(0.5)
        # The stream's window, the pipe's 64 KiB and the kernel's buffers of one loopback socket.
        assert sent < 8 * MIB
        # The connection itself is not held up by it.
        assert await conn.session.ping() < 5
        received = 0
        while received < 50 * MIB:
            received += len(await accepted.receive_some(MIB))


async def test_draining_refuses_new_streams_and_waits_for_the_old() -> None:
    async with served() as (world, b, beside, streams):
        stream = await opened(await world.connect(await world.host(), b))
        accepted = await beside.accept()
        streams.draining = True
        await refused(await world.connect(await world.host(), b))
        assert b.telemetry.refusals == {("kaspa", Reason.SHUTTING_DOWN): 1}
        with trio.move_on_after(0.1) as early:
            await streams.drained()
        assert early.cancelled_caught
        await stream.send_eof()
        await accepted.aclose()
        with trio.fail_after(5):
            await streams.drained()


# --- two that dial each other


@pytest.mark.parametrize("first", ["smaller", "larger"])
@pytest.mark.parametrize("yields", [True, False])
async def test_of_two_dials_that_cross_the_smaller_ids_stays(first: str, yields: bool) -> None:
    """Neither has heard of the other's stream when it opens its own; both then keep the same one.
    Streams of declared slots, which do not yield, both stay."""
    async with small_world() as world:
        hosts = sorted([await world.host() for _ in range(2)], key=lambda host: host.peer_id)
        beside = await world.tcp(echo)
        ends = [KaspaStreams(host, beside, LIMITS) for host in hosts]
        conns = [await world.connect(*hosts), hosts[1].direct_to(hosts[0].peer_id)]
        ended: list[str] = []
        reasons: list[Reason] = []

        async def dial(number: int) -> None:
            conn = conns[number]
            assert conn is not None
            node = TcpStream((await trio.open_tcp_stream(beside.host, beside.port)).socket)
            try:
                await ends[number].carry(
                    node, conn.open(PROTOCOL), conn, "outbound", "here", yields=yields
                )
            except Refused as refusal:
                reasons.append(refusal.reason)
            ended.append(("smaller", "larger")[number])

        for number in (0, 1) if first == "smaller" else (1, 0):
            world.nursery.start_soon(dial, number)
        if not yields:
            await until(lambda: all(len(one.open) == 2 for one in ends))
            return
        await until(lambda: ended)
        await until(lambda: [len(one.open) for one in ends] == [1, 1])
        assert ended == ["larger"]
        assert set(reasons) <= {Reason.PEER_HAS_STREAM}  # unless the other end was faster
        assert [[one.direction for one in end.open] for end in ends] == [["outbound"], ["inbound"]]
        assert [end.budget.used for end in ends] == [0, 1]
