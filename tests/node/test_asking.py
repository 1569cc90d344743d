"""A short visit to a Kaspa node, to ours and to one that shares no code with it."""

from __future__ import annotations

import random
from ipaddress import IPv4Address

import pytest
import trio
import trio.testing

from appliance.dataplane.streams import ByteStream
from appliance.errors import RemoteProtocolError, StreamReset
from appliance.network import Endpoint, Network
from appliance.node.asking import VISIT, Visited, Visitor
from appliance.node.sockets import owned
from appliance.reasons import Reason
from appliance.wire.capability import Claim, PrivateClaim, PublicClaim, read_claim, read_version
from appliance.wire.kaspa_messages import (
    Addresses,
    NetAddress,
    Ping,
    Pong,
    Reject,
    RequestAddresses,
    Version,
)
from appliance.wire.ways import RelayWay
from tests.node.peers import STRANGER, GrpcioCall, grpcio_server, journal, memory_pair, running
from tests.wire.signing import peer

KNOWN = [NetAddress(ip=IPv4Address(f"203.0.113.{last}"), port=16111) for last in range(1, 41)]
RELAYED = PrivateClaim(
    peer_id=peer("alice"), via=RelayWay(Endpoint("203.0.113.7", 16112), peer("bob"))
)
PUBLIC = PublicClaim(node=Endpoint("203.0.113.99", 16111), relay_port=16112)


async def visit(
    target: Endpoint, claim: Claim | None = None, network: Network = Network.SIMNET
) -> Visited:
    visitor = Visitor(network, random.Random(1), lambda: claim)
    stream = owned(await trio.open_tcp_stream(target.host, target.port))
    return await visitor.visit(stream, str(target))


async def test_our_node_tells_a_visitor_whom_it_knows_and_forgets_it() -> None:
    with journal() as log:
        async with running(known=KNOWN, claim=lambda: PUBLIC) as (node, bound):
            visited = await visit(bound, RELAYED)
            assert visited.version.user_agent.startswith("/kaspa-appliance:")
            assert {address.ip for address in KNOWN} <= {one.ip for one in visited.addresses}
            own = read_claim(visited.addresses[0])
            assert own == PublicClaim(node=PUBLIC.node, relay_port=16112)
            await log.wait("kaspa_disconnected")
            assert node.peers() == ()
    (hello,) = log.all("kaspa_handshake")
    assert hello["direction"] == "inbound"


async def test_a_stock_node_sees_an_ordinary_peer_that_soon_leaves() -> None:
    """grpcio with the messages of stock: no address that is none, an answer to its question."""
    seen: list[Version] = []
    told: list[object] = []
    ends: list[bytes] = []

    def talk(call: GrpcioCall) -> None:
        seen.append(call.shake_hands())
        assert call.receive() == RequestAddresses()
        call.send(RequestAddresses())
        call.send(Ping(9))
        told.extend([call.receive(), call.receive()])
        call.send(Addresses(tuple(KNOWN)))
        ends.extend(call.incoming)

    with grpcio_server(talk) as target:
        visited = await visit(target, RELAYED)
    assert visited.addresses == tuple(KNOWN)
    assert told == [Addresses(()), Pong(9)]  # a synthetic address is not for stock
    assert ends == []
    (version,) = seen
    assert version.network == "kaspa-simnet"
    assert version.address is not None
    assert version.address.port == 0  # which stock passes over
    assert read_version(version) == RELAYED


async def test_a_public_visitor_tells_a_stock_node_its_address() -> None:
    told: list[object] = []

    def talk(call: GrpcioCall) -> None:
        call.shake_hands()
        call.receive()
        call.send(RequestAddresses())
        told.append(call.receive())
        call.send(Addresses(()))
        list(call.incoming)

    with grpcio_server(talk) as target:
        await visit(target, PUBLIC)
    (addresses,) = told
    assert isinstance(addresses, Addresses)
    assert [(str(one.ip), one.port) for one in addresses.addresses] == [("203.0.113.99", 16111)]


async def test_a_node_that_does_not_ask_us_is_left_all_the_same() -> None:
    def talk(call: GrpcioCall) -> None:
        call.shake_hands()
        call.receive()
        call.send(Addresses(tuple(KNOWN[:3])))
        list(call.incoming)

    with grpcio_server(talk) as target:
        visited = await visit(target)
    assert len(visited.addresses) == 3


async def test_a_node_that_rejects_us_says_why() -> None:
    def talk(call: GrpcioCall) -> None:
        call.send(Reject("we are full"))
        list(call.incoming)

    with grpcio_server(talk) as target, pytest.raises(RemoteProtocolError) as caught:
        await visit(target)
    assert caught.value.reason is Reason.REJECTED_BY_PEER
    assert "we are full" in caught.value.detail


async def test_too_many_addresses_end_the_visit() -> None:
    def talk(call: GrpcioCall) -> None:
        call.shake_hands()
        call.receive()
        call.send(Addresses(tuple(KNOWN * 70)))
        list(call.incoming)

    with grpcio_server(talk) as target, pytest.raises(RemoteProtocolError) as caught:
        await visit(target)
    assert caught.value.reason is Reason.TOO_MANY_ADDRESSES


async def test_a_node_of_another_network_is_left_at_once() -> None:
    async with running(known=KNOWN) as (_, bound):
        with pytest.raises(RemoteProtocolError) as caught:
            await visit(bound, network=Network.DEVNET)
    assert caught.value.reason is Reason.WRONG_NETWORK
    assert STRANGER.network == "kaspa-simnet"


async def test_a_server_that_trickles_bytes_is_left_after_the_time_of_a_visit(
    autojump_clock: trio.testing.MockClock,
) -> None:
    ours, theirs = memory_pair()

    async def trickle(stream: ByteStream) -> None:
        # An HTTP/2 SETTINGS frame of the largest size, a byte a second.
        for byte in b"\x00\x40\x00\x04\x00" + bytes(100):
            try:
                await stream.send_all(bytes([byte]))
            except StreamReset:
                return
            await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trickle, theirs)
        started = trio.current_time()
        with pytest.raises((RemoteProtocolError, StreamReset)):
            await Visitor(Network.SIMNET, random.Random(1)).visit(ours, "slow")
        assert trio.current_time() - started <= VISIT + 3
        assert ours.was_reset
        nursery.cancel_scope.cancel()
