"""Records at hand: the newest of each peer, a bounded number, told in a diverse choice."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from appliance.addresses.systems import AutonomousSystems
from appliance.discovery.shelf import TELLER_SHARE, Held, Shelf
from appliance.network import Endpoint
from appliance.wire.gossip import Ask, Wanted
from appliance.wire.records import CapabilityRecord, withdrawal
from appliance.wire.ways import RelayWay
from tests.discovery.members import town
from tests.wire.signing import NOW, peer, private, record

RNG = random.Random(1)
ANY = Ask(network="kaspa-simnet")


def held(said: CapabilityRecord, teller: str = "somebody") -> Held:
    """As if it had come sealed."""
    return Held(said, f"{said.peer_id} {said.sequence}".encode(), teller.encode())


def relay(number: int, net: int = 0, **fields: Any) -> CapabilityRecord:
    at = Endpoint(f"203.{net}.{number // 256}.{number % 256}", 16112)
    return record(f"relay{net}.{number}", addresses=(at,), **fields)


def owners(sealed: list[bytes]) -> list[str]:
    return [data.decode().split()[0] for data in sealed]


def test_a_newer_record_takes_the_place_of_the_older() -> None:
    shelf = Shelf()
    shelf.hold(held(record(issued=NOW)), NOW)
    newer = record(issued=NOW + 5)
    shelf.hold(held(newer), NOW + 5)
    assert len(shelf) == 1
    assert shelf.newest(newer.peer_id) == newer.sequence
    assert shelf.newest(peer("nobody")) == 0


def test_a_withdrawal_is_remembered_and_told_only_to_who_asks_for_that_peer() -> None:
    shelf, said = Shelf(), record()
    shelf.hold(held(said), NOW)
    gone = withdrawal(said.peer_id, said.network, said.sequence + 1)
    shelf.hold(held(gone), NOW)
    assert shelf.newest(said.peer_id) == gone.sequence
    assert shelf.choose(ANY, "asker", NOW, RNG) == []
    named = Ask(network="kaspa-simnet", peers=(said.peer_id,))
    assert shelf.choose(named, "asker", NOW, RNG) == [held(gone).sealed]


def test_what_is_over_is_not_told() -> None:
    shelf, said = Shelf(), record()
    shelf.hold(held(said), NOW)
    later = said.expires / 1000
    assert shelf.choose(ANY, "asker", later - 1, RNG) != []
    assert shelf.choose(ANY, "asker", later, RNG) == []
    assert shelf.latest(8, later) == []
    assert shelf.ways_to(said.peer_id, later) == ()


def test_the_asker_gets_what_it_wants_and_never_its_own() -> None:
    shelf = Shelf()
    for number in range(4):
        shelf.hold(held(relay(number, number)), NOW)
        shelf.hold(held(private(f"private{number}")), NOW)
    relays = Ask(network="kaspa-simnet", wanted=Wanted.RELAYS)
    behind = Ask(network="kaspa-simnet", wanted=Wanted.PRIVATE)
    asker = peer("private0")
    assert set(owners(shelf.choose(relays, asker, NOW, RNG))) == {
        relay(number, number).peer_id for number in range(4)
    }
    assert set(owners(shelf.choose(behind, asker, NOW, RNG))) == {
        peer(f"private{number}") for number in range(1, 4)
    }
    both = owners(shelf.choose(Ask(network="kaspa-simnet", limit=4), asker, NOW, RNG))
    assert len(both) in (3, 4)
    assert any(one.startswith("12D3") and one in map(peer, ["private1", "private2", "private3"])
               for one in both)  # fmt: skip


def test_many_relays_of_one_network_do_not_crowd_the_answer() -> None:
    shelf = Shelf()
    for number in range(100):
        shelf.hold(held(relay(number), f"teller{number}"), NOW)
    honest = [relay(number, 100 + number) for number in range(7)]
    for said in honest:
        shelf.hold(held(said), NOW)
    ask = Ask(network="kaspa-simnet", limit=8, wanted=Wanted.RELAYS)
    chosen = owners(shelf.choose(ask, "asker", NOW, RNG))
    assert {said.peer_id for said in honest} <= set(chosen)


async def test_relays_of_one_system_do_not_crowd_an_agents_answer(tmp_path: Path) -> None:
    """Each in a /16 of its own; the operator's table knows that they are one provider's."""
    systems = AutonomousSystems([b"203.0.0.0/9 AS666\n"])
    async with town(tmp_path, systems=systems) as here:
        shelf = (await here.member(public=False)).discovery.shelf
        for number in range(100):
            shelf.hold(held(relay(number, number), f"teller{number}"), NOW)
        honest = [relay(number, 200 + number) for number in range(7)]
        for said in honest:
            shelf.hold(held(said), NOW)
        ask = Ask(network="kaspa-simnet", limit=8, wanted=Wanted.RELAYS)
        chosen = owners(shelf.choose(ask, "asker", NOW, RNG))
        assert {said.peer_id for said in honest} <= set(chosen)


def test_one_teller_fills_no_more_than_its_share() -> None:
    shelf = Shelf(64)
    for number in range(64):
        assert shelf.hold(held(relay(number), f"honest{number}"), NOW)
    for number in range(1000):
        shelf.hold(held(relay(number, 1), "flood"), NOW)
    assert len(shelf) == 64
    flood = sum(shelf.newest(relay(number, 1).peer_id) > 0 for number in range(1000))
    assert 0 < flood <= 64 // TELLER_SHARE
    left = sum(shelf.newest(relay(number).peer_id) > 0 for number in range(64))
    assert left >= 64 - 64 // TELLER_SHARE


def test_who_is_new_finds_room_where_others_are_over() -> None:
    shelf = Shelf(8)
    for number in range(8):
        shelf.hold(held(relay(number), f"teller{number}"), NOW)
    later = NOW + 3 * 3600
    assert shelf.hold(held(relay(9, issued=later), "late"), later)
    assert len(shelf) == 1


def test_a_private_peer_is_known_by_its_ways() -> None:
    shelf, said = Shelf(), private()
    shelf.hold(held(said), NOW)
    assert shelf.ways_to(said.peer_id, NOW) == said.relays
    assert all(isinstance(way, RelayWay) for way in said.relays)
