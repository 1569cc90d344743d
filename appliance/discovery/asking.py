"""Asking one node, by whatever it speaks, and entering what it says: each way is one method.

Each raises Fault if there was no answer; what was said, and that it was asked, is counted here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Final

import trio

from appliance.addresses.model import Origin, Source
from appliance.bridge import gossip
from appliance.bridge.connection import Connection, Direct
from appliance.bridge.host import Host
from appliance.bridge.kaspa import PROTOCOL as KASPA
from appliance.clock import Clock
from appliance.dataplane.tcp import TcpStream
from appliance.discovery.answering import origin_of
from appliance.discovery.counts import DiscoveryCounts
from appliance.discovery.intake import Intake
from appliance.discovery.seeders import Resolver, ask_seeder
from appliance.discovery.shelf import Shelf
from appliance.errors import Fault, Refused, StreamReset
from appliance.network import Endpoint, Network
from appliance.node import rpc
from appliance.node.asking import Visitor
from appliance.node.sockets import owned
from appliance.policy.reach import is_dialable
from appliance.reasons import Reason
from appliance.wire.gossip import MAX_RECORDS, MAX_TOLD, Ask, Status, Wanted
from appliance.wire.kaspa import LIBP2P_TIMEOUTS
from appliance.wire.kaspa_rpc import GetPeerAddresses, PeerAddresses

CONNECT: Final = 5.0
"""Seconds for a node to accept a TCP connection; stock allows 1."""
APPLIANCE: Final = "kaspa-appliance/"
KASPAD: Final = "/kaspad/libp2p/"
"""How the agents of those begin who may be asked over libp2p."""


class Inquirer:
    """Asks. Who, when and how often is the caller's to decide."""

    def __init__(
        self,
        host: Host,
        network: Network,
        intake: Intake,
        shelf: Shelf,
        visitor: Visitor,
        own: Callable[[], bytes | None],
        counts: DiscoveryCounts,
        clock: Clock,
    ) -> None:
        self._host = host
        self._network = network
        self._intake = intake
        self._shelf = shelf
        self._visitor = visitor
        self._own = own
        self.counts = counts
        self._clock = clock

    # --- over libp2p

    async def ask_peer(self, conn: Connection, wanted: Wanted = Wanted.ANY) -> float:
        """Our own protocol, or Kaspa's inside a stream where the peer speaks only that.

        Seconds that the peer asks us to wait before the next question; 0: it did not say.
        """
        try:
            return await self._exchange(conn, wanted)
        except Fault as fault:
            if fault.reason is not Reason.UNSUPPORTED_PROTOCOL:
                raise
        await gossip.identified(conn)
        if not conn.agent.startswith(KASPAD):
            raise Fault(Reason.UNSUPPORTED_PROTOCOL, "it speaks nothing that we could ask in")
        await self._visit_stream(conn)
        return 0

    async def meet_and_ask(
        self, endpoint: Endpoint, peer_id: str | None, *, keep: bool
    ) -> tuple[str, bool, float]:
        """A new connection, unless there is one: does the peer relay, and whom does it know?

        Its id, whether it relays, and the seconds as from `ask_peer`. Without `keep` the
        connection is ended afterwards, if nobody else uses it.
        """
        self._host.check_room()
        with self._asking("relay"):
            conn = await gossip.meet(self._host, endpoint, peer_id)
            relays = await gossip.agrees_to_relay(conn)
        wait = 0.0
        try:
            wait = await self.ask_peer(conn)
        except Fault as fault:
            # That it relays is worth knowing by itself.
            if not relays or fault.reason is not Reason.UNSUPPORTED_PROTOCOL:
                raise
        finally:
            if not keep:
                await gossip.leave(self._host, conn)
        return conn.peer_id, relays, wait

    async def tell(self, conn: Connection, sealed: bytes) -> None:
        """One record, and no question."""
        question = Ask(network=self._network.wire_name, limit=0, records=(sealed,))
        await gossip.ask(conn, question)

    async def _exchange(self, conn: Connection, wanted: Wanted) -> float:
        with self._asking("gossip"):
            question = Ask(
                network=self._network.wire_name,
                limit=MAX_RECORDS,
                wanted=wanted,
                records=self._news(conn.peer_id),
            )
            answer = await gossip.ask(conn, question)
            if answer.status == Status.OTHER_NETWORK:
                raise Refused(Reason.WRONG_NETWORK, "the peer is of another network")
            for sealed in answer.records:
                self._intake.record(sealed, origin_of(conn), self._clock.wall())
                await trio.lowlevel.checkpoint()  # a signature takes a tenth of a millisecond
        return float(answer.ask_again)

    def _news(self, peer_id: str) -> tuple[bytes, ...]:
        own = self._own()
        told = [] if own is None else [own]
        now = self._clock.wall()
        theirs = self._shelf.get(peer_id, now)
        latest = self._shelf.latest(MAX_TOLD, now)
        told += [sealed for sealed in latest if theirs is None or sealed != theirs.sealed]
        return tuple(told[:MAX_TOLD])

    async def _visit_stream(self, conn: Connection) -> None:
        with self._asking("kaspa-stream"), conn.held():
            stream = conn.open(KASPA)
            visited = await self._visitor.visit(stream, conn.peer_id, LIBP2P_TIMEOUTS)
            now, origin = self._clock.wall(), origin_of(conn)
            self._intake.version(visited.version, None, origin, now)
            self._intake.addresses(visited.addresses, origin, now)

    # --- over TCP, and not over the network at all

    async def visit(self, endpoint: Endpoint) -> None:
        """A Kaspa node, in Kaspa's own protocol."""
        with self._asking("kaspa"):
            stream = await self._dial(endpoint)
            visited = await self._visitor.visit(stream, str(endpoint))
            now, origin = self._clock.wall(), Origin(Source.GOSSIP, endpoint.host)
            self._intake.version(visited.version, endpoint, origin, now)
            self._intake.addresses(visited.addresses, origin, now)

    async def ask_kaspad(self, endpoint: Endpoint) -> None:
        """The node beside us, over its RPC."""
        with self._asking("rpc"):
            answer = await rpc.call(endpoint, GetPeerAddresses())
            if not isinstance(answer, PeerAddresses):
                raise Refused(Reason.REJECTED_BY_PEER, str(answer)[:200])
            origin = Origin(Source.KASPAD, "kaspad")
            self._intake.endpoints(answer.known, origin, self._clock.wall())

    async def ask_seeder(self, name: str, resolve: Resolver) -> None:
        """A DNS seeder."""
        with self._asking("dns"):
            found = await ask_seeder(name, self._network.p2p_port, resolve)
            self._intake.endpoints(found, Origin(Source.GOSSIP, name[:128]), self._clock.wall())

    async def _dial(self, endpoint: Endpoint) -> TcpStream:
        """Within the host's budget for dials. Raises Fault."""
        dialling = self._host.dialling
        await dialling.turn()
        async with dialling.socket():
            try:
                with trio.fail_after(CONNECT):
                    return owned(await trio.open_tcp_stream(endpoint.host, endpoint.port))
            except trio.TooSlowError:
                raise Fault(Reason.DIAL_TIMEOUT, str(endpoint)) from None
            except OSError as error:
                why = (error.strerror or str(error)).lower()
                raise Fault(Reason.DIAL_FAILED, f"{endpoint}: {why}") from error

    @contextmanager
    def _asking(self, way: str) -> Iterator[None]:
        """Counts; raises Fault also for a stream that was reset."""
        self.counts.asked[way] += 1
        try:
            yield
        except StreamReset as error:
            self.counts.failed[way, Reason.CONNECTION_LOST] += 1
            raise Fault(Reason.CONNECTION_LOST, str(error)) from error
        except Fault as fault:
            self.counts.failed[way, fault.reason] += 1
            raise
        self.counts.answered[way] += 1


def may_be_asked(conn: Connection) -> bool:
    """A standing direct connection to somebody who answers such questions."""
    return isinstance(conn.path, Direct) and conn.agent.startswith((APPLIANCE, KASPAD))


def is_ours(host: Host, endpoint: Endpoint) -> bool:
    """Whether we would dial ourselves."""
    if endpoint in host.listening or endpoint in host.announced():
        return True
    everywhere = (one for one in host.listening if ip_address(one.host).is_unspecified)
    return any(
        one.port == endpoint.port and ip_address(endpoint.host).is_loopback for one in everywhere
    )


def worth_a_dial(host: Host, endpoint: Endpoint) -> bool:
    return is_dialable(endpoint, allow_private=host.allow_private) and not is_ours(host, endpoint)


Question = Callable[[], Awaitable[float]]
"""One exchange with somebody: seconds that they ask us to wait. Raises Fault."""
