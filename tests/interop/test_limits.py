"""Our relay's terms, as other implementations see and feel them; and what it refuses them."""

from __future__ import annotations

import pytest
import trio

from appliance.bridge.messages import decode_hop
from appliance.wire.circuit import HOP, StatusReply
from tests.interop.ours import Ours
from tests.interop.peers import Peer, PeerError
from tests.interop.world import JS, QUICK_GO, RUST, World, circuit, combine, until

KIB = 1 << 10
PERMISSION_DENIED = 202
RESERVE = "020800"
"""A framed HopMessage of type RESERVE."""

TELLS_LIMITS = ["go", JS, RUST]
"""py-libp2p shows its user no limit."""


async def through_ours(world: World, kind: str, **terms: int) -> tuple[Ours, Ours, Peer]:
    """Our relay with these terms, our target that reserved there, and a dialler of that kind."""
    relay, target = await world.start("ours", relay=terms), await world.start("ours", relay={})
    assert isinstance(relay, Ours) and isinstance(target, Ours)
    dialler = await world.start(kind)
    await target.do("reserve", addr=relay.addr)
    return relay, target, dialler


async def is_gone(peer: Peer, other: Peer) -> None:
    """Wait until the peer has no circuit to the other any more.

    js-libp2p dials directly once it knows an address, when asked for a stream on a limited one.
    """
    with trio.fail_after(10):
        while True:
            conns = (await peer.do("connections", peer=other.peer_id))["connections"]
            if not any(conn["relayed"] for conn in conns):
                return
            await trio.sleep(0.05)


@pytest.mark.parametrize("kind", TELLS_LIMITS)
async def test_limits_are_read(kind: str) -> None:
    async with World() as world:
        relay, target, other = await through_ours(world, kind, seconds=120, bytes=128 * KIB)
        conn = await other.do("connect", addr=circuit(relay, target))
        assert conn["limited"]
        assert conn["seconds"] == 120
        if kind == "js":  # which counts down, and the handshake went through already
            assert 120 * KIB < conn["bytes"] <= 128 * KIB
        else:
            assert conn["bytes"] == 128 * KIB


@pytest.mark.parametrize("kind", TELLS_LIMITS)
async def test_no_limit_is_read_as_none(kind: str) -> None:
    """go-libp2p opens no stream on a limited connection unless it is told to."""
    async with World() as world:
        relay, target, other = await through_ours(world, kind)
        conn = await other.do("connect", addr=circuit(relay, target))
        assert conn["relayed"]
        assert not conn["limited"]


@pytest.mark.parametrize("kind", QUICK_GO)
async def test_the_byte_limit_holds(kind: str) -> None:
    async with World() as world:
        relay, target, other = await through_ours(world, kind, bytes=128 * KIB)
        await other.do("connect", addr=circuit(relay, target))
        assert (await other.do("echo", peer=target.peer_id, bytes=64 * KIB))["bytes"] == 64 * KIB
        try:
            echoed = await other.do("echo", peer=target.peer_id, bytes=128 * KIB)
        except PeerError:
            pass
        else:  # js, py and rust take the loss of the connection for the stream's end
            assert echoed["bytes"] < 128 * KIB
        assert relay.relay is not None
        service = relay.relay
        await until(lambda: service.table.circuits == 0)
        await is_gone(target, other)
        # The circuit is over, the connection to the relay is not.
        await other.do("ping", peer=relay.peer_id)


@pytest.mark.slow
@pytest.mark.parametrize("kind", QUICK_GO)
async def test_the_time_limit_holds_on_a_silent_circuit(kind: str) -> None:
    async with World() as world:
        relay, target, other = await through_ours(world, kind, seconds=2)
        started = trio.current_time()
        await other.do("connect", addr=circuit(relay, target))
        await other.do("ping", peer=target.peer_id)
        await is_gone(target, other)
        assert 1.9 <= trio.current_time() - started < 5
        if kind != "py":  # which learns it from its next stream
            await is_gone(other, target)


@pytest.mark.parametrize("kind", QUICK_GO)
async def test_without_reservation(kind: str) -> None:
    async with World() as world:
        relay, stranger = await world.start("ours", relay={}), await world.start("ours")
        other = await world.start(kind)
        await stranger.do("connect", addr=relay.addr)
        with pytest.raises(PeerError, match=r"(?i)no.?reservation|204"):
            await other.do("connect", addr=circuit(relay, stranger))


@pytest.mark.parametrize("kind", QUICK_GO)
async def test_no_reservation_over_a_circuit(kind: str) -> None:
    """The spec wants PERMISSION_DENIED from a relay that is asked over a relayed connection."""
    async with World() as world:
        relay, target, other = await through_ours(world, kind)
        await other.do("connect", addr=circuit(relay, target))
        answer = await other.do("exchange", peer=target.peer_id, protocol=HOP, hex=RESERVE)
        data = bytes.fromhex(answer["hex"])
        reply = decode_hop(data[1:])
        assert data[0] == len(data) - 1
        assert isinstance(reply, StatusReply) and reply.status == PERMISSION_DENIED


@pytest.mark.parametrize(
    ("kind", "seconds", "octets"),
    [
        pytest.param(*other.values, 90, 100_000, marks=other.marks, id=other.id)
        for other in map(combine, QUICK_GO)
    ],
)
async def test_their_limits_are_read(kind: str, seconds: int, octets: int) -> None:
    async with World() as world:
        relay = await world.start(kind, relay={"seconds": seconds, "bytes": octets})
        target, dialler = await world.start("ours"), await world.start("ours")
        granted = await target.do("reserve", addr=relay.addr)
        conn = await dialler.do("connect", addr=circuit(relay, target))
        assert (conn["seconds"], conn["bytes"]) == (seconds, octets)
        if kind != "js":  # which tells the terms only with a circuit
            assert (granted["seconds"], granted["bytes"]) == (seconds, octets)
