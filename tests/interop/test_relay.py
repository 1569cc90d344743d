"""Circuits: every implementation as dialler, target and relay, with ours in one of the places."""

from __future__ import annotations

import time

import base58
import pytest
import trio

from tests.interop.ours import Ours
from tests.interop.peers import Peer
from tests.interop.world import OTHERS, PY, RUST, World, circuit, combine, exercise

KIB = 1 << 10
SLOW = pytest.mark.slow
EVERYBODY = ["ours", "go", "js", "py", RUST]

THROUGH_OURS = [combine(kind, kind) for kind in OTHERS] + [
    pytest.param(*pair.values, marks=SLOW, id=pair.id)
    for dialler in EVERYBODY
    for target in EVERYBODY
    if dialler != target
    for pair in [combine(dialler, target)]
]
THROUGH_OTHERS = [combine(kind, kind, "ours") for kind in ["go", "js", PY, RUST]] + [
    pytest.param(*places.values, marks=SLOW, id=places.id)
    for kind in OTHERS
    for places in [combine(kind, "ours", kind), combine(kind, "ours", "ours")]
]


@pytest.mark.parametrize(("dialler", "target"), THROUGH_OURS)
async def test_through_our_relay(dialler: str, target: str) -> None:
    """Half-close and reset are carried both ways, and many streams one after another."""
    async with World() as world:
        relay = await world.start("ours", relay={})
        a, b = await world.start(dialler), await world.start(target)
        granted = await b.do("reserve", addr=relay.addr)
        if target != "rust":  # which keeps it to itself
            assert 3500 < granted["expires"] - time.time() <= 3601
        conn = await a.do("connect", addr=circuit(relay, b))
        assert conn["relayed"]
        await exercise(a, b, size=128 * KIB)
        await exercise(b, a, size=128 * KIB)


@pytest.mark.parametrize(("relay_kind", "dialler", "target"), THROUGH_OTHERS)
async def test_through_their_relay(relay_kind: str, dialler: str, target: str) -> None:
    """Its voucher and its terms are understood; it takes our STOP and CONNECT."""
    async with World() as world:
        relay = await world.start(relay_kind, relay={"reservation": 3000})
        a, b = await world.start(dialler), await world.start(target)
        granted = await b.do("reserve", addr=relay.addr)
        if target != "rust":
            assert 2900 < granted["expires"] - time.time() <= 3001
        conn = await a.do("connect", addr=circuit(relay, b))
        assert conn["relayed"]
        if relay_kind == "py":
            # It ends the circuit's both directions with the first end of file inside a stream's
            # close, so what is left to ask of it is that bytes arrive.
            await a.do("ping", peer=b.peer_id)
            return
        await exercise(a, b, size=128 * KIB)
        await exercise(b, a, size=128 * KIB)


@pytest.mark.parametrize("kind", ["go", "js"])
async def test_our_voucher(kind: str) -> None:
    """go-libp2p checks the envelope's signature and domain; both say who is named in it."""
    async with World() as world:
        relay, peer = await world.start("ours", relay={}), await world.start(kind)
        granted = await peer.do("reserve", addr=relay.addr)
        assert granted["voucher"] == {
            "relay": base58.b58decode(relay.peer_id).hex(),
            "peer": base58.b58decode(peer.peer_id).hex(),
            "expires": granted["expires"],
        }
        assert granted["addrs"] == [relay.addr]


@SLOW
@pytest.mark.parametrize(
    ("dialler", "target"),
    # rust's stream behaviour drops streams that come faster than its user takes them.
    [combine(a, b) for a, b in [("go", "go"), ("js", "go"), ("py", "go"), ("ours", "js")]],
)
async def test_many_streams_through_our_relay(dialler: str, target: str) -> None:
    """Streams, ends and resets of both directions at once in one circuit."""
    async with World() as world:
        relay = await world.start("ours", relay={})
        a, b = await world.start(dialler), await world.start(target)
        await b.do("reserve", addr=relay.addr)
        await a.do("connect", addr=circuit(relay, b))
        # js-libp2p ends a connection on which ten streams come before it has set it up.
        await b.do("ping", peer=a.peer_id)

        async def some(x: Peer, y: Peer, verb: str) -> None:
            for _ in range(5):
                await x.do(verb, peer=y.peer_id, bytes=64 * KIB, agreed=True)

        async with trio.open_nursery() as nursery:
            for _ in range(6):
                for x, y in ((a, b), (b, a)):
                    nursery.start_soon(some, x, y, "echo")
                    nursery.start_soon(some, x, y, "reset")
        assert isinstance(relay, Ours)
        assert not relay.host.telemetry.faults
