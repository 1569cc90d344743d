"""The handshake between peers of all kinds: who says what of itself, and who hears it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address

import trio

from appliance.network import Endpoint
from appliance.wire.capability import (
    Claim,
    PrivateClaim,
    PublicClaim,
    claimed_address,
    claiming,
    read_claim,
    read_version,
    understands_claims,
)
from appliance.wire.kaspa_messages import Addresses, NetAddress, RequestAddresses, Version
from appliance.wire.synthetic import is_synthetic, synthetic_endpoint
from appliance.wire.ways import RelayWay
from tests.node.peers import STRANGER, GrpcioCall, grpcio_client, journal, running

RELAY = "12D3KooWK8n2eei2n7MaUvYgCF9Km1unreBEyDndEhgyYdJSbqvo"
PEER = "12D3KooWANUDpDH4cX56NHHs7u7aFPZ63Sdo8GTDpVwGScBht9u7"
PUBLIC = PublicClaim(
    node=Endpoint("198.51.100.7", 16111), relay_port=16112, peer_id=PEER, capacity=64, lifetime=900
)
PRIVATE = PrivateClaim(
    peer_id=PEER, via=RelayWay(Endpoint("198.51.100.9", 16112), RELAY), lifetime=900
)
CAPABLE = claiming(
    replace(STRANGER, user_agent="/kaspad:1.1.0/libp2p/"),
    PublicClaim(node=Endpoint("203.0.113.40", 16111), relay_port=16112, lifetime=900),
)


def conversation(as_peer: Version, out: list[object]) -> Callable[[Endpoint], None]:
    """Shake hands, ask for addresses; `out` gets the version and the addresses that were told."""

    def talk(target: Endpoint) -> None:
        with grpcio_client(target) as (call, _):
            out.append(call.shake_hands(as_peer))
            assert call.receive() == RequestAddresses()
            call.send(Addresses(()))
            out.append(_ask(call))

    return talk


def _ask(call: GrpcioCall) -> tuple[NetAddress, ...]:
    call.send(RequestAddresses())
    answer = call.receive()
    assert isinstance(answer, Addresses)
    return answer.addresses


async def hear(claim: Claim | None, as_peer: Version) -> tuple[Version, tuple[NetAddress, ...]]:
    """What a peer of that kind hears from a node with that claim."""
    out: list[object] = []
    async with running(claim=lambda: claim) as (_, bound):
        await trio.to_thread.run_sync(conversation(as_peer, out), bound)
    version, addresses = out
    assert isinstance(version, Version) and isinstance(addresses, tuple)
    return version, addresses


async def test_a_public_host_says_so_to_everybody() -> None:
    for peer in (STRANGER, CAPABLE):
        version, addresses = await hear(PUBLIC, peer)
        assert version.services == 1
        assert version.address == claimed_address(PUBLIC)
        assert read_version(version) == PUBLIC
        assert addresses[0] == claimed_address(PUBLIC)


async def test_a_private_host_sets_no_relay_fields_and_says_how_to_reach_it() -> None:
    version, addresses = await hear(PRIVATE, CAPABLE)
    assert version.services == 0
    assert version.address is not None
    assert version.address.relay_port == version.address.services == 0
    assert read_version(version) == PRIVATE
    own = addresses[0]
    assert Endpoint(str(own.ip), own.port) == synthetic_endpoint(PEER)
    assert own.relay_circuit_hint == f"/ip4/198.51.100.9/tcp/16112/p2p/{RELAY}"
    assert read_claim(own) == PRIVATE


async def test_a_stock_peer_sees_no_address_that_it_would_keep_and_dial() -> None:
    """Stock keeps whatever is neither loopback nor unspecified, and dials what it keeps."""
    version, addresses = await hear(PRIVATE, STRANGER)
    assert version.address is not None
    assert version.address.ip.is_unspecified
    assert not any(is_synthetic(address.ip) for address in addresses)


async def test_without_a_claim_nothing_is_said() -> None:
    version, addresses = await hear(None, CAPABLE)
    assert version.services == 0 and version.address is None
    assert [address.relay_port for address in addresses] == [16112]  # the peer's own


async def test_before_the_first_reservation_only_those_who_understand_are_told_apart() -> None:
    waiting = replace(PRIVATE, via=None)
    version, addresses = await hear(waiting, CAPABLE)
    assert understands_claims(version)
    assert read_version(version) is None
    assert not any(is_synthetic(address.ip) for address in addresses)


async def test_the_claim_is_what_holds_when_it_is_said() -> None:
    """A reservation comes after the start, a listener may close: nothing is said from memory."""
    claims: list[Claim | None] = [None, PRIVATE, PUBLIC]
    heard: list[object] = []
    now = claims[0]
    async with running(claim=lambda: now) as (_, bound):
        for now in claims:  # noqa: B007 - the node reads it
            out: list[object] = []
            await trio.to_thread.run_sync(conversation(CAPABLE, out), bound)
            assert isinstance(out[0], Version)
            heard.append(read_version(out[0]))
    assert heard == claims


async def test_a_relay_capable_peer_is_learnt_and_passed_on() -> None:
    async with running() as (node, bound):
        await trio.to_thread.run_sync(conversation(CAPABLE, []), bound)
        out: list[object] = []
        other = replace(CAPABLE, peer_id=b"o" * 16, address=None)
        await trio.to_thread.run_sync(conversation(other, out), bound)
        assert node.address_count == 1
    addresses = out[1]
    assert isinstance(addresses, list | tuple)
    (told,) = (address for address in addresses if isinstance(address, NetAddress))
    assert CAPABLE.address is not None
    assert told.ip == CAPABLE.address.ip and told.relay_port == 16112
    assert 0 < told.relay_ttl_ms <= CAPABLE.address.relay_ttl_ms


async def test_a_claim_that_cannot_be_costs_the_claim_and_not_the_connection() -> None:
    liar = replace(CAPABLE, address=replace(claimed_address(PUBLIC), ip=IPv4Address("240.1.2.3")))
    with journal() as log:
        async with running() as (node, bound):
            await trio.to_thread.run_sync(conversation(liar, []), bound)
            assert node.address_count == 0
        (ignored,) = log.all("kaspa_claim_ignored")
    assert ignored["reason"] == "malformed-message"
    assert log.all("kaspa_addresses")


async def test_two_appliances_of_ours_find_each_other_old_and_new() -> None:
    """An old appliance is the node without a claim: nothing was said of it, and nothing breaks."""
    with journal() as log:
        async with running(claim=lambda: PRIVATE) as (new, at), running(at) as (old, _):
            await log.wait("kaspa_addresses", count=2)
            assert len(new.peers()) == len(old.peers()) == 1
            assert old.address_count == 1  # it, too, is of the kind that can use the way
