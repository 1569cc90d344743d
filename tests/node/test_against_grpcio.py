"""Our node against grpcio, an HTTP/2 and gRPC that shares no code with ours."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address

import grpc
import pytest
import trio

from appliance.network import Endpoint
from appliance.wire import kaspa_codec
from appliance.wire.kaspa_messages import (
    Addresses,
    Message,
    NetAddress,
    Opaque,
    Ping,
    Pong,
    Ready,
    Reject,
    RequestAddresses,
    Verack,
    Version,
)
from tests.node.peers import (
    STRANGER,
    GrpcioCall,
    grpcio_client,
    grpcio_server,
    journal,
    running,
)

KNOWN = [NetAddress(ip=IPv4Address(f"203.0.113.{last}"), port=16111) for last in range(1, 41)]
COMPRESSIONS = [None, grpc.Compression.Gzip]


@pytest.mark.parametrize("compression", COMPRESSIONS)
async def test_grpcio_dials_us(compression: grpc.Compression | None) -> None:
    def talk(target: Endpoint) -> None:
        with grpcio_client(target, compression=compression) as (call, _):
            theirs = call.shake_hands()
            assert theirs.network == "kaspa-simnet"
            assert theirs.user_agent.startswith("/kaspa-appliance:")
            assert call.receive() == RequestAddresses()
            call.send(Addresses((KNOWN[0],)))
            call.send(Ping(77))
            assert call.receive() == Pong(77)
            call.send(RequestAddresses())
            answer = call.receive()
            assert isinstance(answer, Addresses)
            assert set(answer.addresses) == set(KNOWN)

    with journal() as log:
        async with running(known=KNOWN[1:]) as (node, bound):
            await trio.to_thread.run_sync(talk, bound)
            assert node.address_count == len(KNOWN)
            (gone,) = await log.wait("kaspa_disconnected")
            assert gone["reason"] == "connection-lost"
            assert node.peers() == ()
    (hello,) = log.all("kaspa_handshake")
    assert hello["direction"] == "inbound"
    assert hello["user_agent"] == STRANGER.user_agent


@pytest.mark.parametrize("compression", COMPRESSIONS)
async def test_we_dial_grpcio(compression: grpc.Compression | None) -> None:
    heard: list[object] = []

    def talk(call: GrpcioCall) -> None:
        call.shake_hands()
        heard.append(call.receive())
        call.send(Addresses(tuple(KNOWN)))
        call.send(Ping(5))
        heard.append(call.receive())
        call.send(Reject("enough"))
        heard.extend(kaspa_codec.decode(data).payload for data in call.incoming)

    with grpcio_server(talk, compression) as target, journal() as log:
        async with running(target) as (node, _):
            (addresses,) = await log.wait("kaspa_addresses")
            assert addresses["count"] == len(KNOWN)
            (gone,) = await log.wait("kaspa_disconnected")
            assert gone["reason"] == "rejected-by-peer"
            assert gone["detail"] == "enough"
            assert node.address_count == len(KNOWN)
    assert heard == [RequestAddresses(), Pong(5)]


async def test_a_server_that_ends_the_stream_is_dialled_again() -> None:
    with grpcio_server(lambda _: None) as target, journal() as log:
        async with running(target, retry=0.05):
            gone = await log.wait("kaspa_disconnected", count=3)
    assert {entry["reason"] for entry in gone} == {"connection-lost"}


def refused(target: Endpoint, version: Version) -> tuple[list[object], grpc.StatusCode]:
    with grpcio_client(target) as (call, rpc):
        call.send(version)
        call.send(Verack())
        heard: list[object] = [kaspa_codec.decode(data).payload for data in call.incoming]
        return heard, rpc.code()


async def test_a_peer_of_another_network_is_told_and_left() -> None:
    wrong = Version(
        protocol_version=10,
        network="kaspa-mainnet",
        peer_id=b"s" * 16,
        user_agent="",
        timestamp_ms=0,
    )
    with journal() as log:
        async with running() as (_, bound):
            heard, status = await trio.to_thread.run_sync(refused, bound, wrong)
            (gone,) = await log.wait("kaspa_disconnected")
    assert [type(payload) for payload in heard] == [Version, Verack, Reject]
    assert status is grpc.StatusCode.OK  # as tonic: the stream just ends
    assert gone["reason"] == "wrong-network"


async def test_a_second_connection_of_a_node_is_told_and_left() -> None:
    def talk(target: Endpoint) -> list[object]:
        with grpcio_client(target) as (call, _):
            call.shake_hands()
            return refused(target, STRANGER)[0]

    async with running() as (_, bound):
        heard = await trio.to_thread.run_sync(talk, bound)
    assert heard[-1] == Reject("DUPLICATE_CONNECTION")


async def test_payloads_that_we_do_not_know_change_nothing() -> None:
    def talk(target: Endpoint) -> None:
        with grpcio_client(target) as (call, _):
            call.shake_hands()
            assert call.receive() == RequestAddresses()
            big = bytes([0x12, 0x80, 0x80, 0x80, 0x01]) + bytes(2 * 1024 * 1024)  # a block
            for raw in (big, bytes.fromhex("c23e00"), bytes.fromhex("e27600")):
                assert isinstance(kaspa_codec.decode(raw), Message)
                call.outgoing.put(raw)
            call.send(Ping(1))
            assert call.receive() == Pong(1)

    with journal() as log:
        async with running() as (_, bound):
            await trio.to_thread.run_sync(talk, bound)
    assert [entry["number"] for entry in log.all("kaspa_payload_ignored")] == [2, 1000]
    assert isinstance(kaspa_codec.decode(bytes.fromhex("c23e00")).payload, Opaque)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/protowire.P2P/Other", grpc.StatusCode.UNIMPLEMENTED),
        ("/protowire.RPC/MessageStream", grpc.StatusCode.UNIMPLEMENTED),
    ],
)
async def test_an_unknown_method_is_unimplemented(path: str, status: grpc.StatusCode) -> None:
    def talk(target: Endpoint) -> grpc.StatusCode:
        with grpcio_client(target, path) as (_, rpc):
            return rpc.code()

    async with running() as (_, bound):
        assert await trio.to_thread.run_sync(talk, bound) is status


async def test_an_encoding_that_nobody_offered_is_unimplemented() -> None:
    def talk(target: Endpoint) -> grpc.StatusCode:
        with grpcio_client(target, compression=grpc.Compression.Deflate) as (call, rpc):
            call.send(STRANGER)
            return rpc.code()

    async with running() as (_, bound):
        assert await trio.to_thread.run_sync(talk, bound) is grpc.StatusCode.UNIMPLEMENTED


async def test_a_message_that_is_no_message_ends_the_stream() -> None:
    def talk(target: Endpoint) -> list[object]:
        with grpcio_client(target) as (call, _):
            call.outgoing.put(b"\xff\xff\xff")
            return [kaspa_codec.decode(data).payload for data in call.incoming]

    with journal() as log:
        async with running() as (_, bound):
            heard = await trio.to_thread.run_sync(talk, bound)
            (gone,) = await log.wait("kaspa_disconnected")
    assert isinstance(heard[-1], Reject)
    assert gone["reason"] == "malformed-message"


async def test_a_client_that_half_closes_is_let_go_in_peace() -> None:
    def talk(target: Endpoint) -> grpc.StatusCode:
        with grpcio_client(target) as (call, rpc):
            call.shake_hands()
            call.outgoing.put(None)
            list(call.incoming)
            return rpc.code()

    async with running() as (node, bound):
        assert await trio.to_thread.run_sync(talk, bound) is grpc.StatusCode.OK
        assert node.peers() == ()


async def test_a_client_that_cancels_is_noticed() -> None:
    def talk(target: Endpoint) -> None:
        with grpcio_client(target) as (call, rpc):
            call.shake_hands()
            rpc.cancel()

    with journal() as log:
        async with running() as (_, bound):
            await trio.to_thread.run_sync(talk, bound)
            (gone,) = await log.wait("kaspa_disconnected")
    assert gone["reason"] == "connection-lost"


async def test_when_we_stop_the_peer_sees_a_clean_end() -> None:
    ended: list[grpc.StatusCode] = []
    shaken = trio.Event()
    token = trio.lowlevel.current_trio_token()

    def talk(target: Endpoint) -> None:
        with grpcio_client(target) as (call, rpc):
            call.shake_hands()
            token.run_sync_soon(shaken.set)
            list(call.incoming)
            ended.append(rpc.code())

    async with trio.open_nursery() as nursery:
        async with running() as (_, bound):
            nursery.start_soon(trio.to_thread.run_sync, talk, bound)
            await shaken.wait()
            before = trio.current_time()
        assert trio.current_time() - before < 2
    assert ended == [grpc.StatusCode.OK]


async def test_garbage_on_the_socket_ends_that_connection_only() -> None:
    def garbage(target: Endpoint) -> bytes:
        with socket.create_connection((target.host, target.port), timeout=10) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 100)
            out = b""
            while data := sock.recv(4096):
                out += data
            return out

    def talk(target: Endpoint) -> None:
        with grpcio_client(target) as (call, _):
            call.shake_hands()

    async with running() as (_, bound):
        answer = await trio.to_thread.run_sync(garbage, bound)
        assert b"HTTP/1" not in answer
        await trio.to_thread.run_sync(talk, bound)


async def test_ready_is_not_said_before_the_peer_is_known() -> None:
    def talk(target: Endpoint) -> None:
        with grpcio_client(target) as (call, _):
            call.send(Ready())
            assert isinstance(call.receive(), Version)
            call.send(Verack())
            call.send(STRANGER)
            assert call.receive() == Verack()
            assert call.receive() == Ready()
            assert call.receive() == RequestAddresses()

    async with running() as (_, bound):
        await trio.to_thread.run_sync(talk, bound)
