"""Hostile bytes for the machines of the data plane: random ones, and conversations with changes.

    python -m tests.fuzz.dataplane --inputs 1000000 --seed 7

Each input goes to one machine, whole and cut into pieces: both must mean the same, and nothing but
a RemoteProtocolError with the machine's own reason may come of it. The seed and number of an input
that breaks this are in the message; `--first` goes on from there.
"""

from __future__ import annotations

import itertools
import sys
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Final

from appliance.dataplane.channel import CipherState, SecureChannel
from appliance.dataplane.frames import (
    HEADER_SIZE,
    DataReceived,
    EofReceived,
    ResetReceived,
    StreamOpened,
    StreamRefused,
)
from appliance.dataplane.windows import INITIAL_WINDOW, WindowBudget
from appliance.dataplane.yamux import MAX_CONTROL_BACKLOG, Yamux
from appliance.errors import Fault, RemoteProtocolError
from appliance.reasons import Reason
from appliance.wire import multistream
from tests.dataplane.frames import control_of
from tests.fuzz.running import Broken, check, in_turn, program

MAX_INBOUND: Final = 500
OWN_STREAMS: Final = 3
_KEY: Final = bytes(range(32))
_PEERS: Final = (1, 3, 5, 7, 9)
_STREAMS: Final = (*_PEERS, *range(2, 2 * OWN_STREAMS + 1, 2))
_PROTOCOLS: Final = ("/yamux/1.0.0", "/noise", "/ipfs/ping/1.0.0", "/", "na", "x" * 300)

Outcome = tuple[object, ...]
"""What an input meant: comparable between segmentations."""


# --- bytes


def _frame(rng: Random) -> bytes:
    """A frame that makes sense more often than not."""
    odd = rng.random() < 0.03
    kind = rng.randrange(6) if odd else rng.choice((0, 0, 0, 1, 1, 2, 3))
    flags = rng.randrange(20) if odd else rng.choice((0, 0, 0, 2, 4, 8))
    stream = rng.randrange(14) if odd else rng.choice(_STREAMS)
    if kind >= 2 and not odd:
        stream, flags = 0, rng.choice((1, 2))
    payload = rng.randbytes(rng.choice((0, 1, rng.randrange(50)))) if kind == 0 else b""
    length = rng.choice((0, 1, INITIAL_WINDOW, rng.randrange(1 << 20)))
    if kind == 0 and not odd:
        length = len(payload)
    head = bytes([0, kind]) + flags.to_bytes(2, "big") + stream.to_bytes(4, "big")
    return head + length.to_bytes(4, "big") + payload


def _opened(rng: Random) -> bytes:
    """Streams of the peer, in any order: what later frames are about."""
    return b"".join(
        bytes([0, rng.randrange(2), 0, 1]) + stream.to_bytes(4, "big") + bytes(4)
        for stream in rng.sample(_PEERS, len(_PEERS))
    )


def _changed(rng: Random, wire: bytes) -> bytes:
    """A few bytes changed, dropped, repeated or added."""
    out = bytearray(wire)
    for _ in range(rng.randrange(4)):
        at = rng.randrange(len(out) + 1)
        match rng.randrange(4):
            case 0 if at < len(out):
                out[at] ^= 1 << rng.randrange(8)
            case 1:
                del out[at : at + rng.randrange(1, 20)]
            case 2:
                out[at:at] = out[at : at + rng.randrange(1, 40)]
            case _:
                out[at:at] = rng.randbytes(rng.randrange(1, 8))
    return bytes(out)


def _pieces(rng: Random, wire: bytes) -> list[bytes]:
    cuts = sorted(rng.randrange(len(wire) + 1) for _ in range(rng.randrange(8)))
    return [wire[start:end] for start, end in itertools.pairwise([0, *cuts, len(wire)])]


# --- machines


def yamux_input(rng: Random) -> bytes:
    if rng.random() < 0.1:
        return rng.randbytes(rng.randrange(200))
    wire = _opened(rng) + b"".join(_frame(rng) for _ in range(rng.randrange(25)))
    return _changed(rng, wire) if rng.random() < 0.5 else wire


def yamux_outcome(pieces: list[bytes]) -> Outcome:
    """Bytes, ends and resets of each stream, and why it ended if it did."""
    machine = Yamux(client=False, max_inbound=MAX_INBOUND, windows=WindowBudget(0))
    streams: dict[int, list[object]] = {machine.open_stream(): [] for _ in range(OWN_STREAMS)}
    control: list[object] = []
    held: Counter[int] = Counter()
    end: object = None
    for piece in pieces:
        try:
            events = machine.receive(piece)
        except RemoteProtocolError as error:
            check(error.reason is Reason.YAMUX_VIOLATION, f"reason {error.reason}")
            # Events in front of it, in the same piece, are lost with it: nothing to compare.
            end = error.detail
            break
        for event in events:
            match event:
                case DataReceived(stream_id, data):
                    held[stream_id] += len(data)
                    check(held[stream_id] <= INITIAL_WINDOW, "more than a window was accepted")
                    said = streams[stream_id]
                    if said and isinstance(last := said[-1], bytes):
                        said[-1] = last + bytes(data)
                    else:
                        said.append(bytes(data))
                case StreamOpened(stream_id):
                    check(stream_id not in streams, "opened twice")
                    streams[stream_id] = []
                case StreamRefused(stream_id) | EofReceived(stream_id) | ResetReceived(stream_id):
                    streams.setdefault(stream_id, []).append(type(event))
                case _:
                    control.append(event)
        check(machine.open_streams <= MAX_INBOUND + OWN_STREAMS, "too many streams")
        check(machine.backlog <= 2 * MAX_CONTROL_BACKLOG, "too large a backlog")
    if end is not None:
        return ("violation", end)
    check(machine.backlog % HEADER_SIZE == 0, "half a frame of ours")
    return streams, control, machine.open_streams, control_of(machine)


_PLAIN: Final = Random(5).randbytes(1000)


def channel_input(rng: Random) -> bytes:
    sender = SecureChannel(CipherState(_KEY), CipherState(_KEY))
    out = memoryview(bytearray(4096))
    size = start = 0
    for _ in range(rng.randrange(6)):
        more = rng.randrange(100)
        size += sender.seal(memoryview(_PLAIN)[start : start + more], out[size:])
        start += more
    wire = bytes(out[:size])
    return _changed(rng, wire) if rng.random() < 0.9 else rng.randbytes(rng.randrange(300))


def channel_outcome(pieces: list[bytes]) -> Outcome:
    """What was opened is what was sealed, as far as it goes; then a violation, or nothing."""
    receiver = SecureChannel(CipherState(_KEY), CipherState(_KEY))
    out = memoryview(bytearray(4096))
    kept, plain = b"", b""
    for piece in pieces:
        kept += piece
        try:
            consumed, size = receiver.open(memoryview(kept), out)
        except RemoteProtocolError as error:
            check(error.reason is Reason.NOISE_VIOLATION, f"reason {error.reason}")
            return ("violation", error.detail)
        plain += bytes(out[:size])
        check(_PLAIN.startswith(plain), "what was never sealed was opened")
        kept = kept[consumed:]
    return plain, kept


def multistream_input(rng: Random) -> bytes:
    lines = [multistream.line(multistream.HEADER)] * (rng.random() < 0.9)
    lines += [multistream.line(rng.choice(_PROTOCOLS)) for _ in range(rng.randrange(40))]
    wire = b"".join(lines) + rng.randbytes(rng.randrange(20))
    return _changed(rng, wire) if rng.random() < 0.8 else rng.randbytes(rng.randrange(200))


def listener_outcome(pieces: list[bytes]) -> Outcome:
    machine = multistream.Listener(lambda protocol: protocol == "/noise")
    sent, rest = b"", b""
    try:
        for piece in pieces:
            if machine.protocol is not None:
                rest += piece
            else:
                rest += machine.receive(piece) or b""
            sent += machine.data_to_send()
    except RemoteProtocolError as error:
        check(
            error.reason
            in (Reason.MALFORMED_MESSAGE, Reason.UNSUPPORTED_PROTOCOL, Reason.MESSAGE_TOO_LARGE),
            f"reason {error.reason}",
        )
        return ("violation", error.detail, sent + machine.data_to_send())
    check(len(sent) < 1000, "more answers than proposals are allowed")
    return machine.protocol, sent, rest


def dialler_outcome(pieces: list[bytes]) -> Outcome:
    machine = multistream.Dialler("/noise")
    agreed, rest = False, b""
    try:
        for piece in pieces:
            if agreed:
                rest += piece
            elif (behind := machine.receive(piece)) is not None:
                agreed, rest = True, behind
    except RemoteProtocolError as error:
        check(
            error.reason
            in (Reason.MALFORMED_MESSAGE, Reason.UNSUPPORTED_PROTOCOL, Reason.MESSAGE_TOO_LARGE),
            f"reason {error.reason}",
        )
        return ("violation", error.detail)
    return agreed, rest


TARGETS: Final[dict[str, tuple[Callable[[Random], bytes], Callable[[list[bytes]], Outcome]]]] = {
    "yamux": (yamux_input, yamux_outcome),
    "channel": (channel_input, channel_outcome),
    "listener": (multistream_input, listener_outcome),
    "dialler": (multistream_input, dialler_outcome),
}


def try_input(target: str, seed: int, number: int) -> bool:
    """One input, whole and in pieces; whether it was a violation. Raises Broken."""
    make, mean = TARGETS[target]
    rng = Random(f"{target} {seed} {number}")
    wire = make(rng)
    pieces = _pieces(rng, wire)
    try:
        whole, cut = mean([wire]), mean(pieces)
        check(whole == cut, f"whole: {whole}, in pieces: {cut}")
    except Broken as error:
        raise Broken(f"{target}, seed {seed}, input {number}: {error}") from None
    except Fault as fault:
        raise Broken(f"{target}, seed {seed}, input {number}: {fault!r}") from fault
    return whole[0] == "violation"


def run(inputs: int, *, seed: int, first: int = 0) -> Counter[str]:
    """That many inputs, to each machine in turn; how many were violations. Raises Broken."""
    return in_turn(TARGETS, try_input, inputs, seed, first)


def main(arguments: list[str] | None = None) -> int:
    return program("tests.fuzz.dataplane", __doc__, TARGETS, try_input, arguments)


if __name__ == "__main__":
    sys.exit(main())
