"""The RPC of the kaspad beside us, over gRPC: one connection, one question, one answer."""

from __future__ import annotations

from typing import Final

import trio

from appliance.dataplane.tcp import TcpStream
from appliance.errors import Fault, RemoteProtocolError, StreamReset
from appliance.network import Endpoint
from appliance.node import grpc
from appliance.node.sockets import owned
from appliance.reasons import Reason
from appliance.wire.kaspa_rpc import METHOD, Request, Response, decode_response, encode_request

CONNECT: Final = 2.0
"""Seconds; kaspad is on this machine, or on one of its network."""
ANSWER: Final = 10.0
"""Seconds for the answer: kaspad collects its address book under a lock."""
GOODBYE: Final = 1.0
_NUMBER: Final = 1


async def call(kaspad: Endpoint, request: Request) -> Response:
    """Ask once. A refusal of kaspad's is an answer (`RpcRefused`).

    Raises Fault: dial-failed, dial-timeout, connection-lost, kaspa-timeout, or what is wrong with
    the answer.
    """
    stream = await _connect(kaspad)
    answer: Response | None = None
    try:
        with trio.move_on_after(ANSWER):
            async with grpc.dial(stream, str(kaspad), METHOD.encode()) as opened:
                await opened.send(encode_request(request, _NUMBER))
                answer = await _answer(opened)
                with trio.move_on_after(GOODBYE):
                    await opened.finish()
    except StreamReset as error:
        raise Fault(Reason.CONNECTION_LOST, f"{kaspad}: {error}") from error
    if answer is None:
        raise RemoteProtocolError(Reason.KASPA_TIMEOUT, f"{kaspad}: no answer within {ANSWER:g} s")
    return answer


async def _connect(kaspad: Endpoint) -> TcpStream:
    try:
        with trio.fail_after(CONNECT):
            return owned(await trio.open_tcp_stream(kaspad.host, kaspad.port))
    except trio.TooSlowError:
        raise Fault(Reason.DIAL_TIMEOUT, str(kaspad)) from None
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise Fault(Reason.DIAL_FAILED, f"{kaspad}: {why}") from error


async def _answer(opened: grpc.GrpcCall) -> Response:
    """Notifications and the like are passed over: we subscribed to none."""
    while (message := await opened.receive()) is not None:
        number, response = decode_response(message)
        if number == _NUMBER:
            return response
    raise StreamReset("kaspad ended the call without an answer")
