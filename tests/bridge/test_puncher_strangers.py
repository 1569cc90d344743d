"""DCUtR with peers that do it badly, or not at all."""

from __future__ import annotations

import statistics
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import pairwise

import pytest
import trio
from libp2p.relay.circuit_v2.pb.dcutr_pb2 import HolePunch

from appliance.bridge import puncher, transport
from appliance.bridge.connection import Connection
from appliance.bridge.host import Host
from appliance.bridge.messages import encode_dcutr
from appliance.bridge.negotiate import NegotiatedStream
from appliance.dataplane.tcp import TcpStream
from appliance.network import Endpoint
from appliance.policy.reach import MAX_CANDIDATES
from appliance.reasons import Reason
from appliance.wire import multiaddr, redial
from appliance.wire.dcutr import PROTOCOL, Connect, Sync
from tests.bridge.punching import (
    EVERYWHERE,
    at,
    closed_port,
    endpoint_of,
    failed,
    hear,
    punching,
    relayed,
    say,
    until_reset,
)
from tests.bridge.world import World, logged, small_world, until

# --- initiators that do it badly: the receiver is ours


Answer = Callable[[NegotiatedStream], Awaitable[None]]


async def receiver_against(
    world: World, answer: Answer | None, *, allow_private: bool = True
) -> tuple[Host, Host]:
    """`(a, b)` with a circuit from a to b; b punches, a answers DCUtR streams with `answer`."""
    relay = await world.relay()
    a, b = await world.host(), await world.host(listen=EVERYWHERE, allow_private=allow_private)
    await world.reserve(b, relay)
    if answer is not None:

        async def serve(stream: NegotiatedStream, conn: Connection) -> None:
            assert conn.relayed
            await answer(stream)

        a.handle(PROTOCOL, serve)
    await punching(world, b)
    await world.circuit(a, relay, b)
    return a, b


def announcing(*endpoints: Endpoint) -> Answer:
    async def answer(stream: NegotiatedStream) -> None:
        assert isinstance(await hear(stream), Connect)
        await stream.send_message(encode_dcutr(Connect(endpoints)))
        assert await hear(stream) == Sync()

    return answer


def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three rounds in a second."""
    monkeypatch.setattr(redial, "WINDOW", 0.2)
    monkeypatch.setattr(puncher, "LISTENER_GRACE", 0.1)
    monkeypatch.setattr(puncher, "EXCHANGE_DEADLINE", 0.3)


async def test_a_peer_without_dcutr_is_asked_once() -> None:
    async with small_world() as world:
        a, b = await receiver_against(world, None)
        await until(lambda: failed(b))
        assert failed(b) == {Reason.UNSUPPORTED_PROTOCOL: 1}
        await trio.sleep(0.3)
        assert b.telemetry.punch.attempts == 1
        assert b.telemetry.punch.outcomes == {("receiver", 1, "failed"): 1}
        # The relayed connection is as good as before.
        conn = relayed(a, b)
        assert conn is not None
        await conn.session.ping()


async def silence(stream: NegotiatedStream) -> None:
    await trio.sleep_forever()


async def garbage(stream: NegotiatedStream) -> None:
    await stream.send_message(b"\xff" * 40)
    await hear(stream)


async def sync_first(stream: NegotiatedStream) -> None:
    await stream.send_message(encode_dcutr(Sync()))
    await hear(stream)


async def a_thousand(stream: NegotiatedStream) -> None:
    message = HolePunch(type=HolePunch.CONNECT)
    message.ObsAddrs.extend([multiaddr.encode(Endpoint("127.0.0.1", 1))] * 1000)
    await stream.send_message(message.SerializeToString())
    await hear(stream)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (silence, Reason.PUNCH_PROTOCOL),
        (garbage, Reason.MALFORMED_MESSAGE),
        (sync_first, Reason.PUNCH_PROTOCOL),
        (a_thousand, Reason.MESSAGE_TOO_LARGE),
    ],
)
async def test_a_bad_answer_costs_three_rounds_and_names_the_cause(
    answer: Answer, reason: Reason, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick(monkeypatch)
    async with small_world() as world:
        _, b = await receiver_against(world, answer)
        await until(lambda: failed(b))
        assert failed(b) == {reason: 1}
        assert b.telemetry.punch.attempts == 3
        assert b.telemetry.punch.outcomes == {("receiver", 3, "failed"): 1}
        assert not b.telemetry.faults


async def test_we_dial_half_the_measured_round_trip_after_sync() -> None:
    synced: list[float] = []
    dialled: list[float] = []

    async with small_world() as world:

        async def accept(stream: trio.SocketStream) -> None:
            dialled.append(trio.current_time())
            await trio.sleep_forever()

        target = await world.tcp(accept)

        async def late(stream: NegotiatedStream) -> None:
            await hear(stream)
            await trio.sleep(0.6)
            await stream.send_message(encode_dcutr(Connect((target,))))
            await hear(stream)
            synced.append(trio.current_time())
            await trio.sleep_forever()

        await receiver_against(world, late)
        await until(lambda: dialled)
        assert 0.2 < dialled[0] - synced[0] < 0.5


async def test_a_second_connect_changes_nothing() -> None:
    async with small_world() as world:
        dialled = trio.Event()

        async def accept(stream: trio.SocketStream) -> None:
            dialled.set()
            await trio.sleep_forever()

        target = await world.tcp(accept)

        async def twice(stream: NegotiatedStream) -> None:
            await hear(stream)
            for _ in range(2):
                await stream.send_message(encode_dcutr(Connect((target,))))
            await hear(stream)

        _, b = await receiver_against(world, twice)
        await dialled.wait()
        assert not b.telemetry.faults


async def test_of_many_addresses_a_few_are_dialled() -> None:
    hosts = [f"127.0.{index // 200}.{index % 200 + 1}" for index in range(380)]
    seen: set[str] = set()

    async def accept(stream: trio.SocketStream) -> None:
        seen.add(stream.socket.getsockname()[0])
        TcpStream(stream.socket).reset()

    async with small_world() as world:
        serve = partial(trio.serve_tcp, accept, 0, host="0.0.0.0")
        [listener] = await world.nursery.start(serve)
        port = listener.socket.getsockname()[1]
        await receiver_against(world, announcing(*(Endpoint(host, port) for host in hosts)))
        await until(lambda: len(seen) >= MAX_CANDIDATES)
        await trio.sleep(0.5)
        assert seen == set(hosts[:MAX_CANDIDATES])


async def test_private_and_unspecified_addresses_of_strangers_are_not_dialled() -> None:
    touched: list[object] = []

    async def accept(stream: trio.SocketStream) -> None:
        touched.append(stream.socket.getpeername())

    async with small_world() as world:
        inside = await world.tcp(accept)
        offered = [inside, Endpoint("0.0.0.0", inside.port), Endpoint("10.0.0.1", 80),
                   Endpoint("240.1.2.3", 80), Endpoint("127.0.0.1", 0)]  # fmt: skip
        _, b = await receiver_against(world, announcing(*offered), allow_private=False)
        await until(lambda: failed(b))
        assert failed(b) == {Reason.PUNCH_NO_ADDRESSES: 1}
        assert b.telemetry.punch.attempts == 1
        assert b.telemetry.punch.outcomes == {("receiver", 1, "no_suitable_address"): 1}
        assert not touched


async def test_our_own_address_is_not_dialled() -> None:
    async with small_world() as world:
        own: list[Endpoint] = []

        async def mirror(stream: NegotiatedStream) -> None:
            message = await hear(stream)
            assert isinstance(message, Connect)
            own.extend(message.addresses)
            await stream.send_message(encode_dcutr(message))
            await hear(stream)

        _, b = await receiver_against(world, mirror)
        await until(lambda: failed(b), seconds=20)
        assert own
        assert failed(b) == {Reason.PUNCH_NO_ADDRESSES: 1}
        assert not b.telemetry.refusals


async def test_three_refused_rounds_end_with_their_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    quick(monkeypatch)
    async with small_world() as world:
        with await closed_port() as closed:
            _, b = await receiver_against(world, announcing(endpoint_of(closed)))
            await until(lambda: failed(b))
        assert failed(b) == {Reason.PUNCH_REFUSED: 1}
        assert b.telemetry.punch.attempts == 3


async def test_a_target_that_refuses_is_dialled_again_at_random(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two routers that answer SYNs with RST need overlapping dials; spinning would be a flood."""
    times: list[float] = []
    real = transport.dial
    async with small_world() as world:
        with await closed_port() as closed:
            target = endpoint_of(closed)

            async def watched(endpoint: Endpoint, source: Endpoint | None) -> TcpStream:
                if endpoint == target:
                    times.append(trio.current_time())
                return await real(endpoint, source)

            monkeypatch.setattr(transport, "dial", watched)
            _, b = await receiver_against(world, announcing(target))
            await until(lambda: b.telemetry.punch.attempts == 2)
    first = [when for when in times if when < times[0] + redial.WINDOW + 0.1]
    gaps = [after - before for before, after in pairwise(first)]
    assert 20 < len(first) < 300
    assert max(gaps) < 0.4
    assert statistics.pstdev(gaps) > 0.002


# --- receivers that do it badly: the initiator is ours


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
