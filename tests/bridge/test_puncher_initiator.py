"""DCUtR with receivers that do it badly: the initiator is ours."""

from __future__ import annotations

import pytest
import trio

from appliance.bridge.connection import Connection
from appliance.bridge.host import Host
from appliance.bridge.messages import encode_dcutr
from appliance.network import Endpoint
from appliance.reasons import Reason
from appliance.wire.dcutr import Connect, Sync
from tests.bridge.punching import (
    at,
    closed_port,
    endpoint_of,
    failed,
    hear,
    punching,
    quick,
    relayed,
    say,
    until_reset,
)
from tests.bridge.world import World, logged, small_world, until


async def initiator_against(world: World) -> tuple[Host, Host, Connection]:
    """`(a, b, conn)`: a's Puncher answers; the test speaks for b on `conn`, b's end."""
    relay = await world.relay()
    a, b = await world.host(), await world.host()
    await world.reserve(b, relay)
    await punching(world, a)
    await world.circuit(a, relay, b)
    conn = relayed(b, a)
    assert conn is not None
    return a, b, conn


async def test_a_dial_that_overtakes_the_sync_keeps_the_agreed_role() -> None:
    """The relay may be slower than the starter's SYN; both ends as server would wait for ever."""
    async with small_world() as world:
        a, b, conn = await initiator_against(world)
        stream = await say(conn, Connect(b.listening))
        assert await hear(stream) == Connect(a.announced())
        with trio.fail_after(5):
            direct = await b.dial(a.listening[0], a.peer_id, client=False, punched=True)
        await direct.session.ping()
        await stream.send_message(encode_dcutr(Sync()))
        await until(lambda: a.telemetry.punch.succeeded)
        at_a = a.direct_to(b.peer_id)
        assert at_a is not None
        assert (at_a.direction, at_a.introduced_by) == ("inbound", conn.introduced_by)


async def test_connect_twice_is_a_fault_of_the_peer() -> None:
    async with small_world() as world:
        a, _, conn = await initiator_against(world)
        await until_reset(await say(conn, Connect(()), Connect(())))
        assert a.telemetry.punch.attempts == 1
        assert not a.telemetry.faults


async def test_a_fourth_round_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    quick(monkeypatch)
    async with small_world() as world:
        a, _, conn = await initiator_against(world)
        for _ in range(4):
            await until_reset(await say(conn, Sync()))
        assert a.telemetry.punch.attempts == 3
        assert a.telemetry.punch.outcomes == {("initiator", 3, "failed"): 1}


async def test_a_starter_that_gives_up_leaves_a_failure_with_its_cause() -> None:
    """The operator of the initiator learns it too, although only the other side ends the rounds."""
    async with small_world() as world:
        a, _, conn = await initiator_against(world)
        await until_reset(await say(conn, Sync()))
        assert not failed(a)
        await conn.session.close(Reason.IDLE)
        await until(lambda: failed(a))
        assert failed(a) == {Reason.PUNCH_PROTOCOL: 1}
        assert a.telemetry.punch.outcomes == {("initiator", 1, "failed"): 1}


async def test_the_dialler_may_not_start() -> None:
    async with small_world() as world:
        relay = await world.relay()
        a, b = await world.host(), await world.host()
        await world.reserve(b, relay)
        conn = await world.circuit(a, relay, b)
        await punching(world, b)
        await until_reset(await say(conn, Connect(())))
        assert b.telemetry.punch.attempts == 0


async def test_dcutr_on_a_direct_connection_is_refused() -> None:
    async with small_world() as world:
        a, b = await world.host(), await world.host()
        await punching(world, b)
        conn = await world.connect(a, b)
        await until_reset(await say(conn, Connect(())))
        assert b.telemetry.punch.attempts == 0
        await conn.session.ping()


async def begun(conn: Connection, *endpoints: Endpoint) -> None:
    """A whole exchange, after which both sides dial."""
    stream = await say(conn, Connect(endpoints))
    assert isinstance(await hear(stream), Connect)
    await stream.send_message(encode_dcutr(Sync()))
    await stream.aclose()


async def test_a_round_that_the_starter_gave_up_fails_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The starter's window ends sooner than ours: its next round overtakes what is left of ours."""
    caplog.set_level("INFO")
    async with small_world() as world:
        a, b, conn = await initiator_against(world)
        with await closed_port() as closed:
            for _ in range(2):
                await begun(conn, endpoint_of(closed))
        await begun(conn, *b.listening)
        await until(lambda: a.telemetry.punch.succeeded)
        assert not failed(a)
        assert a.telemetry.punch.outcomes == {("initiator", 3, "success"): 1}
        assert not logged(caplog, "punch_attempt_failed")


async def test_somebody_else_at_the_address_is_asked_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    async with small_world() as world:
        a, _, conn = await initiator_against(world)
        other = await world.host()
        stream = await say(conn, Connect((at(other),)))
        assert isinstance(await hear(stream), Connect)
        await stream.send_message(encode_dcutr(Sync()))
        await until(lambda: other.telemetry.connections_closed or other.telemetry.refusals)
        await trio.sleep(0.5)
        met = other.telemetry.connections_closed.total() + other.telemetry.refusals.total()
        assert met == 1
        assert a.direct_to(other.peer_id) is None
        await until(lambda: logged(caplog, "punch_attempt_failed"))
        await conn.session.close(Reason.IDLE)
        await until(lambda: failed(a))
        assert failed(a) == {Reason.WRONG_PEER: 1}


async def test_a_circuit_that_dies_in_the_middle_of_a_round_is_a_failure() -> None:
    async with small_world() as world:
        a, _, conn = await initiator_against(world)
        await say(conn, Connect(()))
        await until(lambda: a.telemetry.punch.attempts)
        await conn.session.close(Reason.IDLE)
        await until(lambda: failed(a))
        assert failed(a) == {Reason.CONNECTION_LOST: 1}
