"""Answerers that lie, flood, stall or are somebody else: dropped, and nothing else is hurt."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import trio

from appliance.bridge.connection import Connection
from appliance.bridge.negotiate import NegotiatedStream
from appliance.declaration.addresses import RelayAddress
from appliance.network import Endpoint, Network
from appliance.reasons import Reason
from appliance.wire.framing import encode_varint, frame
from appliance.wire.gossip import (
    MAX_ANSWER,
    MAX_RECORDS,
    PROTOCOL,
    Answer,
    Ask,
    encode_answer,
)
from appliance.wire.records import MAX_LIFETIME, expiry, next_sequence, seal
from tests.bridge.world import endpoint_of, until
from tests.discovery.members import Town, town
from tests.wire.signing import record, signer

Body = Callable[[NegotiatedStream], Awaitable[None]]


def answer(*records: bytes) -> bytes:
    return frame(encode_answer(Answer(records=records)))


async def liar(here: Town, body: Body, net: int = 200) -> RelayAddress:
    """A relay that answers questions as `body` likes."""
    relay = await here.world.relay(listen=[Endpoint(f"127.{net}.0.1", 0)])

    async def serve(stream: NegotiatedStream, _: Connection) -> None:
        await body(stream)

    relay.host.handle(PROTOCOL, serve)
    return RelayAddress(endpoint_of(relay.host), relay.peer_id)


def sends(data: bytes) -> Body:
    async def body(stream: NegotiatedStream) -> None:
        await stream.send_all(data)
        await stream.aclose()

    return body


async def stalls(stream: NegotiatedStream) -> None:
    await stream.send_all(encode_varint(1000))
    await trio.sleep_forever()


async def floods(stream: NegotiatedStream) -> None:
    await stream.send_all(encode_varint(MAX_ANSWER))
    while True:
        await stream.send_all(bytes(65536))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (sends(encode_varint(MAX_ANSWER + 1)), Reason.MESSAGE_TOO_LARGE),
        (sends(frame(b"\xff" * 99)), Reason.MALFORMED_MESSAGE),
        (sends(answer() + b"more"), Reason.UNEXPECTED_MESSAGE),
        (sends(b""), Reason.CONNECTION_LOST),
        (floods, Reason.UNEXPECTED_MESSAGE),
    ],
    ids=["oversize", "garbage", "bytes-behind", "silence", "flood"],
)
async def test_a_bad_answerer_is_dropped_and_the_good_one_is_heard(
    tmp_path: Path, body: Body, reason: Reason
) -> None:
    async with town(tmp_path) as here:
        good = await here.member(public=True)
        bad = await liar(here, body)
        us = await here.member(bad, good.address, public=False)
        counts = us.discovery.counts
        await until(lambda: counts.failed["gossip", reason] and good.peer_id in us.relays())
        assert us.host.telemetry.faults == {}
        assert counts.asked["gossip"] <= 6


async def test_an_answerer_that_stalls_takes_one_place_and_leaves_the_others(
    tmp_path: Path,
) -> None:
    async with town(tmp_path) as here:
        bad = await liar(here, stalls)
        good = await here.member(public=True)
        us = await here.member(bad, public=False, at_once=2)
        await until(lambda: us.discovery._running == 1)
        friend = await here.world.connect(good.host, us.host)
        await until(lambda: good.peer_id in us.relays())
        assert not friend.closed
        assert us.discovery._running >= 1


async def test_never_more_exchanges_than_the_plan_allows(tmp_path: Path) -> None:
    async with town(tmp_path) as here:
        bad = [await liar(here, stalls, net) for net in range(200, 206)]
        us = await here.member(*bad, public=False, at_once=2)
        await until(lambda: us.discovery._running == 2)
        us.discovery._wake.set()
        await trio.sleep(1)  # two looks more, that find nothing free
        assert us.discovery._running == 2
        assert len(us.host.connections()) == 2
        assert us.discovery.counts.asked["gossip"] == 2


async def test_records_that_are_not_to_be_believed_leave_nothing(tmp_path: Path) -> None:
    at = Endpoint("127.201.0.1", 16112)
    async with town(tmp_path) as here:
        us = await here.member(public=False)
        now = us.discovery._clock.wall()
        ahead = next_sequence(now + 3600)
        good = record("alice", now, addresses=(at,), node=None)
        records = {
            Reason.WRONG_NETWORK: replace(good, network=Network.DEVNET),
            Reason.RECORD_FROM_FUTURE: replace(good, sequence=ahead, expires=expiry(ahead)),
            Reason.RECORD_EXPIRED: record("alice", now - 2 * MAX_LIFETIME, node=None),
        }
        sealed = {reason: seal(said, signer("alice")) for reason, said in records.items()}
        whole = seal(good, signer("alice"))
        sealed[Reason.BAD_SIGNATURE] = whole[:-1] + bytes([whole[-1] ^ 1])
        bad = await liar(here, sends(answer(*sealed.values(), *[b"x"] * 20)))
        fooled = await here.member(bad, public=False)
        rejected = fooled.discovery.counts.records_rejected
        await until(lambda: rejected[Reason.MALFORMED_MESSAGE] == 20)
        assert {reason: rejected[reason] for reason in sealed} == dict.fromkeys(sealed, 1)
        assert len(fooled.discovery.shelf) == 0
        # The liar relays, as it was asked; that is all that the book knows.
        assert fooled.relays() == {bad.peer_id}
        assert fooled.host.telemetry.faults == {}


async def test_an_answer_full_of_sybils_does_not_fill_the_book(tmp_path: Path) -> None:
    async with town(tmp_path) as here:
        clock = (await here.member(public=False)).discovery._clock

        async def sybils(stream: NegotiatedStream) -> None:
            told = []
            for number in range(MAX_RECORDS):
                name = f"sybil{number}"
                at = Endpoint("127.66.0.1", 1024 + number)
                said = record(name, clock.wall(), addresses=(at,), node=None)
                told.append(seal(said, signer(name)))
            await sends(answer(*told))(stream)

        bad = await liar(here, sybils)
        good = await here.member(public=True)
        us = await here.member(bad, good.address, public=False)
        counts = us.discovery.counts
        await until(
            lambda: counts.records.total() >= MAX_RECORDS and us.book.capability(good.peer_id)
        )
        # Each of the two honest ones is a network of its own, all sybils together are one.
        assert us.book.counts()["relays"] <= MAX_RECORDS + 3
        told = us.discovery.shelf.choose(Ask(network="kaspa-simnet", limit=4), "", 0, Random(1))
        held = us.discovery.shelf.get(good.peer_id, 0)
        assert held is not None
        assert held.sealed in told


async def test_a_kaspa_node_that_floods_is_dropped(tmp_path: Path) -> None:
    async with town(tmp_path) as here:

        async def flood(stream: trio.SocketStream) -> None:
            try:
                while True:
                    await stream.send_all(b"\x00\x00\x08\x06\x00\x00\x00\x00\x00" + bytes(8))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass

        async def silent(stream: trio.SocketStream) -> None:
            await stream.send_eof()

        nodes = [await here.world.tcp(flood), await here.world.tcp(silent)]
        good = await here.member(public=True)
        us = await here.member(*nodes, good.address, public=False)
        counts = us.discovery.counts
        await until(lambda: counts.failed["kaspa", Reason.CONNECTION_LOST] >= 1, seconds=20)
        await until(lambda: good.peer_id in us.relays())
        assert us.host.telemetry.faults == {}
