"""Gossip over host streams: one question, one answer, and whatever strangers make of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock

from appliance.bridge import gossip
from appliance.bridge.connection import Connection, Direct
from appliance.bridge.gossip import GossipService
from appliance.bridge.host import Host
from appliance.bridge.negotiate import NegotiatedStream
from appliance.errors import Fault, StreamReset
from appliance.reasons import Reason
from appliance.wire.framing import encode_varint, frame
from appliance.wire.gossip import (
    EXCHANGE_TIMEOUT,
    MAX_ANSWER,
    MAX_ASK,
    MAX_EXCHANGES,
    PROTOCOL,
    Answer,
    Ask,
    Asker,
    encode_answer,
)
from tests.bridge.strangers import assert_serves, ended
from tests.bridge.world import World, endpoint_of, small_world, until

ASK = Ask(network="kaspa-simnet", limit=2)


def echo(conn: Connection, ask: Ask) -> Answer:
    """As many records as were asked for, the first of them who asks."""
    return Answer(records=(conn.peer_id.encode(), b"two")[: ask.limit])


async def answering(world: World, body: Callable[[NegotiatedStream], Awaitable[None]]) -> Host:
    """A host that answers questions as `body` likes."""

    async def serve(stream: NegotiatedStream, _: Connection) -> None:
        await body(stream)

    host = await world.host()
    host.handle(PROTOCOL, serve)
    return host


async def test_a_question_is_answered(world: World) -> None:
    a, b = await world.host(), await world.host()
    service = GossipService(b, echo)
    service.start()
    conn = await world.connect(a, b)
    assert (await gossip.ask(conn, ASK)).records == (a.peer_id.encode(), b"two")
    # The other way on the same connection, once that side serves, too.
    back = b.direct_to(a.peer_id)
    assert back is not None
    with pytest.raises(Fault) as caught:
        await gossip.ask(back, ASK)
    assert caught.value.reason is Reason.UNSUPPORTED_PROTOCOL
    GossipService(a, echo).start()
    assert (await gossip.ask(back, ASK)).records[0] == b.peer_id.encode()
    await until(lambda: service.exchanges == 0)
    service.stop()
    with pytest.raises(Fault):
        await gossip.ask(conn, ASK)


async def test_an_answer_that_must_not_be_is_a_fault_and_costs_only_itself(world: World) -> None:
    too_many = frame(encode_answer(Answer(records=(b"a", b"b", b"c"))))
    good = frame(encode_answer(Answer(records=(b"a",))))
    answers = {
        encode_varint(MAX_ANSWER + 1): Reason.MESSAGE_TOO_LARGE,
        frame(b"\xff" * 20): Reason.MALFORMED_MESSAGE,
        frame(b""): Reason.UNEXPECTED_MESSAGE,
        too_many: Reason.TOO_MANY_RECORDS,
        good + b"more": Reason.UNEXPECTED_MESSAGE,
        good[:-1]: Reason.CONNECTION_LOST,
        b"": Reason.CONNECTION_LOST,
    }
    asker = await world.host()
    for answer, reason in answers.items():

        async def badly(stream: NegotiatedStream, answer: bytes = answer) -> None:
            await stream.send_all(answer)
            await stream.aclose()

        liar = await answering(world, badly)
        conn = await world.connect(asker, liar)
        with pytest.raises(Fault) as caught:
            await gossip.ask(conn, ASK)
        assert caught.value.reason is reason, answer[:20]
        assert not conn.closed
    await assert_serves(world, asker)


async def test_an_answerer_that_trickles_is_left_in_time(fast_clock: MockClock) -> None:
    async with small_world(float("inf")) as world:

        async def trickle(stream: NegotiatedStream) -> None:
            for byte in encode_varint(1000) + bytes(1000):
                await stream.send_all(bytes([byte]))
                await trio.sleep(1)

        liar, asker = await answering(world, trickle), await world.host()
        conn = await world.connect(asker, liar)
        started = trio.current_time()
        with pytest.raises(Fault) as caught:
            await gossip.ask(conn, ASK)
        assert caught.value.reason is Reason.HANDSHAKE_TIMEOUT
        assert trio.current_time() - started <= EXCHANGE_TIMEOUT + 1


async def test_askers_that_never_ask_take_a_bounded_part_for_a_bounded_time(
    fast_clock: MockClock,
) -> None:
    async with small_world(float("inf")) as world:
        host = await world.host()
        service = GossipService(host, echo)
        service.start()
        strangers = [await world.host() for _ in range(MAX_EXCHANGES)]
        for stranger in strangers:
            conn = await world.connect(stranger, host)
            await conn.open(PROTOCOL).send_all(encode_varint(100) + b"x")
        await until(lambda: service.exchanges == MAX_EXCHANGES)
        friend = await world.connect(await world.host(), host)
        with pytest.raises(Fault):
            await gossip.ask(friend, ASK)
        assert host.telemetry.refusals["stream", Reason.STREAMS_FULL] == 1
        await trio.sleep(EXCHANGE_TIMEOUT + 1)
        assert service.exchanges == 0
        assert len((await gossip.ask(friend, ASK)).records) == 2


async def test_a_question_that_must_not_be_is_refused(world: World) -> None:
    host = await world.host()
    service = GossipService(host, echo)
    service.start()
    conn = await world.connect(await world.host(), host)
    whole = Asker(ASK).begin()
    for data in (encode_varint(MAX_ASK + 1), frame(b"\xff" * 9), whole + b"x", frame(b"")):
        stream = conn.open(PROTOCOL)
        await stream.send_all(data)
        with pytest.raises(StreamReset):
            await stream.receive_exactly(1)
        await ended(stream)
    assert len((await gossip.ask(conn, ASK)).records) == 2
    await until(lambda: service.exchanges == 0)


async def test_who_relays_is_found_by_asking_for_the_protocol(world: World) -> None:
    relay, other = await world.relay(), await world.host()
    asker = await world.host()
    for host, relays in ((relay.host, True), (other, False)):
        # We know an address, and nobody's id.
        conn = await gossip.meet(asker, endpoint_of(host), None)
        assert conn.peer_id == host.peer_id
        assert isinstance(conn.path, Direct)
        assert await gossip.agrees_to_relay(conn) is relays
        await gossip.identified(conn)
        assert conn.agent.startswith("kaspa-appliance/")
    assert relay.service.table.reservations == 0


async def test_only_a_connection_that_nobody_uses_is_left(world: World) -> None:
    relay, guest = await world.relay(), await world.host()
    await world.reserve(guest, relay)
    kept = guest.direct_to(relay.peer_id)
    assert kept is not None
    await gossip.leave(guest, kept)  # our reservation lives on it
    theirs = relay.host.direct_to(guest.peer_id)
    assert theirs is not None
    await gossip.leave(relay.host, theirs)  # and the relay counts on it, too
    assert not kept.closed
    idle = await gossip.meet(guest, endpoint_of(await world.host()), None)
    await gossip.identified(idle)
    await until(lambda: not (idle.serving or idle.session.open_streams))
    await gossip.leave(guest, idle)
    assert idle.closed


async def test_an_address_where_we_are_ourselves_is_no_peer(world: World) -> None:
    host = await world.host()
    with pytest.raises(Fault):
        await gossip.meet(host, endpoint_of(host), None)
    assert not host.connections()
