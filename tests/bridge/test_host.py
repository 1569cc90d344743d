"""The host over real loopback sockets: being dialled, streams, caps, idleness, addresses."""

from __future__ import annotations

import contextlib
import socket

import pytest
import trio
from libp2p.identity.identify.pb import identify_pb2
from trio.testing import MockClock

from appliance.bridge import identify
from appliance.bridge.connection import Connection, Direct
from appliance.bridge.host import HANDSHAKE_DEADLINE, Host, HostLimits
from appliance.bridge.negotiate import NegotiatedStream
from appliance.bridge.telemetry import Telemetry
from appliance.errors import ApplianceError, Fault, StreamReset
from appliance.network import Endpoint
from appliance.reasons import Reason
from appliance.wire import multiaddr
from tests.bridge.strangers import (
    PING,
    assert_serves,
    is_cut,
    is_turned_away,
    living_tasks,
    open_files,
    ping,
    session_to,
    shout,
    socket_to,
)
from tests.bridge.world import (
    EVERY_IPV4,
    LOOPBACK,
    NOBODY,
    World,
    endpoint_of,
    logged,
    small_world,
    until,
)

# --- defects of the library that we must not have


async def test_defect_1_inbound_connections_leave_nothing_behind(world: World) -> None:
    a, b = await world.host(), await world.host()

    async def once() -> None:
        conn = await a.dial(endpoint_of(b), b.peer_id, client=True)
        await conn.identified.wait()
        await conn.session.close(Reason.IDLE)
        await until(lambda: not a.connections() and not b.connections())

    await once()
    tasks, files = living_tasks(), open_files()
    for _ in range(300):
        await once()
    conn = await world.connect(a, b)
    assert await ping(conn, b"the 301st") == b"the 301st"
    await conn.session.close(Reason.IDLE)
    await until(lambda: living_tasks() == tasks and open_files() == files)
    assert not b.telemetry.faults and not b.telemetry.refusals


async def test_connections_that_never_become_one_leave_nothing_behind(world: World) -> None:
    host = await world.host()
    tasks, files = living_tasks(), open_files()
    for number in range(60):
        stream = await socket_to(host)
        if number % 3 == 1:
            await stream.send_all(b"\x13/multistream/1.0.0\n")
        if number % 3 == 2:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        await stream.aclose()
    await until(lambda: living_tasks() == tasks and open_files() == files)
    await assert_serves(world, host)


async def test_defect_3_an_exception_in_a_handler_ends_its_own_stream_only(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    a, b = await world.host(), await world.host()

    async def broken(stream: NegotiatedStream, conn: Connection) -> None:
        raise ZeroDivisionError("a bug of ours")

    b.handle("/broken", broken)
    conn = await world.connect(a, b)
    other = conn.open(PING)
    await other.send_all(b"before")
    assert await other.receive_exactly(6) == b"before"

    stream = conn.open("/broken")
    await stream.flush()
    with pytest.raises(StreamReset):
        await stream.receive_exactly(1)

    await other.send_all(b"after")
    assert await other.receive_exactly(5) == b"after"
    assert await ping(conn, b"next") == b"next"
    assert b.telemetry.faults == {"/broken": 1}
    [event] = logged(caplog, "handler_fault")
    assert event["what"] == "/broken" and "ZeroDivisionError" in event["error"]


async def test_an_exception_in_a_listener_ends_nothing(world: World) -> None:
    a, b = await world.host(), await world.host()
    closed: list[str] = []

    def broken(conn: Connection) -> None:
        raise ZeroDivisionError("a bug of ours")

    b.on_connected.append(broken)
    b.on_closed += [broken, lambda conn: closed.append(conn.peer_id)]
    conn = await world.connect(a, b)
    assert await ping(conn)
    await conn.session.close(Reason.IDLE)
    await until(lambda: closed == [a.peer_id])
    assert b.telemetry.faults == {"connection": 2}


async def test_defect_13_only_addresses_that_others_can_use_are_announced(world: World) -> None:
    public = Endpoint("198.51.100.7", 16112)
    host = await world.host(
        listen=[EVERY_IPV4],
        external=[public, Endpoint("0.0.0.0", 1), Endpoint("10.0.0.9", 16112)],
        allow_private=False,
    )
    port = endpoint_of(host).port
    peer = await world.host()
    # Dialled from the listen port, so that an observation (127.0.0.1, private) is there as well.
    conn = await host.connect(endpoint_of(peer), peer.peer_id)
    await conn.identified.wait()
    assert conn.observed == Endpoint("127.0.0.1", port)
    assert host.announced() == (public,)

    asker = await world.host()
    seen = await asker.dial(Endpoint("127.0.0.1", port), host.peer_id, client=True)
    stream = seen.open(identify.PROTOCOL)
    message = identify_pb2.Identify.FromString(await stream.receive_message(8192))
    assert [multiaddr.decode(a) for a in message.listen_addrs] == [multiaddr.TcpAddress(public)]


@pytest.mark.parametrize("target", [Endpoint("0.0.0.0", 1), Endpoint("::", 1), LOOPBACK], ids=str)
async def test_defect_13_no_address_is_dialled_that_no_machine_has(
    world: World, target: Endpoint
) -> None:
    host = await world.host()
    with pytest.raises(Fault) as caught:
        await host.connect(target, NOBODY)
    assert caught.value.reason is Reason.DIAL_FAILED


# --- being dialled


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
        b"\xff" * 4096,
        b"\x13/multistream/1.0.0\n\x0b/tls/1.0.0\n",
        b"\x13/multistream/1.0.0\n\x07/noise\n\x00\x05abcde",
        b"\x13/multistream/1.0.0\n\x07/noise\n\x00\x20" + bytes(32),
    ],
    ids=["http", "tls", "ff", "unsupported", "noise-short", "noise-zero-key"],
)
async def test_garbage_instead_of_a_handshake(world: World, garbage: bytes) -> None:
    host = await world.host()
    assert await shout(host, garbage)
    await assert_serves(world, host)
    assert not host.telemetry.faults
    assert sum(host.telemetry.refusals.values()) == 1


async def test_a_peer_that_says_nothing_is_cut_at_the_deadline(fast_clock: MockClock) -> None:
    async with small_world(float("inf")) as world:
        host = await world.host()
        stream = await socket_to(host)
        started = trio.current_time()
        assert await is_cut(stream)
        assert HANDSHAKE_DEADLINE <= trio.current_time() - started < HANDSHAKE_DEADLINE + 1
        assert host.telemetry.refusals == {("connection", Reason.HANDSHAKE_TIMEOUT): 1}
        await stream.aclose()


async def test_connections_of_one_address_are_capped(world: World) -> None:
    host = await world.host(limits=HostLimits(50, connections_per_ip=2))
    first = await session_to(world, host)
    await session_to(world, host)
    assert await is_turned_away(host)
    assert host.telemetry.refusals == {("connection", Reason.CONNECTIONS_PER_IP_FULL): 1}
    await first.close(Reason.IDLE)
    await until(lambda: len(host.connections()) == 1)
    await session_to(world, host)


async def test_connections_in_all_are_capped_and_handshakes_count(world: World) -> None:
    host = await world.host(limits=HostLimits(2))
    await session_to(world, host)
    silent = await socket_to(host)  # its handshake is in progress
    assert await is_turned_away(host)
    assert host.telemetry.refusals == {("connection", Reason.CONNECTIONS_FULL): 1}
    await silent.aclose()
    await until(lambda: host.telemetry.refusals["connection", Reason.HANDSHAKE_FAILED])
    await session_to(world, host)


async def test_handshakes_at_once_are_capped(world: World) -> None:
    host = await world.host(limits=HostLimits(50, handshakes=2))
    waiting = [await socket_to(host) for _ in range(2)]
    assert await is_turned_away(host)
    assert host.telemetry.refusals == {("connection", Reason.HANDSHAKES_FULL): 1}
    for stream in waiting:
        await stream.aclose()


async def test_a_punch_in_progress_opens_the_gate_for_a_few_only(world: World) -> None:
    """Its peer announces the address: it must not become a way around every cap."""
    host = await world.host(limits=HostLimits(50, handshakes=1))
    announced = [Endpoint("127.0.0.1", 1)]
    with host.expecting(NOBODY, announced, client=False, introduced_by="a relay"):
        waiting = [await socket_to(host) for _ in range(1 + host.limits.punches)]
        assert await is_turned_away(host)
    assert host.telemetry.refusals == {("connection", Reason.HANDSHAKES_FULL): 1}
    for stream in waiting:
        await stream.aclose()


async def test_a_neighbour_of_the_punched_peer_is_not_taken_for_it(world: World) -> None:
    host, neighbour = await world.host(), await world.host()
    announced = [Endpoint("127.0.0.1", 1)]
    with host.expecting(NOBODY, announced, client=False, introduced_by="a relay"):
        await world.connect(neighbour, host)
    [conn] = host.connections()
    assert conn.introduced_by is None
    assert isinstance(conn.path, Direct) and not conn.path.punched


async def test_streams_above_the_cap_are_refused(world: World) -> None:
    host = await world.host(limits=HostLimits(50, streams_per_connection=4))
    session = await session_to(world, host)
    streams = [NegotiatedStream.propose(session.open_stream(), PING) for _ in range(4)]
    for stream in streams:
        await stream.send_all(b"x")
        assert await stream.receive_exactly(1) == b"x"
    surplus = NegotiatedStream.propose(session.open_stream(), PING)
    with pytest.raises(StreamReset):
        await surplus.receive_exactly(1)
    await streams[0].send_all(b"y")
    assert await streams[0].receive_exactly(1) == b"y"
    streams[0].reset()
    await session.ping()
    again = NegotiatedStream.propose(session.open_stream(), PING)
    await again.send_all(b"z")
    assert await again.receive_exactly(1) == b"z"
    await session.close(Reason.IDLE)
    await until(lambda: not host.connections())
    assert host.telemetry.refusals["stream", Reason.STREAMS_FULL] == 1


async def test_an_unknown_protocol_is_refused_and_the_stream_goes_on(world: World) -> None:
    a, b = await world.host(), await world.host()
    conn = await world.connect(a, b)
    with pytest.raises(Fault) as caught:
        await conn.open("/never/heard/of").confirmed()
    assert caught.value.reason is Reason.UNSUPPORTED_PROTOCOL
    assert await ping(conn)


# --- idleness


async def test_idle_connections_are_closed_and_held_ones_are_not(fast_clock: MockClock) -> None:
    async with small_world(float("inf")) as world:
        idle, held, b = await world.host(), await world.host(), await world.host()
        await idle.connect(endpoint_of(b), b.peer_id)
        conn = await held.connect(endpoint_of(b), b.peer_id)
        await trio.sleep(1)
        [kept] = b.connections(held.peer_id)
        with conn.held(), kept.held():
            await trio.sleep(400)
            assert not b.connections(idle.peer_id)
            assert b.connections(held.peer_id) and await ping(conn)
        assert b.telemetry.connections_closed.total() == 1
        await trio.sleep(400)
        assert not b.connections()


async def test_a_connection_whose_peer_uses_it_now_and_then_stays(fast_clock: MockClock) -> None:
    async with small_world(float("inf")) as world:
        a, b = await world.host(), await world.host()
        conn = await a.connect(endpoint_of(b), b.peer_id)
        for _ in range(6):
            await trio.sleep(100)
            assert await ping(conn)
        await trio.sleep(400)
        assert not b.connections() and not a.connections()


async def test_a_peer_that_never_answers_identify_is_idle_too(fast_clock: MockClock) -> None:
    async with small_world(float("inf")) as world:
        host = await world.host()
        session = await session_to(world, host)
        await trio.sleep(400)
        assert session.closed.is_set()
        assert host.telemetry.connections_closed == {Reason.IDLE: 1}


# --- listening and the end


async def test_two_listeners_on_one_port_are_refused_with_a_sentence(world: World) -> None:
    first = await world.host()
    second = Host(first.identity, HostLimits(5), Telemetry())
    with pytest.raises(ApplianceError) as caught:
        await second.run([LOOPBACK, endpoint_of(first)])
    assert caught.value.message == (
        f"bridge.listen: cannot listen on {endpoint_of(first)}: address already in use"
    )
    assert caught.value.hint is not None and "ss -ltnp" in caught.value.hint
    await assert_serves(world, first)


async def test_an_address_of_another_machine_is_refused_with_a_sentence() -> None:
    host = Host((await _any_host()).identity, HostLimits(5), Telemetry())
    files = open_files()
    with pytest.raises(ApplianceError, match=r"cannot listen on 192\.0\.2\.1:0") as caught:
        await host.run([LOOPBACK, Endpoint("192.0.2.1", 0)])
    assert caught.value.hint is not None and "ip address" in caught.value.hint
    assert open_files() == files


async def _any_host() -> Host:
    async with small_world() as world:
        return await world.host()


async def test_every_ipv4_and_every_ipv6_address_share_a_port(world: World) -> None:
    with contextlib.closing(socket.socket(socket.AF_INET6)) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError as error:
            pytest.skip(f"no IPv6 on this machine: {error}")
    first = await world.host(listen=[EVERY_IPV4])
    port = endpoint_of(first).port
    await world.stop(first)
    both = await world.host(listen=[Endpoint("0.0.0.0", port), Endpoint("::", port)])
    peer = await world.host(listen=[Endpoint("::1", 0)])
    conn = await peer.connect(Endpoint("::1", port), both.peer_id)
    assert await ping(conn)


async def test_close_connections_says_go_away_and_lets_nobody_in(world: World) -> None:
    host = await world.host()
    session = await session_to(world, host)
    await host.close_connections()
    await session.closed.wait()
    assert session.peer_going_away
    assert not host.connections()
    assert await is_turned_away(host)
    assert host.telemetry.refusals == {("connection", Reason.SHUTTING_DOWN): 1}
