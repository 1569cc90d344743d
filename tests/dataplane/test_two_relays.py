"""Two splices in a chain: at random, and over real sockets."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock

from appliance.dataplane.muxstream import MuxStream
from appliance.errors import StreamReset
from appliance.units import KIB, MIB
from tests.dataplane.chains import Chain, chain, secure_tcp_pair, until
from tests.dataplane.sessions import settle
from tests.dataplane.test_splice import CLEAN, PAYLOAD

# --- two relays' worth


@pytest.mark.parametrize(
    "seed", [*range(12), *(pytest.param(n, marks=pytest.mark.slow) for n in range(12, 200))]
)
async def test_two_relays_at_random(autojump_clock: MockClock, seed: int) -> None:
    """Writers, readers, ends and resets at random: every byte and every end arrives, or a reset
    where there was one; nobody hangs, nothing is left."""
    rng = random.Random(seed)
    capacities = [rng.choice([20, 500, 5_000, 200_000, 1 << 30]) for _ in range(3)]
    segments = [rng.choice([1, 12, 13, 300, 5_000, 70_000, 1 << 20]) for _ in range(7)]
    size = 5_000 if min(*capacities, *segments) < 500 else 600_000
    async with chain(relays=2, capacity=capacities, segments=segments) as world:

        async def write(
            stream: MuxStream, rng: random.Random, payload: bytes, resets_at: float
        ) -> None:
            position = 0
            while position < len(payload):
                piece = rng.choice([1, 100, 5_000, 64 * KIB, 400_000])
                await stream.send_all(payload[position : position + piece])
                position += piece
                if position >= resets_at:
                    stream.reset()
                    return
                if rng.random() < 0.3:
                    await trio.sleep(rng.random())
            await trio.sleep(rng.choice([0, 0.5]))
            await stream.send_eof()

        async def read(stream: MuxStream, rng: random.Random, heard: bytearray) -> None:
            await trio.sleep(rng.choice([0, 0, 3]))
            while data := await stream.receive_some(rng.choice([1000, 65_536, 1 << 20])):
                heard += data
                if rng.random() < 0.2:
                    await trio.sleep(rng.random())

        async def go(number: int) -> None:
            mine = random.Random(f"{seed} {number}")
            circuit = await world.circuit()
            ways = []
            reset = mine.random() < 0.4
            resetter = mine.choice([0, 1])
            outcomes: list[str] = []

            async def noted(task: Callable[..., Awaitable[None]], *arguments: object) -> None:
                try:
                    await task(*arguments)
                    outcomes.append("ended")
                except StreamReset:
                    outcomes.append("reset")

            async with trio.open_nursery() as nursery:
                for way, (here, there) in enumerate(
                    ((circuit.source, circuit.target), (circuit.target, circuit.source))
                ):
                    length = mine.choice([0, 1, size // 3, size])
                    start = mine.randrange(1000)
                    payload = PAYLOAD[start : start + length]
                    heard = bytearray()
                    ways.append((payload, heard))
                    resets_at = mine.randrange(size) if reset and way == resetter else 1 << 30
                    nursery.start_soon(
                        noted, write, here, random.Random(mine.random()), payload, resets_at
                    )
                    nursery.start_soon(noted, read, there, random.Random(mine.random()), heard)
            for payload, heard in ways:
                assert bytes(heard) == payload[: len(heard)]
            if not reset:
                assert outcomes == ["ended"] * 4
            if outcomes == ["ended"] * 4:
                assert all(bytes(heard) == payload for payload, heard in ways)
                await until(lambda: all(joint.ends for joint in circuit.joints))
                assert [joint.ends for joint in circuit.joints] == [[CLEAN], [CLEAN]]
                for joint in circuit.joints:
                    assert joint.counts.forward == len(ways[0][0])
                    assert joint.counts.backward == len(ways[1][0])
            await until(lambda: all(len(joint.ends) == 1 for joint in circuit.joints))

        with trio.fail_after(3000):
            async with trio.open_nursery() as nursery:
                for number in range(6):
                    nursery.start_soon(go, number)
                    await trio.sleep(rng.random() / 10)
        await settle()
        world.assert_empty()


async def _hash_both_ways(world: Chain, megabytes: int) -> None:
    circuit = await world.circuit()
    block = random.Random(megabytes).randbytes(MIB)

    async def send(stream: MuxStream, salt: bytes) -> None:
        for number in range(megabytes):
            await stream.send_all(salt + number.to_bytes(4, "big") + block[5:])
        await stream.send_eof()

    async def receive(stream: MuxStream, salt: bytes) -> None:
        expected, heard = hashlib.sha256(), hashlib.sha256()
        for number in range(megabytes):
            expected.update(salt + number.to_bytes(4, "big") + block[5:])
        while data := await stream.receive_some(256 * KIB):
            heard.update(data)
        assert heard.digest() == expected.digest()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send, circuit.source, b">")
        nursery.start_soon(receive, circuit.target, b">")
        nursery.start_soon(send, circuit.target, b"<")
        nursery.start_soon(receive, circuit.source, b"<")
    for joint in circuit.joints:
        assert joint.ends == [CLEAN]
        assert joint.counts.forward == joint.counts.backward == megabytes * MIB


@pytest.mark.parametrize(
    "megabytes",
    [32, pytest.param(1024, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])],
)
async def test_over_sockets_and_two_relays_every_byte_arrives(megabytes: int) -> None:
    async with chain(pairs=[await secure_tcp_pair() for _ in range(3)]) as world:
        await _hash_both_ways(world, megabytes)
        await settle()
        world.assert_empty()
