"""Two implementations on one TCP connection: streams, ends, resets, identify and ping."""

from __future__ import annotations

import pytest

from appliance import __version__
from tests.interop.world import OTHERS, World, combine, exercise

MIB = 1 << 20


@pytest.mark.parametrize(
    ("dialler", "listener"),
    [combine(kind, "ours") for kind in OTHERS] + [combine("ours", kind) for kind in OTHERS],
)
async def test_streams(dialler: str, listener: str) -> None:
    """Whoever dialled, both sides open streams and both are served."""
    async with World() as world:
        a, b = await world.start(dialler), await world.start(listener)
        conn = await a.do("connect", addr=b.addr)
        assert not conn["relayed"]
        await exercise(a, b, size=MIB)
        await exercise(b, a, size=MIB)


@pytest.mark.parametrize("kind", OTHERS)
async def test_identify(kind: str) -> None:
    """Each side learns who the other is, and where it is seen."""
    async with World() as world:
        ours, other = await world.start("ours", relay={}), await world.start(kind)
        await ours.do("connect", addr=other.addr)

        seen = await other.do("identify", peer=ours.peer_id)
        assert seen["agent"] == f"kaspa-appliance/{__version__}"
        assert {
            "/ipfs/id/1.0.0",
            "/ipfs/id/push/1.0.0",
            "/ipfs/ping/1.0.0",
            "/libp2p/circuit/relay/0.2.0/hop",
            "/libp2p/circuit/relay/0.2.0/stop",
        } <= set(seen["protocols"])
        where = ours.addr.removesuffix(f"/p2p/{ours.peer_id}")
        assert where in [addr.removesuffix(f"/p2p/{ours.peer_id}") for addr in seen["listen"]]
        assert seen["observed"].removesuffix(f"/p2p/{other.peer_id}") in other.addr

        seen = await ours.do("identify", peer=other.peer_id)
        assert kind in seen["agent"]
        # We dial from our listen port, so that is what it saw.
        host, port = seen["observed"].split(":")
        assert f"/ip4/{host}/tcp/{port}" == where


async def test_streams_opened_at_once() -> None:
    """go-yamux numbers a stream first and sends its SYN later, so ids arrive in any order."""
    async with World() as world:
        ours, other = await world.start("ours"), await world.start("go")
        await ours.do("connect", addr=other.addr)
        await other.do("ping", peer=ours.peer_id)
        for _ in range(80):
            await other.do("burst", peer=ours.peer_id, streams=48, bytes=100)
        assert len((await other.do("connections", peer=ours.peer_id))["connections"]) == 1
