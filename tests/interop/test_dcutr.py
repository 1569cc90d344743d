"""From a circuit to a direct connection, together with other implementations, on loopback.

js-libp2p punches no private addresses, and no other can be had here: with it the exchange must
fail cleanly, and the circuit go on serving.
"""

from __future__ import annotations

import pytest
import trio

from tests.interop.ours import Ours
from tests.interop.peers import Peer
from tests.interop.world import PY, RUST, World, circuit, exercise, until

KIB = 1 << 10
PUNCHERS = ["go", PY, RUST]


async def has_direct(peer: Peer, other: Peer) -> None:
    """Wait until the peer has a direct connection to the other."""
    with trio.fail_after(20):
        while True:
            conns = (await peer.do("connections", peer=other.peer_id))["connections"]
            if any(not conn["relayed"] for conn in conns):
                return
            await trio.sleep(0.05)


async def meet(world: World, dialler: str, target: str) -> tuple[Peer, Peer, Ours]:
    """A circuit between the two through our relay; the third is the one of ours."""
    relay = await world.start("ours", relay={})
    a, b = await world.start(dialler, dcutr=True), await world.start(target, dcutr=True)
    await b.do("reserve", addr=relay.addr)
    conn = await a.do("connect", addr=circuit(relay, b))
    assert conn["relayed"]
    ours = a if isinstance(a, Ours) else b
    assert isinstance(ours, Ours)
    return a, b, ours


@pytest.mark.parametrize("kind", PUNCHERS)
async def test_we_start(kind: str) -> None:
    """It dialled us through the relay: we open the exchange and are the security server."""
    async with World() as world:
        a, b, ours = await meet(world, kind, "ours")
        await has_direct(b, a)
        await has_direct(a, b)
        punch = ours.host.telemetry.punch
        await until(lambda: punch.succeeded == 1)
        assert not punch.failed
        await exercise(b, a, size=64 * KIB)


@pytest.mark.parametrize("kind", PUNCHERS)
async def test_they_start(kind: str) -> None:
    """We dialled it through the relay: it opens the exchange, we are the security client."""
    async with World() as world:
        a, b, ours = await meet(world, "ours", kind)
        await has_direct(a, b)
        await has_direct(b, a)
        punch = ours.host.telemetry.punch
        if kind != "py":  # which dials the addresses of our identify before it asks
            await until(lambda: punch.succeeded == 1)
        assert not punch.failed
        await exercise(a, b, size=64 * KIB)


async def test_we_start_in_vain() -> None:
    async with World() as world:
        a, b, ours = await meet(world, "js", "ours")
        punch = ours.host.telemetry.punch
        await until(lambda: punch.failed)
        assert not punch.succeeded
        await exercise(a, b, size=64 * KIB)
        assert (await a.do("connections", peer=b.peer_id))["connections"][0]["relayed"]
        assert not ours.host.telemetry.faults


@pytest.mark.slow
async def test_they_start_in_vain() -> None:
    async with World() as world:
        a, b, ours = await meet(world, "ours", "js")
        punch = ours.host.telemetry.punch
        await until(lambda: punch.failed)
        assert not punch.succeeded
        await exercise(a, b, size=64 * KIB)
        assert not ours.host.telemetry.faults
