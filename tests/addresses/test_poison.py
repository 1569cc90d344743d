"""An attacker with 1,000 addresses in two /16 networks and every trick of gossip.

The honest side is 2,000 addresses that 40 peers speak of. The attacker speaks as 12 peers of his
own two networks, and through the honest ones too, who hand on what they hear.
"""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from appliance.addresses.keys import MAPPED, synthetic
from appliance.addresses.model import RelayClaim, RelayRole, SignedClaim, Want
from appliance.addresses.options import StoreOptions
from appliance.addresses.store import AddressBook
from appliance.network import Network
from tests.addresses.peers import DAY, NOW, heard_from, peer_id, relay_claim, somewhere

HONEST = 2000
ATTACKER = 1000
MOST = 0.05
CHOICES = 2000


def networks_of_attacker() -> list[bytes]:
    rng = Random(66)
    nets = (b"\x42\x01", b"\x42\x02")
    return [MAPPED + nets[n % 2] + rng.randbytes(2) + b"\x3e\xef" for n in range(ATTACKER)]


def is_his(address: bytes) -> bool:
    return address[12] == 0x42 or address[12] >= 240


@pytest.fixture(params=["4096", "1,000,000"])
def options(request: pytest.FixtureRequest) -> StoreOptions:
    return StoreOptions(int(request.param.replace(",", "")), block_cache_bytes=1 << 20)


def share(book: AddressBook, want: Want, now: float) -> float:
    rng = Random(1)
    found = [one.address for _ in range(CHOICES) for one in book.select(1, now, rng, want)]
    assert len(found) > CHOICES // 2
    return sum(map(is_his, found)) / len(found)


def test_an_attacker_gets_a_small_share(tmp_path: Path, options: StoreOptions) -> None:
    rng = Random(7)
    honest = [one for one in (somewhere(rng) for _ in range(HONEST + 50)) if not is_his(one)]
    honest = honest[:HONEST]
    his = networks_of_attacker()
    tellers = [heard_from(f"{11 + n * 2}.{n}.1.1") for n in range(40)]
    agents = [heard_from(f"66.{1 + n % 2}.{n}.1") for n in range(12)]
    with AddressBook.open(tmp_path / "book", Network.MAINNET, options) as book:
        for hour in range(12):
            now = NOW + hour * 3600
            for agent in agents:  # floods, oversize lists, everything again each hour
                claims = [
                    relay_claim(one, ttl=10**9, capacity=10**6, peer_id=peer_id(n % 90))
                    for n, one in enumerate(rng.sample(his, 400))
                ]
                book.learn_claims(claims, agent, now)
                book.learn_claims(hidden(rng, hour), agent, now)
            for number, one in enumerate(his[hour::12]):  # signed, replayed, and re-signed
                for seq in (hour + 1, hour, 2**60 + hour):
                    far = SignedClaim(peer_id(1000 + number), seq, NOW + 10**9, (one,), b"e", 16112)
                    book.learn_signed(far, rng.choice(agents), now)
            for teller in tellers:
                handed_on = rng.sample(honest, 80) + rng.sample(his, 40)
                book.add(handed_on, teller, now)
                some = [relay_claim(one) for one in rng.sample(honest[:200], 5)]
                book.learn_claims(some, teller, now)
            # His answer whenever they are dialled; of the honest ones every third is offline.
            for number, one in enumerate(rng.sample(his, 40) + rng.sample(honest, 40)):
                if is_his(one) or number % 3:
                    book.record_success(one, now)
                else:
                    book.record_failure(one, now)
            for one in rng.sample(his, 20) + rng.sample(honest[:200], 5):
                book.confirm_relay(one, peer_id(5), now)
            book.settle(now)
            book.expire(now)
        end = NOW + DAY
        assert sum(one in book for one in honest) > HONEST * 0.7
        assert share(book, Want.DIRECT, end) <= MOST
        assert share(book, Want.RELAY, end) <= MOST
        assert book.counts()["private"] <= options.entries // 4


def hidden(rng: Random, hour: int) -> list[RelayClaim]:
    """Private peers that do not exist, under synthetic addresses, some of them not their own."""
    made = []
    for number in range(50):
        name = peer_id(100_000 + hour * 50 + number)
        own = synthetic(name) if number % 2 else synthetic(peer_id(number))
        hint = f"/ip4/66.1.{rng.randrange(256)}.1/tcp/16112/p2p/{peer_id(1)}"
        made.append(RelayClaim(own, role=RelayRole.PRIVATE, peer_id=name, hint=hint))
    return made


def test_a_flood_pushes_out_nobody_from_a_full_book(tmp_path: Path) -> None:
    rng = Random(9)
    with AddressBook.open(tmp_path / "book", Network.MAINNET) as book:
        for number in range(60):
            keys = [one for one in (somewhere(rng) for _ in range(80)) if not is_his(one)]
            book.add(keys, heard_from(f"{11 + number}.1.1.1"), NOW)
        honest = set(book.addresses())
        assert len(honest) > 4000
        for number in range(300):
            sample = rng.sample(networks_of_attacker(), 500)
            book.add(sample, heard_from(f"66.{number % 2}.{number % 250}.1"), NOW + number)
        left = honest & set(book.addresses())
        assert len(left) > 0.96 * len(honest)
