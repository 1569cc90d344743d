"""Connect, echo 64 bytes, disconnect: our host beside the library's, on loopback in one run.

    .venv/bin/python -m tests.bench.host_cycle

Prints the median of each in milliseconds, and the time until the peer has the stream's first byte
counted in one-way trips, seen through a pipe that delays each direction by 20 ms.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Callable

import trio
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.custom_types import TProtocol
from libp2p.network.stream.net_stream import INetStream
from libp2p.peer.peerinfo import PeerInfo
from multiaddr import Multiaddr

from appliance.bridge.connection import Connection
from appliance.bridge.host import Host, HostLimits
from appliance.bridge.identity import Identity
from appliance.bridge.negotiate import NegotiatedStream
from appliance.bridge.telemetry import Telemetry
from appliance.network import Endpoint
from appliance.reasons import Reason

ROUNDS = 20
DELAY = 0.020
ECHO = "/echo/1.0.0"
PAYLOAD = bytes(64)

Cycle = Callable[[int], Awaitable[None]]


async def delayed(port: int, task_status: trio.TaskStatus[int]) -> None:
    """A TCP forwarder to `port` that holds every byte back for `DELAY`, each way."""

    async def pump(source: trio.SocketStream, sink: trio.SocketStream) -> None:
        send, receive = trio.open_memory_channel[tuple[float, bytes]](1024)

        async def read() -> None:
            async with send:
                async for data in source:
                    await send.send((trio.current_time() + DELAY, bytes(data)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            async for due, data in receive:
                await trio.sleep_until(due)
                await sink.send_all(data)

    async def client(near: trio.SocketStream) -> None:
        far = await trio.open_tcp_stream("127.0.0.1", port)
        with trio.CancelScope() as scope:
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(pump, near, far)
                    nursery.start_soon(pump, far, near)
            except* (trio.BrokenResourceError, trio.ClosedResourceError):
                scope.cancel()

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    task_status.started(listeners[0].socket.getsockname()[1])
    await trio.serve_listeners(client, listeners)


async def ours(nursery: trio.Nursery) -> tuple[int, Cycle]:
    """The port of an echo server of ours, and one cycle against it."""
    server = Host(Identity.generate(), HostLimits(64), Telemetry(), allow_private=True)
    client = Host(Identity.generate(), HostLimits(64), Telemetry(), allow_private=True)

    async def echo(stream: NegotiatedStream, _: Connection) -> None:
        await stream.send_all(await stream.receive_exactly(len(PAYLOAD)))
        await stream.aclose()

    server.handle(ECHO, echo)
    (bound,) = await nursery.start(server.run, [Endpoint("127.0.0.1", 0)])
    await nursery.start(client.run, [Endpoint("127.0.0.1", 0)])

    async def cycle(port: int) -> None:
        conn = await client.dial(Endpoint("127.0.0.1", port), server.peer_id, client=True)
        stream = conn.open(ECHO)
        await stream.send_all(PAYLOAD)
        assert await stream.receive_exactly(len(PAYLOAD)) == PAYLOAD
        await conn.session.close(Reason.IDLE)

    return bound.port, cycle


async def stock(nursery: trio.Nursery) -> tuple[int, Cycle]:
    """The same with the library's host."""
    server, client = (new_host(key_pair=create_new_key_pair()) for _ in range(2))

    async def echo(stream: INetStream) -> None:
        await stream.write(await stream.read(len(PAYLOAD)))
        await stream.close()

    server.set_stream_handler(TProtocol(ECHO), echo)
    port: int = 0

    async def serve(task_status: trio.TaskStatus[int]) -> None:
        async with server.run([Multiaddr("/ip4/127.0.0.1/tcp/0")]):
            task_status.started(int(server.get_addrs()[0].value_for_protocol("tcp")))
            await trio.sleep_forever()

    async def dial(task_status: trio.TaskStatus[None]) -> None:
        async with client.run([]):
            task_status.started()
            await trio.sleep_forever()

    port = await nursery.start(serve)
    await nursery.start(dial)

    async def cycle(target: int) -> None:
        info = PeerInfo(server.get_id(), [Multiaddr(f"/ip4/127.0.0.1/tcp/{target}")])
        await client.connect(info)
        stream = await client.new_stream(server.get_id(), [TProtocol(ECHO)])
        await stream.write(PAYLOAD)
        assert await stream.read(len(PAYLOAD)) == PAYLOAD
        await client.disconnect(server.get_id())
        # Else the next cycle would dial an address of an earlier one.
        client.get_peerstore().clear_peerdata(server.get_id())

    return port, cycle


async def main() -> None:
    async with trio.open_nursery() as nursery:
        for name, start in (("ours", ours), ("stock", stock)):
            port, cycle = await start(nursery)
            far = await nursery.start(delayed, port)
            for label, target in (("loopback", port), (f"{DELAY * 1000:.0f} ms each way", far)):
                taken = []
                for _ in range(ROUNDS):
                    started = time.perf_counter()
                    await cycle(target)
                    taken.append(time.perf_counter() - started)
                median = statistics.median(taken) * 1000
                print(f"{name:6} {label:18} median {median:7.1f} ms of {ROUNDS}")
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
