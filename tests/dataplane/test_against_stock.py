"""Our session and the library's yamux over one carrier, in both roles.

Where a work-around of ours names a defect of the library, the last tests here fail once the
library has mended it.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import trio
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.peer.id import ID
from libp2p.stream_muxer.exceptions import MuxedStreamEOF, MuxedStreamError, MuxedStreamReset
from libp2p.stream_muxer.yamux.yamux import Yamux as StockYamux
from libp2p.stream_muxer.yamux.yamux import YamuxStream as StockStream
from trio.testing import MockClock

from appliance.dataplane.session import MuxStream, Session
from appliance.dataplane.yamux import INITIAL_WINDOW
from appliance.errors import StreamReset
from appliance.reasons import Reason
from appliance.units import KIB, MIB
from tests.dataplane.carriers import MemoryCarrier, carrier_pair
from tests.dataplane.sessions import End, read_to_end, settle

PAYLOAD = random.Random(5).randbytes(3 * MIB)


class Secured:
    """What the library's muxer expects under it, on a carrier of ours."""

    def __init__(self, carrier: MemoryCarrier, is_initiator: bool) -> None:
        self._carrier = carrier
        self.is_initiator = is_initiator

    async def read(self, n: int | None = None) -> bytes:
        return await self._carrier.receive_some(n or 65536)

    async def write(self, data: bytes) -> None:
        await self._carrier.send_all(data)

    async def close(self) -> None:
        await self._carrier.aclose()

    def get_remote_address(self) -> None:
        return None


@dataclass
class World:
    ours: End
    stock: StockYamux

    async def open(self, by_us: bool) -> tuple[MuxStream, StockStream]:
        if by_us:
            return self.ours.session.open_stream(), await self.stock.accept_stream()
        theirs = await self.stock.open_stream()
        return await self.ours.accept(), theirs


@asynccontextmanager
async def beside_stock(*, client: bool) -> AsyncIterator[World]:
    """A session of ours, client or server, and a stock one at the other end."""
    carrier, raw = carrier_pair()
    ours = End(carrier, Session(carrier, client=client))
    peer = ID.from_pubkey(create_new_key_pair().public_key)
    stock = StockYamux(Secured(raw, not client), peer, is_initiator=not client)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.run)
        nursery.start_soon(stock.start)
        await stock.event_started.wait()
        yield World(ours, stock)
        ours.session.abort(Reason.SHUTTING_DOWN)
        nursery.cancel_scope.cancel()


async def stock_to_end(stream: StockStream) -> bytes:
    out = bytearray()
    while True:
        try:
            out += await stream.read(65536)
        except MuxedStreamEOF:
            return bytes(out)


async def stock_echo(stream: StockStream) -> None:
    while True:
        try:
            data = await stream.read(65536)
        except MuxedStreamEOF:
            await stream.close()
            return
        await stream.write(data)


roles = pytest.mark.parametrize("client", [True, False], ids=["client", "server"])
openers = pytest.mark.parametrize("by_us", [True, False], ids=["we open", "stock opens"])


@roles
@openers
async def test_stock_echoes_what_we_send(
    autojump_clock: MockClock, client: bool, by_us: bool
) -> None:
    async with beside_stock(client=client) as world:
        ours, theirs = await world.open(by_us)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stock_echo, theirs)

            async def send() -> None:
                await ours.send_all(PAYLOAD)
                await ours.send_eof()

            nursery.start_soon(send)
            assert await read_to_end(ours) == PAYLOAD
        await settle()
        assert world.ours.session.open_streams == 0


@roles
@openers
async def test_we_echo_what_stock_sends(
    autojump_clock: MockClock, client: bool, by_us: bool
) -> None:
    async with beside_stock(client=client) as world:
        ours, theirs = await world.open(by_us)

        async def echo() -> None:
            while data := await ours.receive_some():
                await ours.send_all(data)
            await ours.aclose()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(echo)

            async def send() -> None:
                await theirs.write(PAYLOAD)
                await theirs.close()

            nursery.start_soon(send)
            assert await stock_to_end(theirs) == PAYLOAD


@roles
@openers
@pytest.mark.parametrize("we_first", [True, False], ids=["our end first", "its end first"])
async def test_half_close(
    autojump_clock: MockClock, client: bool, by_us: bool, we_first: bool
) -> None:
    async with beside_stock(client=client) as world:
        ours, theirs = await world.open(by_us)
        if we_first:
            await ours.send_all(b"question")
            await ours.send_eof()
            assert await stock_to_end(theirs) == b"question"
            await trio.sleep(60)
            await theirs.write(b"answer")
            await theirs.close()
            assert await read_to_end(ours) == b"answer"
        else:
            await theirs.write(b"question")
            await theirs.close()
            assert await read_to_end(ours) == b"question"
            await trio.sleep(60)
            await ours.send_all(b"answer")
            await ours.send_eof()
            assert await stock_to_end(theirs) == b"answer"
        await settle()
        assert world.ours.session.open_streams == 0


@roles
@openers
async def test_our_reset_is_a_reset_there(
    autojump_clock: MockClock, client: bool, by_us: bool
) -> None:
    async with beside_stock(client=client) as world:
        ours, theirs = await world.open(by_us)
        ours.reset()
        await settle()
        assert theirs.reset_received
        with pytest.raises((MuxedStreamReset, MuxedStreamEOF)):
            await theirs.read(1)
        with pytest.raises(MuxedStreamError):
            await theirs.write(b"x")


@roles
@openers
async def test_its_reset_is_a_reset_here(
    autojump_clock: MockClock, client: bool, by_us: bool
) -> None:
    async with beside_stock(client=client) as world:
        ours, theirs = await world.open(by_us)
        await theirs.reset()
        with pytest.raises(StreamReset):
            await ours.receive_some()
        with pytest.raises(StreamReset):
            await ours.send_all(b"x")


@roles
async def test_eight_streams_at_once(autojump_clock: MockClock, client: bool) -> None:
    async with beside_stock(client=client) as world:

        async def ask(number: int) -> None:
            ours, theirs = pairs[number]
            payload = PAYLOAD[number : number + 400 * KIB]
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stock_echo, theirs)

                async def send() -> None:
                    await ours.send_all(payload)
                    await ours.send_eof()

                nursery.start_soon(send)
                assert await read_to_end(ours) == payload

        pairs = [await world.open(number % 2 == 0) for number in range(8)]
        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(ask, number)


@roles
async def test_both_ends_answer_pings(autojump_clock: MockClock, client: bool) -> None:
    async with beside_stock(client=client) as world:
        assert await world.ours.session.ping() >= 0
        await trio.sleep(600)
        assert world.stock._ping_event.is_set()
        assert not world.ours.session.closed.is_set() and not world.stock.is_closed


@roles
async def test_our_goodbye_ends_it_in_order(autojump_clock: MockClock, client: bool) -> None:
    async with beside_stock(client=client) as world:
        ours, theirs = await world.open(True)
        await ours.send_all(b"last words")
        await ours.send_eof()
        assert await stock_to_end(theirs) == b"last words"
        with trio.fail_after(2):
            await world.ours.session.close(Reason.SHUTTING_DOWN)
            await world.stock.event_shutting_down.wait()
        assert world.ours.reason is Reason.SHUTTING_DOWN


@roles
async def test_a_stock_writer_that_waits_is_released_by_our_close(
    autojump_clock: MockClock, client: bool
) -> None:
    async with beside_stock(client=client) as world:
        ours, theirs = await world.open(False)
        async with trio.open_nursery() as nursery:

            async def write() -> None:
                with pytest.raises(MuxedStreamError):
                    await theirs.write(bytes(INITIAL_WINDOW + 1))

            nursery.start_soon(write)
            await trio.sleep(1)
            before = trio.current_time()
            await ours.aclose()
        assert trio.current_time() - before < 1


# --- the library's defects that we work around


async def test_stock_still_gives_up_on_a_stalled_reader(autojump_clock: MockClock) -> None:
    """Defect 2. When this fails the library waits for its window for as long as we do."""
    async with beside_stock(client=True) as world:
        _, theirs = await world.open(True)
        with pytest.raises(MuxedStreamError, match="5 seconds"):
            await theirs.write(bytes(INITIAL_WINDOW + 1))


async def test_stock_still_does_not_notice_a_dead_peer(autojump_clock: MockClock) -> None:
    """Defect 8. When this fails the library ends connections whose pings nobody answers."""
    raw, _nobody = carrier_pair()
    peer = ID.from_pubkey(create_new_key_pair().public_key)
    stock = StockYamux(Secured(raw, True), peer, is_initiator=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stock.start)
        await trio.sleep(300)
        assert not stock.is_closed and not stock.event_shutting_down.is_set()
        nursery.cancel_scope.cancel()
