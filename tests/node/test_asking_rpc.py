"""The RPC client against a gRPC server that shares no code with it: grpcio as a kaspad."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from appliance.errors import Fault
from appliance.network import Endpoint
from appliance.node import rpc
from appliance.reasons import Reason
from appliance.wire.kaspa_rpc import (
    GetPeerAddresses,
    GetServerInfo,
    PeerAddresses,
    RpcRefused,
    ServerInfo,
)
from appliance.wire.pb import kaspa_rpc_pb2 as pb

Answer = Callable[[pb.KaspadRequest], list[pb.KaspadResponse]]


def _same(data: bytes) -> bytes:
    return data


@contextmanager
def kaspad(answer: Answer) -> Iterator[Endpoint]:
    """A server that answers each request with these messages."""

    def serve(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        context.send_initial_metadata(())  # kaspad's headers go out at once, before any message
        for data in requests:
            for response in answer(pb.KaspadRequest.FromString(data)):
                yield response.SerializeToString()

    handler = grpc.method_handlers_generic_handler(
        "protowire.RPC",
        {"MessageStream": grpc.stream_stream_rpc_method_handler(serve, _same, _same)},
    )
    server = grpc.server(ThreadPoolExecutor(2), compression=grpc.Compression.Gzip)
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield Endpoint("127.0.0.1", port)
    finally:
        server.stop(None).wait()


async def test_it_tells_the_addresses_that_it_knows() -> None:
    def answer(request: pb.KaspadRequest) -> list[pb.KaspadResponse]:
        assert request.WhichOneof("payload") == "getPeerAddressesRequest"
        stray = pb.KaspadResponse(id=77)  # the answer to somebody else's question
        stray.getInfoResponse.SetInParent()
        response = pb.KaspadResponse(id=request.id)
        known = response.getPeerAddressesResponse
        for text in ("203.0.113.7:16111", "[2001:db8::7]:16111", "nonsense"):
            known.addresses.add(Addr=text)
        known.bannedAddresses.add(Addr="203.0.113.66:0")
        return [stray, response]

    with kaspad(answer) as at:
        assert await rpc.call(at, GetPeerAddresses()) == PeerAddresses(
            known=(Endpoint("203.0.113.7", 16111), Endpoint("2001:db8::7", 16111)),
            banned=("203.0.113.66",),
            unreadable=1,
        )


async def test_each_question_is_a_connection_of_its_own() -> None:
    def answer(request: pb.KaspadRequest) -> list[pb.KaspadResponse]:
        response = pb.KaspadResponse(id=request.id)
        response.getServerInfoResponse.networkId = "simnet"
        return [response]

    with kaspad(answer) as at:
        for _ in range(3):
            assert await rpc.call(at, GetServerInfo()) == ServerInfo("simnet", "", False)


async def test_a_refusal_is_an_answer() -> None:
    def answer(request: pb.KaspadRequest) -> list[pb.KaspadResponse]:
        response = pb.KaspadResponse(id=request.id)
        response.getPeerAddressesResponse.error.message = "not today"
        return [response]

    with kaspad(answer) as at:
        assert await rpc.call(at, GetPeerAddresses()) == RpcRefused("not today")


async def test_a_kaspad_that_is_not_there_is_a_fault_with_its_reason() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        with pytest.raises(Fault) as caught:
            await rpc.call(Endpoint(*taken.getsockname()), GetPeerAddresses())
    assert caught.value.reason is Reason.DIAL_FAILED


async def test_a_server_that_is_no_kaspad_is_a_fault() -> None:
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with pytest.raises(Fault) as caught:
            await rpc.call(Endpoint("127.0.0.1", port), GetPeerAddresses())
    finally:
        server.stop(None).wait()
    assert caught.value.reason is Reason.CONNECTION_LOST
    assert "12" in caught.value.detail


async def test_an_answer_that_makes_no_sense_is_a_fault() -> None:
    def answer(request: pb.KaspadRequest) -> list[pb.KaspadResponse]:
        return [pb.KaspadResponse(id=request.id)]

    with kaspad(answer) as at, pytest.raises(Fault) as caught:
        await rpc.call(at, GetPeerAddresses())
    assert caught.value.reason is Reason.UNEXPECTED_MESSAGE
