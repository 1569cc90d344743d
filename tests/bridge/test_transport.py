"""Which congestion control a dialled connection gets from the kernel."""

from __future__ import annotations

import socket

import pytest

from appliance.bridge import transport
from appliance.network import Endpoint


def control_of(sock: socket.socket) -> bytes:
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0")


@pytest.mark.parametrize("punching", [False, True])
async def test_only_a_punching_dial_is_kept_from_bbr(punching: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        systems = control_of(listener)
        target = Endpoint(*listener.getsockname())
        stream = await transport.dial(target, None, punching=punching)
        with socket.socket(fileno=socket.dup(stream._sock.fileno())) as dialled:
            dialleds = control_of(dialled)
        stream.reset()
    if punching and systems.startswith(b"bbr"):
        assert dialleds in {b"cubic", b"reno"}
    else:
        assert dialleds == systems
