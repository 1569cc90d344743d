"""Two peers with relays between them: one connection after the other, streams spliced where two
meet. Over carriers in memory, or over sockets with the secure channel on them."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from appliance.dataplane.channel import CipherState, SecureChannel
from appliance.dataplane.muxstream import MuxStream
from appliance.dataplane.pace import Pacer
from appliance.dataplane.pipe import PipeCounts, PipeEnd
from appliance.dataplane.plane import Plane, PlaneLimits
from appliance.dataplane.secure import SecureStream
from appliance.dataplane.session import Session
from appliance.dataplane.splice import Splice
from appliance.dataplane.streams import Carrier
from appliance.dataplane.tcp import TcpStream
from appliance.reasons import Reason
from tests.dataplane.carriers import carrier_pair
from tests.dataplane.sessions import assert_over

CarrierPair = tuple[Carrier, Carrier]
SIDES = ("source", "target")


class Port:
    """One end of a connection: its session, and the streams that the other end opened."""

    def __init__(self, carrier: Carrier, *, client: bool, plane: Plane) -> None:
        self.carrier = carrier
        self.session = Session(carrier, client=client, max_inbound=1000, plane=plane)
        self._put, self.accepted = trio.open_memory_channel[MuxStream](1000)

    async def run(self) -> None:
        await self.session.run(self._put.send_nowait)


@dataclass
class Joined:
    """What one relay does for a circuit."""

    left: MuxStream
    right: MuxStream
    counts: PipeCounts = field(default_factory=PipeCounts)
    ends: list[PipeEnd] = field(default_factory=list)
    splice: Splice | None = None

    def join(
        self,
        plane: Plane,
        *,
        leftover: tuple[bytes, bytes] = (b"", b""),
        limit: int = 0,
        pacer: Pacer | None = None,
    ) -> None:
        self.splice = Splice(
            self.left,
            self.right,
            self.counts,
            plane=plane,
            leftover=leftover,
            limit=limit,
            pacer=pacer,
            on_end=self.ends.append,
        )


@dataclass
class Circuit:
    """The outer ends of a circuit, and what the relays between them do."""

    source: MuxStream
    target: MuxStream
    joints: list[Joined]

    @property
    def joint(self) -> Joined:
        [joint] = self.joints
        return joint


class Chain:
    """Node 0 is the source and the last one the target; link i joins nodes i and i + 1."""

    def __init__(
        self, nursery: trio.Nursery, pairs: Sequence[CarrierPair], limits: PlaneLimits
    ) -> None:
        self.planes = [Plane(limits) for _ in range(len(pairs) + 1)]
        self.links = [
            (
                Port(near, client=True, plane=self.planes[number]),
                Port(far, client=False, plane=self.planes[number + 1]),
            )
            for number, (near, far) in enumerate(pairs)
        ]
        for port in self.ports:
            nursery.start_soon(port.run)

    @property
    def ports(self) -> list[Port]:
        return [port for link in self.links for port in link]

    @property
    def plane(self) -> Plane:
        """Of the first relay."""
        return self.planes[1]

    async def streams(self) -> Circuit:
        """The streams of a circuit, not spliced yet."""
        source = self.links[0][0].session.open_stream()
        arrived = await self.links[0][1].accepted.receive()
        joints = []
        for near, far in self.links[1:]:
            leaving = near.session.open_stream()
            joints.append(Joined(arrived, leaving))
            arrived = await far.accepted.receive()
        return Circuit(source, arrived, joints)

    async def circuit(self, *, limit: int = 0, pacer: Pacer | None = None) -> Circuit:
        circuit = await self.streams()
        for joint, plane in zip(circuit.joints, self.planes[1:], strict=False):
            joint.join(plane, limit=limit, pacer=pacer)
        return circuit

    def assert_empty(self) -> None:
        """No circuit is left: nothing is held for anybody."""
        for port in self.ports:
            assert not port.session._streams and not port.session.open_streams
            assert port.session.unread == 0
        for plane in self.planes:
            assert plane.unread == 0 and not plane._borrowers and not plane._touched

    async def end(self) -> None:
        for port in self.ports:
            port.session.abort(Reason.SHUTTING_DOWN)
        for port in self.ports:
            await port.session.released.wait()
        assert_over(*(port.session for port in self.ports))


@asynccontextmanager
async def chain(
    *,
    relays: int = 1,
    capacity: int | Sequence[int] = 1 << 30,
    segments: list[int] | None = None,
    limits: PlaneLimits = PlaneLimits(),  # noqa: B008 - frozen
    pairs: Sequence[CarrierPair] | None = None,
) -> AsyncIterator[Chain]:
    """Everything runs inside the block and has left nothing behind at its end.

    `capacity` is that of each link in memory, or of all; `pairs` are links of another kind.
    """
    if pairs is None:
        capacities = [capacity] * (relays + 1) if isinstance(capacity, int) else capacity
        pairs = [carrier_pair(capacity=each, segments=segments) for each in capacities]
    async with trio.open_nursery() as nursery:
        made = Chain(nursery, pairs, limits)
        yield made
        await made.end()


def ends_of(circuit: Circuit, side: str) -> tuple[MuxStream, MuxStream]:
    """The end on that side, and the other."""
    here, there = circuit.source, circuit.target
    return (here, there) if side == "source" else (there, here)


def reset_by(side: str) -> PipeEnd:
    return PipeEnd(clean=False, reset_by="left" if side == "source" else "right")


async def secure_tcp_pair() -> CarrierPair:
    """The secure channel over a connection on loopback."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        near = trio.socket.socket()
        await near.connect(listener.socket.getsockname())
        far = (await listener.accept()).socket
    one, other = bytes(32), bytes([1]) * 32
    return (
        SecureStream(TcpStream(near), SecureChannel(CipherState(one), CipherState(other))),
        SecureStream(TcpStream(far), SecureChannel(CipherState(other), CipherState(one))),
    )


def alive(*kinds: type) -> dict[str, int]:
    """How many objects of these kinds there are."""
    gc.collect()
    return {kind.__name__: sum(type(thing) is kind for thing in gc.get_objects()) for kind in kinds}


async def until(what: Callable[[], object], *, rounds: int = 100_000) -> None:
    """Give way to others until it is so; takes no time on any clock."""
    for _ in range(rounds):
        if what():
            return
        await trio.lowlevel.checkpoint()
    raise AssertionError("it never came to be")
