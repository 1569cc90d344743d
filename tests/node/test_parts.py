"""The node's small parts: its address list, bans, outbox, payload, and stopping in peace."""

from __future__ import annotations

import random
from dataclasses import replace
from ipaddress import IPv4Address

import pytest
import trio
import trio.testing

from appliance.errors import RemoteProtocolError, StreamReset
from appliance.network import Endpoint
from appliance.node.address_list import AddressList
from appliance.node.bans import BAN_TIME, MAX_BANS, BanList
from appliance.node.grace import with_grace
from appliance.node.lab_payload import LabExchange, PayloadResult
from appliance.node.outbox import BULK_BYTES, MAX_BYTES, Outbox
from appliance.wire.capability import PrivateClaim, claimed_address, read_claim
from appliance.wire.kaspa_messages import MAX_LAB_CHUNK, LabChunk, NetAddress
from appliance.wire.ways import RelayWay

PEER = "12D3KooWANUDpDH4cX56NHHs7u7aFPZ63Sdo8GTDpVwGScBht9u7"


def address(number: int) -> NetAddress:
    return NetAddress(ip=IPv4Address(0x0B000000 + number), port=16111)


def test_the_list_is_bounded_and_keeps_what_was_reached() -> None:
    known = AddressList(random.Random(1), limit=10)
    known.add([address(0)], 0.0)
    known.reached(address(0).ip, 16111)
    known.add((address(number) for number in range(1, 1000)), 0.0)
    assert len(known) == 10
    assert address(0) in known.sample(0.0, claims=True)
    for number in range(990, 1000):
        known.reached(address(number).ip, 16111)
    known.add([address(5)], 0.0)  # all proven by now: nobody makes room for a claim
    assert len(known) == 10
    assert address(5) not in known.sample(0.0, claims=True)


def test_loopback_and_nowhere_are_not_passed_on() -> None:
    known = AddressList(random.Random(1))
    for text in ("127.0.0.1", "127.64.0.9", "0.0.0.0"):
        known.add([NetAddress(ip=IPv4Address(text), port=16111)], 0.0)
    known.add([replace(address(1), port=0)], 0.0)
    assert len(known) == 0


CLAIMED = replace(address(1), services=1, relay_port=16112, relay_ttl_ms=600_000)


def test_what_is_claimed_is_not_overwritten_before_it_is_over() -> None:
    known = AddressList(random.Random(1))
    other = replace(CLAIMED, relay_port=9)
    known.add([address(1), CLAIMED, other, address(1)], 0.0)
    assert known.sample(0.0, claims=True) == [CLAIMED]
    known.add([other], 599.5)
    assert known.sample(599.5, claims=True) == [other]


def test_a_claim_that_is_passed_on_lives_no_longer_for_that() -> None:
    known = AddressList(random.Random(1))
    known.add([CLAIMED], 0.0)
    known.add([CLAIMED], 400.0)
    assert known.sample(400.0, claims=True) == [replace(CLAIMED, relay_ttl_ms=200_000)]
    assert known.sample(600.0, claims=True) == [address(1)]


def test_no_stock_peer_hears_of_an_address_that_is_none() -> None:
    private = PrivateClaim(peer_id=PEER, via=RelayWay(Endpoint("203.0.113.9", 16112)))
    known = AddressList(random.Random(1))
    known.add([claimed_address(private), replace(address(1), ip=IPv4Address("240.0.0.1"))], 0.0)
    assert len(known) == 1  # without a claim it is nothing at all
    assert known.sample(0.0, claims=False) == []
    (told,) = known.sample(60.0, claims=True)
    assert read_claim(told) == replace(private, lifetime=private.lifetime - 60)
    assert known.sample(3600.0, claims=True) == []


def test_an_address_is_dropped_after_more_than_three_failures() -> None:
    known = AddressList(random.Random(1))
    known.add([address(1), address(2)], 0.0)
    known.reached(address(2).ip, 16111)
    for _ in range(3):  # never reached: that counts as one
        assert address(1) in known.sample(0.0, claims=True)
        known.failed(address(1).ip, 16111)
    assert known.sample(0.0, claims=True) == [address(2)]
    for _ in range(4):
        known.failed(address(2).ip, 16111)
    assert len(known) == 0
    known.failed(address(9).ip, 16111)


def test_a_thousand_at_most_are_sent_and_not_always_the_same() -> None:
    known = AddressList(random.Random(1))
    known.add((address(number) for number in range(1, 3000)), 0.0)
    first, second = known.sample(0.0, claims=True), known.sample(0.0, claims=True)
    assert len(first) == len(set(first)) == 1000
    assert first != second


def test_bans_end_after_a_day_and_are_bounded() -> None:
    bans = BanList()
    bans.add("203.0.113.1", 0.0)
    assert bans.holds("203.0.113.1", BAN_TIME - 1)
    assert not bans.holds("203.0.113.2", 0.0)
    assert not bans.holds("203.0.113.1", BAN_TIME)
    for number in range(MAX_BANS + 1):
        bans.add(str(number), 0.0)
    assert not bans.holds("0", 1.0)
    assert bans.holds("1", 1.0)


async def test_the_outbox_keeps_order_and_its_bound() -> None:
    box = Outbox()
    assert box.put_nowait(b"a")
    assert not box.put_nowait(bytes(MAX_BYTES))
    assert box.put_nowait(b"b")
    box.close()
    assert not box.put_nowait(b"c")
    assert [await box.take() for _ in range(3)] == [b"a", b"b", None]


async def test_bulk_waits_and_answers_do_not(autojump_clock: trio.testing.MockClock) -> None:
    box = Outbox()
    await box.put_bulk(bytes(BULK_BYTES))
    await box.put_bulk(b"x")
    with trio.move_on_after(1) as waiting:
        await box.put_bulk(b"late")
    assert waiting.cancelled_caught
    assert box.put_nowait(b"pong")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(box.put_bulk, b"later")
        await trio.testing.wait_all_tasks_blocked()
        assert len(await box.take() or b"") == BULK_BYTES
    assert [await box.take() for _ in range(3)] == [b"x", b"pong", b"later"]


async def test_closing_the_outbox_ends_waiting_bulk() -> None:
    box = Outbox()
    await box.put_bulk(bytes(BULK_BYTES + 1))

    async def put() -> None:
        with pytest.raises(StreamReset):
            await box.put_bulk(b"late")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(put)
        await trio.testing.wait_all_tasks_blocked()
        box.close()


class Lab:
    """Two ends of an exchange; `damage` may change what travels."""

    def __init__(self) -> None:
        self.dialler_results: list[PayloadResult] = []
        self.other_results: list[PayloadResult] = []
        self.sent: list[LabChunk] = []
        self.dialler = LabExchange(dialled=True, send=self._out, done=self.dialler_results.append)
        self.other = LabExchange(dialled=False, send=self._back, done=self.other_results.append)

    def damage(self, chunk: LabChunk) -> LabChunk:
        return chunk

    async def _out(self, chunk: LabChunk) -> None:
        self.sent.append(chunk)
        await self.other.receive(self.damage(chunk))

    async def _back(self, chunk: LabChunk) -> None:
        await self.dialler.receive(chunk)


@pytest.mark.parametrize("size", [1, MAX_LAB_CHUNK, 3 * MAX_LAB_CHUNK + 5])
async def test_both_sides_agree_on_what_came(size: int) -> None:
    lab = Lab()
    await lab.dialler.originate(size)
    assert lab.dialler_results == lab.other_results
    (result,) = lab.dialler_results
    assert result.intact
    assert result.size == size
    assert all(len(chunk.data) <= MAX_LAB_CHUNK for chunk in lab.sent)


async def test_a_changed_byte_is_seen_by_both() -> None:
    class Noisy(Lab):
        def damage(self, chunk: LabChunk) -> LabChunk:
            return replace(chunk, data=b"\0" + chunk.data[1:]) if chunk.offset else chunk

    lab = Noisy()
    await lab.dialler.originate(2 * MAX_LAB_CHUNK)
    assert [result.intact for result in lab.dialler_results + lab.other_results] == [False, False]


async def test_gaps_and_echoes_of_nothing_are_faults() -> None:
    lab = Lab()
    chunk = LabChunk(echo=False, total=10, offset=5, data=b"12345")
    with pytest.raises(RemoteProtocolError):
        await lab.other.receive(chunk)
    with pytest.raises(RemoteProtocolError):
        await lab.dialler.receive(replace(chunk, echo=True, offset=0))
    with pytest.raises(RemoteProtocolError):
        await lab.dialler.receive(replace(chunk, offset=0))


async def test_work_gets_its_grace_and_no_more(autojump_clock: trio.testing.MockClock) -> None:
    told = trio.Event()
    ends: list[float] = []

    async def obedient() -> None:
        await told.wait()
        await trio.sleep(0.5)
        ends.append(trio.current_time())

    async def stubborn() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ends.append(trio.current_time())

    for work in (obedient, stubborn):
        began = trio.current_time()
        with trio.move_on_after(10) as stopping:
            await with_grace(work, told.set, 2.0)
        assert stopping.cancelled_caught
        ends[-1] -= began
    assert ends == [10.5, 12.0]


async def test_work_that_ends_by_itself_just_ends() -> None:
    async def work() -> None:
        await trio.lowlevel.checkpoint()

    await with_grace(work, lambda: None, 1.0)
