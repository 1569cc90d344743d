"""DNS seeders, and whom else we ask first."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from appliance.addresses.model import Want
from appliance.discovery.seeders import DEADLINE, MAX_ANSWER, ask_seeder, system_resolver
from appliance.errors import Fault
from appliance.network import Endpoint, Network
from appliance.reasons import Reason
from tests.bridge.world import until
from tests.discovery.members import town


async def test_a_seeder_s_answer_is_addresses_on_the_network_s_port() -> None:
    async def resolve(name: str) -> Sequence[str]:
        assert name == "seeder.example.org"
        return ["203.0.113.7", "2001:db8::7", "203.0.113.7", "fe80::1%eth0"]

    assert await ask_seeder("seeder.example.org", 16111, resolve) == [
        Endpoint("203.0.113.7", 16111),
        Endpoint("2001:db8::7", 16111),
    ]


async def test_a_seeder_that_knows_everybody_is_heard_in_part() -> None:
    async def resolve(name: str) -> Sequence[str]:
        return [f"10.{number >> 8 & 255}.{number & 255}.1" for number in range(60_000)]

    assert len(await ask_seeder("huge.example.org", 16111, resolve)) <= MAX_ANSWER


async def test_a_seeder_that_does_not_answer_is_left(autojump_clock: MockClock) -> None:
    async def resolve(name: str) -> Sequence[str]:
        await trio.sleep_forever()
        return [name]

    started = trio.current_time()
    with pytest.raises(Fault) as caught:
        await ask_seeder("slow.example.org", 16111, resolve)
    assert caught.value.reason is Reason.DIAL_TIMEOUT
    assert trio.current_time() - started == DEADLINE


async def test_the_machine_s_own_resolver_is_asked() -> None:
    assert "127.0.0.1" in await system_resolver("localhost")
    with pytest.raises(Fault) as caught:
        await ask_seeder("." * 70, 16111)  # no name at all
    assert caught.value.reason is Reason.DIAL_FAILED


def test_the_networks_have_their_seeders() -> None:
    assert len(Network.MAINNET.dns_seeders) == 9
    assert Network.TESTNET_10.dns_seeders
    assert Network.SIMNET.dns_seeders == Network.DEVNET.dns_seeders == ()


async def test_an_agent_that_knows_few_asks_its_seeders_and_hears_of_nodes(tmp_path: Path) -> None:
    asked: list[str] = []

    async def resolve(name: str) -> Sequence[str]:
        asked.append(name)
        if name == "broken.example.org":
            raise OSError("no such name")
        return [f"93.184.{number}.1" for number in range(4)]

    names = ("broken.example.org", "good.example.org")
    async with town(tmp_path) as here:
        member = await here.member(public=False, dns_seeders=names, resolve=resolve, at_once=0)
        await until(lambda: len(member.book) == 4)
        assert sorted(asked) == sorted(names)
        counts = member.discovery.counts
        assert counts.asked["dns"] == 2
        assert counts.failed["dns", Reason.DIAL_FAILED] == 1
        found = member.book.select(4, 0, random.Random(1), Want.DIRECT)
        assert {one.endpoint.port for one in found} == {Network.SIMNET.p2p_port}
