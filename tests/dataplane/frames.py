"""yamux frames by hand, as the specification writes them, and machines to try them on."""

from __future__ import annotations

from appliance.dataplane.windows import WindowBudget
from appliance.dataplane.yamux import Yamux

DATA, WINDOW_UPDATE, PING, GO_AWAY = range(4)
SYN, ACK, FIN, RST = 1, 2, 4, 8


def frame(
    kind: int, flags: int, stream: int, length: int, payload: bytes = b"", *, version: int = 0
) -> bytes:
    """A header of 12 bytes (version, type, flags, stream id, length, all big-endian), payload."""
    return (
        bytes([version, kind])
        + flags.to_bytes(2, "big")
        + stream.to_bytes(4, "big")
        + length.to_bytes(4, "big")
        + payload
    )


def data(stream: int, payload: bytes, flags: int = 0) -> bytes:
    return frame(DATA, flags, stream, len(payload), payload)


def window(stream: int, delta: int = 0, flags: int = 0) -> bytes:
    return frame(WINDOW_UPDATE, flags, stream, delta)


def server(max_inbound: int = 64, windows: WindowBudget | None = None) -> Yamux:
    return Yamux(client=False, max_inbound=max_inbound, windows=windows)


def opened(stream: int = 1, windows: WindowBudget | None = None) -> Yamux:
    """A server with one stream of the peer's, and nothing left to send."""
    machine = server(windows=windows)
    machine.receive(window(stream, flags=SYN))
    control_of(machine)
    return machine


def control_of(machine: Yamux) -> bytes:
    """The control frames that `machine` wants to send; its backlog is empty afterwards."""
    out = bytearray(machine.backlog)
    machine.write_control(memoryview(out))
    return bytes(out)
