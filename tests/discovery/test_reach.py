"""What we say of ourselves: when it changes, when it is renewed, when it is taken back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from appliance.bridge.envelope import signer_of
from appliance.bridge.identity import Identity
from appliance.declaration import loads
from appliance.declaration.wishes import wishes
from appliance.discovery.reach import OwnRecord, Reach, node_listener, reach_of
from appliance.discovery.settings import settings_of
from appliance.network import Endpoint, Network
from appliance.sizing import CATALOGUE, plan
from appliance.wire.capability import PrivateClaim, PublicClaim
from appliance.wire.circuit import Limit
from appliance.wire.records import LIFETIME, RENEW_AFTER, CapabilityRecord, RelayOffer, unseal
from appliance.wire.ways import RelayWay
from tests.bridge.world import World, small_world
from tests.wire.signing import NOW, peer

AT = Endpoint("203.0.113.7", 16112)
NODE = Endpoint("203.0.113.7", 16111)
PUBLIC = Reach(addresses=(AT,), offer=RelayOffer(8, Limit(120, 1024)), node=NODE)
PRIVATE = Reach(relays=(RelayWay(AT, peer("relay")),))


class HandClock:
    def __init__(self) -> None:
        self.now = NOW

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now


class Us:
    """An identity whose reach the test sets."""

    def __init__(self, reach: Reach) -> None:
        self.reach = reach
        self.clock = HandClock()
        self.identity = Identity.generate()
        self.own = OwnRecord(
            signer_of(self.identity),
            self.identity.peer_id,
            Network.SIMNET,
            lambda: self.reach,
            self.clock,
        )

    def said(self) -> CapabilityRecord:
        sealed = self.own.sealed()
        assert sealed is not None
        return unseal(sealed, now=self.clock.now, network=Network.SIMNET)


def test_a_public_host_says_where_it_relays_and_how_much() -> None:
    us = Us(PUBLIC)
    said = us.said()
    assert said.is_relay
    assert (said.peer_id, said.addresses, said.offer) == (
        us.identity.peer_id,
        PUBLIC.addresses,
        PUBLIC.offer,
    )
    assert said.expires == said.sequence + LIFETIME * 1000
    assert us.own.claim() == PublicClaim(
        node=NODE, relay_port=16112, peer_id=us.identity.peer_id, capacity=8
    )


def test_a_private_host_says_through_whom_it_is_reached() -> None:
    us = Us(PRIVATE)
    assert us.said().relays == PRIVATE.relays
    assert not us.said().is_relay
    claim = us.own.claim()
    assert claim == PrivateClaim(peer_id=us.identity.peer_id, via=PRIVATE.relays[0])


def test_who_has_nothing_to_say_signs_nothing_and_still_asks_as_one_who_understands() -> None:
    us = Us(Reach())
    assert us.own.sealed() is None
    assert us.own.withdraw() is None
    assert Us(Reach()).own.claim() is not None


def test_the_record_is_made_anew_only_when_it_must() -> None:
    us = Us(PUBLIC)
    first = us.said().sequence
    us.clock.now += RENEW_AFTER - 1
    assert us.said().sequence == first
    us.clock.now += 2
    renewed = us.said().sequence
    assert renewed > first
    us.reach = replace(PUBLIC, addresses=(AT, Endpoint("2001:db8::7", 16112)))
    assert us.said().sequence > renewed  # in the same millisecond, too
    assert us.said().addresses == us.reach.addresses


def test_who_lost_the_last_relay_takes_back_what_it_said() -> None:
    us = Us(PRIVATE)
    before = us.said()
    us.reach = Reach()
    assert us.said().withdrawn
    assert us.said().sequence > before.sequence
    us.reach = PRIVATE
    assert not us.said().withdrawn


def test_after_the_withdrawal_nothing_else_is_said() -> None:
    us = Us(PUBLIC)
    us.said()
    sealed = us.own.withdraw()
    assert sealed is not None
    assert unseal(sealed, now=us.clock.now, network=Network.SIMNET).withdrawn
    assert us.own.sealed() == sealed
    assert us.own.claim() is None


@pytest.mark.parametrize(
    ("kind", "node", "expected"),
    [
        ("kaspad", "127.0.0.1:16111", "203.0.113.7:16111"),  # it listens everywhere
        ("kaspad", "203.0.113.9:16111", "203.0.113.9:16111"),
        ("kaspad", "192.168.1.9:16111", "203.0.113.7:16111"),
        ("embedded", "127.0.0.1:16111", None),
        ("embedded", "0.0.0.0:16111", "203.0.113.7:16111"),
        ("embedded", "0.0.0.0:0", None),
        ("remote", "192.168.1.9:16111", None),
        ("remote", "203.0.113.9:16111", "203.0.113.9:16111"),
        ("kaspad", "[::1]:16111", None),  # nobody reaches us by IPv6
    ],
)
def test_where_strangers_dial_the_node(kind: str, node: str, expected: str | None) -> None:
    found = node_listener(
        kind,  # type: ignore[arg-type]  # the table's words are those of the type
        Endpoint.parse(node),
        (AT,),
        allow_private=False,
    )
    assert (None if found is None else str(found)) == expected


async def test_reach_follows_the_relay_service_and_the_reservations(world: World) -> None:
    relay = await world.relay()
    guest = await world.host()
    keeper = await world.reserve(guest, relay)
    behind = await world.relay()
    behind.service.stop()
    public = reach_of(relay.host, relay.service, keeper, NODE)
    assert public.is_public
    assert public.addresses == (relay.endpoint,)
    assert public.offer is not None
    assert public.offer.capacity == 16
    private = reach_of(guest, behind.service, keeper, NODE)
    assert private == Reach(relays=(RelayWay(relay.endpoint, relay.peer_id),))
    relay.service.table.draining = True
    assert not reach_of(relay.host, relay.service, keeper, NODE)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with small_world() as made:
        yield made


def test_the_declaration_and_the_plan_say_whom_to_ask_and_how_much() -> None:
    declaration = loads(
        "apiVersion: appliance/v1\nkind: Appliance\nmetadata: {name: box}\n"
        "node: {peers: ['203.0.113.9:16111']}\n"
        "discovery: {dns_seeders: [], relays_wanted: 5}\n"
    )
    found = plan(CATALOGUE["raspberry-pi-4-4g"], wishes(declaration))
    settings = settings_of(declaration, found)
    assert settings.peers == (Endpoint("203.0.113.9", 16111),)
    assert settings.rpc == Endpoint("127.0.0.1", 16110)
    assert settings.dns_seeders == ()
    assert settings.relays_wanted == 5
    assert 0 < settings.at_once == found.caps.gossip
    assert found.fds.reserved["gossip"] >= settings.at_once
