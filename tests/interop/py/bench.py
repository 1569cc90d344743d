"""The part of the benchmarks: what the verbs mean is said in tests/interop/README.md."""

from __future__ import annotations

import gc
import time
from typing import Final

import trio
from libp2p.abc import IHost, INetStream
from libp2p.custom_types import TProtocol
from libp2p.network.stream.exceptions import StreamEOF, StreamError
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import info_from_p2p_addr
from multiaddr import Multiaddr

from tests.interop.bench import READY, SMALL_SIZE, WRITE_SIZE, Close, Flood, Reply, timed

SINK: Final = TProtocol("/bench/sink/1.0.0")
SMALL: Final = TProtocol("/bench/echo/1.0.0")


async def read(stream: INetStream, size: int) -> bytes:
    """What is there, at most `size` bytes; empty at the end."""
    try:
        data: bytes = await stream.read(size)
    except StreamEOF:
        return b""
    return data


async def read_small(stream: INetStream) -> bytes:
    data = b""
    while len(data) < SMALL_SIZE:
        more = await read(stream, SMALL_SIZE - len(data))
        if not more:
            return b""
        data += more
    return data


async def exchange(stream: INetStream) -> None:
    await stream.write(bytes(SMALL_SIZE))
    if not await read_small(stream):
        raise ConnectionError("the echo ended early")


class Bench:
    """Serves the benchmark's protocols and knows its verbs."""

    def __init__(self, host: IHost, nursery: trio.Nursery) -> None:
        self._host = host
        self._nursery = nursery
        self._sinks: list[int] = []
        self._flood = Flood()
        host.set_stream_handler(SINK, self._serve_sink)
        host.set_stream_handler(SMALL, self._serve_small)

    async def _serve_sink(self, stream: INetStream) -> None:
        number = len(self._sinks)
        self._sinks.append(0)
        await stream.write(READY)
        while data := await read(stream, WRITE_SIZE):
            self._sinks[number] += len(data)
        await stream.write(str(self._sinks[number]).encode())
        await stream.close()

    async def _serve_small(self, stream: INetStream) -> None:
        try:
            while data := await read_small(stream):
                await stream.write(data)
            await stream.close()
        except StreamError:
            await stream.reset()

    async def flood(self, peer: str, streams: int) -> Reply:
        flood = self._flood = Flood(running=streams)
        target = ID.from_string(peer)
        opened = [await self._host.new_stream(target, [SINK]) for _ in range(streams)]
        for stream in opened:
            if await read(stream, len(READY)) != READY:
                raise ConnectionError("the sink ended early")
        for stream in opened:
            self._nursery.start_soon(self._fill, stream, flood)
        return {}

    async def _fill(self, stream: INetStream, flood: Flood) -> None:
        data = bytes(WRITE_SIZE)
        try:
            while not flood.stop:
                await stream.write(data)
                flood.sent += len(data)
            await stream.close_write()
            answer = b""
            while more := await read(stream, SMALL_SIZE):
                answer += more
            flood.confirmed += int(answer or b"0")
        except Exception as error:  # noqa: BLE001 - whatever it was, the harness is told
            flood.faults.add(f"{type(error).__name__}: {error}")
        finally:
            flood.running -= 1
            if not flood.running:
                flood.over.set()

    async def ebb(self) -> Reply:
        return await self._flood.end()

    async def sunk(self) -> Reply:
        return {"at": time.monotonic(), "bytes": self._sinks}

    async def rtt(self, peer: str, count: int, seconds: float, fresh: bool = False) -> Reply:
        async def opened() -> INetStream:
            return await self._host.new_stream(ID.from_string(peer), [SMALL])

        async def once() -> Close:
            stream = await opened()
            await exchange(stream)
            return stream.close

        if fresh:
            return await timed(count, seconds, once)
        standing = await opened()
        result = await timed(count, seconds, lambda: exchange(standing))
        await standing.close()
        return result

    async def cycle(self, addr: str, count: int, seconds: float) -> Reply:
        info = info_from_p2p_addr(Multiaddr(addr))

        async def once() -> None:
            await self._host.connect(info)
            await exchange(await self._host.new_stream(info.peer_id, [SMALL]))
            await self._host.disconnect(info.peer_id)
            # Else the next cycle would dial addresses that were seen in an earlier one.
            self._host.get_peerstore().clear_peerdata(info.peer_id)

        return await timed(count, seconds, once)

    async def settle(self) -> Reply:
        gc.collect()
        return {"tasks": trio.lowlevel.current_statistics().tasks_living}
