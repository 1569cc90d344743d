"""The host over real loopback sockets: whom it dials, from where, and what may go wrong."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from appliance.bridge import identify
from appliance.bridge.connection import Connection, Direct
from appliance.bridge.host import HANDSHAKE_DEADLINE
from appliance.errors import Fault
from appliance.network import Endpoint
from appliance.reasons import Reason
from tests.bridge.strangers import is_cut
from tests.bridge.world import EVERY_IPV4, NOBODY, World, endpoint_of, small_world, until


async def test_dials_from_its_listen_port(world: World) -> None:
    a, b = await world.host(), await world.host()
    conn = await world.connect(a, b)
    [seen] = b.connections(a.peer_id)
    assert isinstance(conn.path, Direct) and conn.path.from_listen_port
    assert isinstance(seen.path, Direct) and seen.path.remote == endpoint_of(a)
    assert not seen.path.from_listen_port


async def test_believes_its_address_from_peers_dialled_from_the_listen_port_only(
    world: World,
) -> None:
    a, b = await world.host(listen=[EVERY_IPV4]), await world.host(listen=[EVERY_IPV4])
    where_a_is = Endpoint("127.0.0.1", endpoint_of(a).port)
    conn = await a.connect(Endpoint("127.0.0.1", endpoint_of(b).port), b.peer_id)
    await conn.identified.wait()
    await until(b.connections)
    [seen] = b.connections()
    await seen.identified.wait()
    assert a.announced() == (where_a_is,)
    assert seen.observed is not None  # a said where it sees b …
    assert b.announced() == ()  # … but b had not dialled

    # Whoever dialled us may push what he likes.
    push = conn.open(identify.PUSH)
    liar = identify.encode(
        a.identity, listen=(), observed=Endpoint("192.0.2.66", 6666), protocols=()
    )
    await push.send_message(liar)
    await push.send_eof()
    assert await push.receive_some() == b""
    assert b.announced() == ()


async def test_a_second_connect_shares_the_connection(world: World) -> None:
    a, b = await world.host(), await world.host()
    found: list[Connection] = []

    async def connect() -> None:
        found.append(await a.connect(endpoint_of(b), b.peer_id))

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(connect)
    assert len(set(map(id, found))) == 1


async def test_another_peer_than_expected_is_refused_and_hung_up_on(world: World) -> None:
    a, b = await world.host(), await world.host()
    with pytest.raises(Fault) as caught:
        await a.connect(endpoint_of(b), NOBODY)
    assert caught.value.reason is Reason.WRONG_PEER
    assert b.peer_id in caught.value.detail
    assert not a.connections()
    await until(lambda: not b.connections())


async def test_we_do_not_talk_to_ourselves(world: World) -> None:
    host = await world.host()
    with pytest.raises(Fault) as caught:
        await host.connect(endpoint_of(host), host.peer_id)
    assert caught.value.reason is Reason.SELF_DIAL
    # Found out only behind the handshake: one key on two machines.
    twin = await world.host(identity=host.identity)
    with pytest.raises(Fault) as caught:
        await twin.dial(endpoint_of(host), NOBODY, client=True)
    assert caught.value.reason in (Reason.WRONG_PEER, Reason.SELF_DIAL)
    assert not host.connections()


async def test_a_refused_dial_is_a_fault(world: World) -> None:
    a, b = await world.host(), await world.host()
    gone = endpoint_of(b)
    await world.stop(b)
    with pytest.raises(Fault, match="connection refused") as caught:
        await a.connect(gone, b.peer_id)
    assert caught.value.reason is Reason.DIAL_FAILED


async def test_an_answer_that_is_no_handshake_is_a_fault(world: World) -> None:
    async def web(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    a, server = await world.host(), await world.tcp(web)
    with pytest.raises(Fault) as caught:
        await a.connect(server, NOBODY)
    assert caught.value.reason in (Reason.MALFORMED_MESSAGE, Reason.HANDSHAKE_FAILED)


async def test_a_cancelled_dial_leaves_no_connection(world: World) -> None:
    async def silent(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        assert await is_cut(stream)
        cut.set()

    cut = trio.Event()
    a, server = await world.host(), await world.tcp(silent)
    with trio.move_on_after(0.1):
        await a.connect(server, NOBODY)
    await cut.wait()
    assert not a.connections()


async def test_a_server_that_never_answers_is_given_up(fast_clock: MockClock) -> None:
    async with small_world(float("inf")) as world:

        async def silent(stream: trio.SocketStream) -> None:
            while not await is_cut(stream):
                pass

        a, server = await world.host(), await world.tcp(silent)
        started = trio.current_time()
        with pytest.raises(Fault) as caught:
            await a.connect(server, NOBODY)
        assert caught.value.reason is Reason.HANDSHAKE_TIMEOUT
        assert HANDSHAKE_DEADLINE <= trio.current_time() - started < HANDSHAKE_DEADLINE + 5
