"""Appliances on loopback find each other: from one seed, in both protocols, through strangers."""

from __future__ import annotations

import random
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from appliance.addresses.keys import pack
from appliance.addresses.model import Origin, RelayClaim, RelayRole, Source, Want
from appliance.bridge import gossip, identify
from appliance.bridge.connection import Connection
from appliance.bridge.negotiate import NegotiatedStream
from appliance.declaration.addresses import RelayAddress
from appliance.network import Endpoint, Network
from appliance.node.embedded import EmbeddedNode
from appliance.reasons import Reason
from appliance.wire.gossip import ANSWER_BURST, Ask, Status
from appliance.wire.gossip import PROTOCOL as GOSSIP
from appliance.wire.kaspa_messages import NetAddress
from appliance.wire.pb import kaspa_rpc_pb2 as pb
from appliance.wire.synthetic import is_synthetic
from tests.bridge.world import endpoint_of, until
from tests.discovery.members import town
from tests.node.test_asking_rpc import kaspad as kaspad_rpc


async def test_five_appliances_find_each_other_from_one_seed(tmp_path: Path) -> None:
    """Two public ones know the seed as a libp2p peer, two private ones its Kaspa port."""
    async with town(tmp_path) as here:
        seed = await here.member(public=True, node=True)
        assert seed.node is not None
        others = [await here.member(seed.address, public=True) for _ in range(2)]
        public = [seed, *others]
        private = [await here.member(seed.node, public=False) for _ in range(2)]
        wanted = {member.peer_id for member in public}
        await until(lambda: all(wanted == member.relays() for member in private), seconds=40)
        for member in private:
            here.reserve(member, public)
        await until(
            lambda: all(
                len(one.discovery.ways_to(other.peer_id)) == 3
                for one, other in (private, private[::-1])
            ),
            seconds=40,
        )
        assert all(member.discovery.status().private for member in private)


async def test_a_stock_node_is_asked_and_sees_nothing_unusual(tmp_path: Path) -> None:
    known = [NetAddress(ip=IPv4Address(f"192.0.2.{last}"), port=16511) for last in range(1, 6)]
    async with town(tmp_path) as here:
        stock = EmbeddedNode(Network.SIMNET, Endpoint("127.60.0.1", 0), known=known)
        at = await here.world.nursery.start(stock.run)
        relay = await here.member(public=True)
        guest = await here.member(at, relay.address, public=False)
        here.reserve(guest, [relay])
        await until(lambda: all(pack(Endpoint(str(one.ip), 16511)) in guest.book for one in known))
        assert guest.discovery.counts.answered["kaspa"] == 1
        await until(lambda: not stock.peers())
        # It learnt no address of a guest that has none.
        told = stock._acquaintances._addresses.sample(0, claims=True)
        assert not any(is_synthetic(address.ip) for address in told)
        assert {address.ip for address in told} <= {address.ip for address in known}


async def test_a_claim_is_tried_before_it_counts(tmp_path: Path) -> None:
    """Two addresses are said to relay: one does, and is then worth choosing; the other is not."""
    async with town(tmp_path) as here:
        relay, other = await here.member(public=True), await here.member(public=False)
        us = await here.member(public=False)
        for member in (relay, other):
            at = endpoint_of(member.host)
            claim = RelayClaim(pack(at), relay_port=at.port, role=RelayRole.PUBLIC)
            now = us.discovery._clock.wall()
            us.book.learn_claims([claim], Origin(Source.GOSSIP, "127.99.0.1"), now)
        assert us.relays() == set()
        counts = us.discovery.counts
        await until(lambda: counts.relays_confirmed and counts.relays_denied, seconds=30)
        found = us.book.select(4, us.discovery._clock.wall(), random.Random(1), Want.RELAY)
        assert endpoint_of(relay.host) in {candidate.endpoint for candidate in found}
        assert endpoint_of(other.host) not in {candidate.endpoint for candidate in found}


async def test_who_asks_too_often_is_told_when_to_come_back(tmp_path: Path) -> None:
    async with town(tmp_path) as here:
        host = await here.member(public=True)
        stranger = await here.world.host()
        conn = await here.world.connect(stranger, host.host)
        ask = Ask(network="kaspa-simnet")
        answers = [await gossip.ask(conn, ask) for _ in range(ANSWER_BURST + 2)]
        assert [answer.status for answer in answers].count(Status.OK) == ANSWER_BURST
        assert answers[-1].status == Status.TOO_SOON
        assert 0 < answers[-1].ask_again <= 60
        assert answers[0].records != ()
        other = await gossip.ask(conn, Ask(network="kaspa-mainnet"))
        assert other.status == Status.OTHER_NETWORK
        assert host.discovery.counts.refused == {"too-soon": 2, "other-network": 1}
        friend = await here.world.connect(await here.world.host(), host.host)
        assert (await gossip.ask(friend, ask)).status == Status.OK


async def test_who_leaves_is_forgotten_by_its_neighbours(tmp_path: Path) -> None:
    async with town(tmp_path) as here:
        seed = await here.member(public=True)
        guest = await here.member(seed.address, public=True)
        await until(lambda: guest.peer_id in seed.relays())
        await guest.discovery.withdraw()
        await until(lambda: guest.peer_id not in seed.relays())
        assert guest.discovery.claim() is None


async def test_what_was_learnt_is_told_after_a_restart(tmp_path: Path) -> None:
    """The relay's record lies in the book; an agent that starts over it passes it on."""
    async with town(tmp_path) as here:
        relay = await here.member(public=True)
        keeper = await here.member(relay.address, public=False)
        await until(lambda: relay.peer_id in keeper.relays())
        keeper.scope.cancel()
        again = await here.again(keeper)
        assert [held.record.peer_id for held in again.discovery.shelf.relays(0)] == [relay.peer_id]


async def test_private_peers_are_known_after_a_restart(tmp_path: Path) -> None:
    """Their records, and with them all their relays, lie in the book as well."""
    async with town(tmp_path) as here:
        relays = [await here.member(public=True) for _ in range(2)]
        guest = await here.member(*[one.address for one in relays], public=False)
        keeper = await here.member(relays[0].address, public=False)
        here.reserve(guest, relays)
        await until(lambda: len(keeper.discovery.ways_to(guest.peer_id)) == 2, seconds=40)
        keeper.scope.cancel()
        again = await here.again(keeper)
        ways = again.discovery.ways_to(guest.peer_id)
        assert {way.peer_id for way in ways} == {one.peer_id for one in relays}
        found = again.book.select(4, again.discovery._clock.wall(), random.Random(1), Want.PRIVATE)
        signed = {one.capability.peer_id: one.capability.signed for one in found if one.capability}
        assert signed == {guest.peer_id: True}


@pytest.mark.parametrize("network", [Network.DEVNET])
async def test_a_seed_of_another_network_teaches_nothing(tmp_path: Path, network: Network) -> None:
    async with town(tmp_path) as here:
        seed = await here.member(public=True, node=True, network=network)
        assert seed.node is not None
        named = RelayAddress(endpoint_of(seed.host), seed.peer_id)
        us = await here.member(seed.node, named, public=False)
        counts = us.discovery.counts
        await until(lambda: len(counts.failed) >= 2)
        assert us.discovery.shelf.relays(0) == []
        assert seed.discovery.counts.refused["other-network"] == 1


async def test_a_kaspad_that_relays_is_asked_inside_its_stream(tmp_path: Path) -> None:
    """A relay-capable kaspad, as far as we see one: its agent, its relay, its Kaspa stream; our
    own gossip it does not know."""
    async with town(tmp_path) as here:
        kaspad = await here.member(public=True, node=True)
        kaspad.scope.cancel()
        agent = "/kaspad/libp2p/".ljust(len(identify.AGENT), "1").encode()

        async def introduce(stream: NegotiatedStream, _: Connection) -> None:
            said = identify.encode(kaspad.host.identity, listen=(), observed=None, protocols=())
            await stream.send_message(said.replace(identify.AGENT.encode(), agent))
            await stream.aclose()

        kaspad.host.handle(identify.PROTOCOL, introduce)
        await until(lambda: GOSSIP not in kaspad.host._handlers)
        us = await here.member(kaspad.address, public=False)
        counts = us.discovery.counts
        await until(lambda: counts.answered["kaspa-stream"] == 1)
        assert kaspad.peer_id in us.relays()
        # What it said of itself in there: where its node may be tried over TCP.
        assert kaspad.node is not None
        assert pack(kaspad.node) in us.book


async def test_the_kaspad_beside_us_is_asked_and_is_not_needed(tmp_path: Path) -> None:
    def known(request: pb.KaspadRequest) -> list[pb.KaspadResponse]:
        response = pb.KaspadResponse(id=request.id)
        response.getPeerAddressesResponse.addresses.add(Addr="192.0.2.7:16511")
        return [response]

    with kaspad_rpc(known) as rpc:
        async with town(tmp_path) as here:
            us = await here.member(public=False, rpc=rpc, at_once=0)
            await until(lambda: pack(Endpoint("192.0.2.7", 16511)) in us.book)
            alone = await here.member(public=False, rpc=Endpoint("127.0.0.1", 1), at_once=0)
            failed = alone.discovery.counts.failed
            await until(lambda: failed["rpc", Reason.DIAL_FAILED] == 1)
            assert alone.host.telemetry.faults == {}
