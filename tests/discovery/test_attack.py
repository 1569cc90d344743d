"""An attacker with 1,000 addresses in two /16 networks, against the gossip agent itself: everything
reaches the book through its real protocols on loopback, Kaspa's and our own.

The honest side is 2,000 addresses of which ten nodes speak, and sixty relays. The agent dials
nobody by itself here: whom it draws would be on the internet.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from random import Random

from appliance.addresses.keys import host_of, pack
from appliance.addresses.model import Want
from appliance.bridge.connection import Connection
from appliance.bridge.host import Host
from appliance.bridge.negotiate import NegotiatedStream
from appliance.errors import Fault
from appliance.network import Endpoint, Network
from appliance.node.embedded import EmbeddedNode
from appliance.reasons import Reason
from appliance.wire.framing import frame
from appliance.wire.gossip import MAX_RECORDS, PROTOCOL, Answer, encode_answer
from appliance.wire.kaspa_messages import NetAddress, RelayRole
from appliance.wire.records import expiry, next_sequence, seal
from appliance.wire.synthetic import synthetic_endpoint
from appliance.wire.ways import RelayWay
from tests.addresses.peers import somewhere
from tests.discovery.members import Member, Town, town
from tests.wire.signing import peer, private, record, resigned, signer

HONEST, RELAYS, ATTACKER = 2000, 60, 1000
ROUNDS = 4
CHOICES = 4000
MOST = 0.05
NETS = (66, 67)
"""The attacker's networks: 127.66 and 127.67 on loopback, 66.1 and 66.2 in what they tell."""


def his(number: int) -> Endpoint:
    return Endpoint(f"66.{1 + number % 2}.{number // 250}.{1 + number // 2 % 125}", 16112 + number)


def is_his(address: bytes) -> bool:
    first, second = address[12], address[13]
    return first in (66, *range(240, 256)) or (first == 127 and second in NETS)


def claims(rng: Random) -> list[NetAddress]:
    """A full list of his: relays of great capacity for ever, from the future, and ghosts."""
    told = []
    for number in rng.sample(range(ATTACKER), 700):
        at = his(number)
        relay = NetAddress(
            ip=IPv4Address(at.host),
            port=at.port,
            timestamp_ms=2**62,
            services=1,
            relay_port=16112,
            relay_capacity=2**32 - 1,
            relay_ttl_ms=2**63,
            relay_role=RelayRole.PUBLIC,
            libp2p_peer_id=peer(f"his{number % 90}"),
        )
        told.append(relay if number % 2 else replace(relay, timestamp_ms=0))
    for number in range(300):
        name = peer(f"ghost{rng.randrange(10**6)}")
        at = synthetic_endpoint(name if number % 3 else peer("alice"))
        hint = f"/ip4/66.1.{number % 256}.1/tcp/16112/p2p/{peer('his1')}"
        told.append(
            NetAddress(
                ip=IPv4Address(at.host),
                port=at.port,
                relay_role=RelayRole.PRIVATE,
                libp2p_peer_id=name,
                relay_circuit_hint=hint,
            )
        )
    return told


def forgeries(rng: Random, now: float, others: Sequence[bytes]) -> list[bytes]:
    """A full answer of his: news, the same again, the future, others' records re-signed, ghosts."""
    made = []
    for number in rng.sample(range(ATTACKER), 40):
        said = record(f"his{number}", now - rng.randrange(60), addresses=(his(number),), node=None)
        made.append(seal(said, signer(f"his{number}")))
    ahead = next_sequence(now + 7 * 86400)
    far = replace(record("his0", now), sequence=ahead, expires=expiry(ahead))
    made += [seal(far, signer("his0")), *made[:5]]
    made += [resigned(one, "mallory") for one in rng.sample(list(others), 6)]
    for _ in range(MAX_RECORDS - len(made)):
        name = f"ghost{rng.randrange(10**6)}"
        ways = (RelayWay(Endpoint(f"66.2.{rng.randrange(256)}.1", 16112), peer("his2")),)
        made.append(seal(private(name, now, relays=ways), signer(name)))
    return made


class Stage:
    """The agent and everybody who speaks to it."""

    def __init__(self, here: Town, us: Member) -> None:
        self.here = here
        self.us = us
        self.rng = Random(7)
        self.now = us.discovery._clock.wall()

    async def node(self, place: str, known: Iterable[NetAddress]) -> Endpoint:
        """A Kaspa node that answers with this list, whatever it is."""
        node = EmbeddedNode(Network.SIMNET, Endpoint(place, 0))
        told = list(known)
        node._surroundings = replace(node._surroundings, known_addresses=lambda _: told)
        at: Endpoint = await self.here.world.nursery.start(node.run)
        return at

    async def speaker(self, place: str, *answers: Sequence[bytes]) -> Host:
        """A relay that answers our gossip, with one list after the other."""
        relay = await self.here.world.relay(listen=[Endpoint(place, 0)])
        said = iter([*answers] * 99)

        async def answer(stream: NegotiatedStream, _: Connection) -> None:
            while await stream.receive_some():
                pass  # the question
            lists = [encode_answer(Answer(records=tuple(next(said)[:MAX_RECORDS])))]
            if self.rng.random() < 0.2 and place.startswith("127.6"):
                lists *= 2  # lists of protobuf add up: twice as many as may be
            await stream.send_all(frame(b"".join(lists)))
            await stream.aclose()

        relay.host.handle(PROTOCOL, answer)
        return relay.host

    async def visited(self, nodes: Iterable[Endpoint]) -> None:
        for at in nodes:
            await self.us.discovery._inquirer.visit(at)

    async def asked(self, speakers: Iterable[Host]) -> None:
        for one in speakers:
            conn = self.us.host.direct_to(one.peer_id)
            if conn is None:
                conn = await self.here.world.connect(self.us.host, one)
            try:
                await self.us.discovery._inquirer.ask_peer(conn)
            except Fault as fault:
                if fault.reason is not Reason.TOO_MANY_RECORDS:
                    raise

    def share(self, want: Want) -> float:
        rng, found = Random(1), list[bytes]()
        for _ in range(CHOICES):
            found += [one.address for one in self.us.book.select(1, self.now, rng, want)]
        assert len(found) > CHOICES // 2
        return sum(map(is_his, found)) / len(found)


async def test_an_attacker_gets_a_small_share_of_what_the_agent_chooses(tmp_path: Path) -> None:
    async with town(tmp_path, seconds=110) as here:
        stage = Stage(here, await here.member(public=False, at_once=0))
        rng, now, us = stage.rng, stage.now, stage.us
        drawn = (somewhere(rng) for _ in range(2 * HONEST))
        honest = [one for one in drawn if not is_his(one)][:HONEST]
        plain = [NetAddress(ip=IPv4Address(host_of(key)), port=16111) for key in honest]
        relays = []
        for number, key in enumerate(honest[:RELAYS]):
            at = Endpoint(host_of(key), 16112)
            said = record(f"relay{number}", now, addresses=(at,), node=None)
            relays.append(seal(said, signer(f"relay{number}")))
        nodes, speakers = list[Endpoint](), list[Host]()
        for number in range(10):
            # Whoever is honest hands on what it hears, of the attacker too.
            heard = rng.sample(plain, 700) + strangers(rng)
            nodes.append(await stage.node(f"127.{20 + number}.0.1", heard))
            if number < 4:
                speakers.append(
                    await stage.speaker(f"127.{40 + number}.0.1", rng.sample(relays, 40))
                )
        bad_nodes, bad_speakers = list[Endpoint](), list[Host]()
        for number in range(8):
            place = f"127.{NETS[number % 2]}.0.{1 + number}"
            bad_nodes.append(await stage.node(place, claims(rng)))
            if number < 4:
                lists = [forgeries(rng, now, relays) for _ in range(2)]
                bad_speakers.append(await stage.speaker(place, *lists))
        for turn in range(ROUNDS):  # his words come first, and most
            await stage.visited(bad_nodes)
            await stage.asked(bad_speakers)
            if turn < 2:
                await stage.visited(nodes)
                await stage.asked(speakers)
        counts = us.discovery.counts
        assert counts.records_rejected[Reason.RECORD_FROM_FUTURE]
        assert counts.records_rejected[Reason.BAD_SIGNATURE]
        assert counts.failed["gossip", Reason.TOO_MANY_RECORDS]
        for number, key in enumerate(honest):  # of the honest every third is away, of his nobody
            if number % 3 and key in us.book and number % 10 == 1:
                us.book.record_success(key, now)
        for number in range(0, ATTACKER, 5):
            us.book.record_success(pack(his(number)), now)
        assert sum(key in us.book for key in honest) > HONEST * 0.8
        assert stage.share(Want.DIRECT) <= MOST
        assert stage.share(Want.RELAY) <= MOST
        assert us.book.counts()["private"] <= 4096 // 4


def strangers(rng: Random) -> list[NetAddress]:
    return [
        NetAddress(ip=IPv4Address(at.host), port=at.port)
        for at in map(his, rng.sample(range(ATTACKER), 300))
    ]
