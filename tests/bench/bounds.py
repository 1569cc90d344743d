"""The bounds: what two Python processes get out of a loopback socket with nothing in between.

`tcp` sends 64 KiB writes; `aead` frames of two bytes of length and sealed data, each as long as a
noise message may be, sealed and opened in place. Blocking sockets, one thread each.

    .venv/bin/python -m tests.bench.bounds receive tcp        # prints its port
    .venv/bin/python -m tests.bench.bounds send tcp PORT SECONDS
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from functools import partial
from typing import Final

import trio
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from tests.bench.cells import Cells, Run, Settings
from tests.interop.peers import ROOT, PeerError

WRITE_SIZE: Final = 64 * 1024
TAG: Final = 16
MAX_FRAME: Final = 65535
"""The longest noise message: two bytes of length (Noise, chapter 3)."""
PAYLOAD: Final = MAX_FRAME - TAG
KEY: Final = bytes(range(32))
READ_SIZE: Final = 256 * 1024


def nonce(number: int) -> bytes:
    return bytes(4) + number.to_bytes(8, "little")


def send_tcp(sock: socket.socket, until: float) -> None:
    data = bytes(WRITE_SIZE)
    while time.perf_counter() < until:
        sock.sendall(data)


def send_aead(sock: socket.socket, until: float) -> None:
    cipher, payload, frame = ChaCha20Poly1305(KEY), bytes(PAYLOAD), bytearray(2 + MAX_FRAME)
    frame[:2] = MAX_FRAME.to_bytes(2, "big")
    sealed = memoryview(frame)[2:]
    number = 0
    while time.perf_counter() < until:
        cipher.encrypt_into(nonce(number), payload, None, sealed)
        number += 1
        sock.sendall(frame)


def receive_tcp(sock: socket.socket) -> int:
    buffer, total = bytearray(READ_SIZE), 0
    while count := sock.recv_into(buffer):
        total += count
    return total


def receive_aead(sock: socket.socket) -> int:
    cipher, plain = ChaCha20Poly1305(KEY), bytearray(PAYLOAD)
    buffer = bytearray(READ_SIZE)
    view = memoryview(buffer)
    held = total = number = 0
    while count := sock.recv_into(view[held:]):
        held += count
        at = 0
        while held - at >= 2 and held - at - 2 >= (
            size := int.from_bytes(view[at : at + 2], "big")
        ):
            cipher.decrypt_into(nonce(number), view[at + 2 : at + 2 + size], None, plain)
            number += 1
            total += size - TAG
            at += 2 + size
        buffer[: held - at] = buffer[at:held]
        held -= at
    return total


def receive(how: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        sock, _ = listener.accept()
        began = time.perf_counter()
        with sock:
            total = (receive_aead if how == "aead" else receive_tcp)(sock)
        took = time.perf_counter() - began
    print(json.dumps({"bytes": total, "seconds": took, "cpu": time.process_time()}))


def send(how: str, port: str, seconds: str) -> None:
    with socket.create_connection(("127.0.0.1", int(port))) as sock:
        until = time.perf_counter() + float(seconds)
        (send_aead if how == "aead" else send_tcp)(sock, until)
    print(json.dumps({"cpu": time.process_time()}))


async def one_bound(how: str, seconds: float) -> Run:
    """MB/s of payload and CPU ms per MB; start-up is in neither's window, but in its CPU."""
    program = [sys.executable, "-m", "tests.bench.bounds"]
    spawn = partial(trio.run_process, capture_stdout=True, check=False, cwd=ROOT)
    process = await trio.lowlevel.open_process(
        [*program, "receive", how], stdout=subprocess.PIPE, cwd=ROOT
    )
    assert process.stdout is not None
    try:
        port = (await process.stdout.receive_some()).decode().strip()
        sent = json.loads((await spawn([*program, "send", how, port, str(seconds)])).stdout)
        told = b""
        async for data in process.stdout:
            told += data
        got = json.loads(told)
    except ValueError as error:
        raise PeerError(f"the {how} bound did not tell: {error}") from error
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            await process.stdout.aclose()
    megabytes = got["bytes"] / 1e6
    return {
        "mb_s": megabytes / got["seconds"],
        "send_ms_mb": sent["cpu"] * 1000 / megabytes,
        "receive_ms_mb": got["cpu"] * 1000 / megabytes,
    }


async def bounds(settings: Settings, cells: Cells) -> None:
    for _ in range(settings.rounds):
        for how in ("tcp", "aead"):
            body = partial(one_bound, how, settings.seconds)
            await cells.attempt(settings.seconds + 20, body, bound=how)


if __name__ == "__main__":
    if sys.argv[1] == "send":
        send(*sys.argv[2:])
    else:
        receive(*sys.argv[2:])
