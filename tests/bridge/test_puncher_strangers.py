"""DCUtR with initiators that do it badly, or not at all: the receiver is ours."""

from __future__ import annotations

import statistics
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import pairwise

import pytest
import trio
from libp2p.relay.circuit_v2.pb.dcutr_pb2 import HolePunch

from appliance.bridge import transport
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
    closed_port,
    endpoint_of,
    failed,
    hear,
    punching,
    quick,
    relayed,
)
from tests.bridge.world import World, small_world, until

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

            async def watched(
                endpoint: Endpoint, source: Endpoint | None, *, punching: bool = False
            ) -> TcpStream:
                if endpoint == target:
                    times.append(trio.current_time())
                return await real(endpoint, source, punching=punching)

            monkeypatch.setattr(transport, "dial", watched)
            _, b = await receiver_against(world, announcing(target))
            await until(lambda: b.telemetry.punch.attempts == 2)
    first = [when for when in times if when < times[0] + redial.WINDOW + 0.1]
    gaps = [after - before for before, after in pairwise(first)]
    assert 20 < len(first) < 300
    assert max(gaps) < 1  # what a busy machine adds included
    assert statistics.pstdev(gaps) > 0.002
