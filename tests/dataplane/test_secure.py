"""Noise frames over a carrier: whole, cut, truncated, garbled, oversized, empty."""

from __future__ import annotations

import random

import pytest
import trio
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from trio.testing import MockClock

from appliance.dataplane.secure import MAX_PLAINTEXT, SecureStream
from appliance.errors import StreamReset
from tests.dataplane.carriers import MemoryCarrier, carrier_pair
from tests.dataplane.sessions import read_to_end

PAYLOAD = random.Random(8).randbytes(300_000)


class Cipher:
    """One direction of noise's transport phase: a key and a nonce that counts."""

    def __init__(self, key: bytes) -> None:
        self._aead = ChaCha20Poly1305(key)
        self._nonce = 0

    def _next(self) -> bytes:
        self._nonce += 1
        return bytes(4) + (self._nonce - 1).to_bytes(8, "little")

    def seal(self, plain: bytes) -> bytes:
        return self._aead.encrypt(self._next(), plain, None)

    def open(self, sealed: bytes) -> bytes:
        return self._aead.decrypt(self._next(), sealed, None)


ONE, OTHER = bytes(32), bytes([1]) * 32


def channels(
    *, segments: list[int] | None = None, leftover: bytes = b""
) -> tuple[SecureStream, SecureStream, MemoryCarrier, MemoryCarrier]:
    left, right = carrier_pair(segments=segments)
    return (
        SecureStream(left, encrypt=Cipher(ONE).seal, decrypt=Cipher(OTHER).open, broken=InvalidTag),
        SecureStream(
            right,
            encrypt=Cipher(OTHER).seal,
            decrypt=Cipher(ONE).open,
            broken=InvalidTag,
            leftover=leftover,
        ),
        left,
        right,
    )


def framed(message: bytes) -> bytes:
    return len(message).to_bytes(2, "big") + message


@pytest.mark.parametrize("segments", [None, [1], [2, 16, 1, 65_535, 3]], ids=str)
async def test_bytes_arrive_however_they_are_cut(
    autojump_clock: MockClock, segments: list[int] | None
) -> None:
    one, other, _, _ = channels(segments=segments)
    payload = PAYLOAD if segments != [1] else PAYLOAD[:3000]
    async with trio.open_nursery() as nursery:

        async def send() -> None:
            await one.send_all(payload[:1])
            await one.send_all(b"")
            await one.send_all(payload[1:])
            await one.send_eof()

        nursery.start_soon(send)
        assert await read_to_end(other) == payload


@pytest.mark.parametrize("size", [1, MAX_PLAINTEXT, MAX_PLAINTEXT + 1, 2 * MAX_PLAINTEXT])
async def test_messages_are_as_large_as_noise_allows(autojump_clock: MockClock, size: int) -> None:
    one, other, _, carrier = channels()
    await one.send_all(bytes(size))
    wire = bytes(carrier._in.buffer)
    assert int.from_bytes(wire[:2], "big") == min(size, MAX_PLAINTEXT) + 16
    assert len(wire) == size + 18 * -(-size // MAX_PLAINTEXT)
    await one.send_eof()
    assert await read_to_end(other) == bytes(size)


async def test_what_came_with_the_handshake_is_read_first(autojump_clock: MockClock) -> None:
    cipher = Cipher(ONE)
    first = framed(cipher.seal(b"early ")) + framed(cipher.seal(b"bird"))
    _, other, left, _ = channels(leftover=first[:-3])
    assert await other.receive_some() == b"early "
    await left.send_all(first[-3:])
    assert await other.receive_some(3) == b"bir"
    assert await other.receive_some() == b"d"


async def test_empty_messages_are_no_end_of_file(autojump_clock: MockClock) -> None:
    cipher = Cipher(ONE)
    _, other, left, _ = channels()
    await left.send_all(framed(cipher.seal(b"")) * 1 + framed(cipher.seal(b"")))
    await left.send_all(framed(cipher.seal(b"at last")))
    assert await other.receive_some() == b"at last"


def _garbled(position: int) -> bytes:
    wire = bytearray(framed(Cipher(ONE).seal(b"hello")))
    wire[position] ^= 1
    return bytes(wire)


BROKEN = {
    "a changed byte": _garbled(4),
    "a changed tag": _garbled(-1),
    "a longer length": _garbled(1) + bytes(70_000),
    "no tag at all": framed(b""),
    "half a tag": framed(bytes(15)),
    "noise of the largest size": framed(bytes(65_535)),
    "a message of another key": framed(Cipher(OTHER).seal(b"hello")),
}


@pytest.mark.parametrize("wire", BROKEN.values(), ids=BROKEN)
async def test_what_does_not_authenticate_ends_it_for_good(
    autojump_clock: MockClock, wire: bytes
) -> None:
    _, other, left, right = channels()
    await left.send_all(wire)
    for _ in range(3):
        with trio.fail_after(1), pytest.raises(StreamReset):
            await other.receive_some()
    assert right.was_reset
    with pytest.raises(StreamReset):
        await other.send_all(b"x")


async def test_good_bytes_in_front_of_bad_ones_do_not_come_later(
    autojump_clock: MockClock,
) -> None:
    _, other, left, _ = channels()
    await left.send_all(framed(Cipher(ONE).seal(b"good")) + framed(bytes(16)))
    for _ in range(2):
        with pytest.raises(StreamReset):
            await other.receive_some()


@pytest.mark.parametrize("cut", [1, 2, 3, 22])
async def test_an_end_inside_a_message_is_not_an_end_of_file(
    autojump_clock: MockClock, cut: int
) -> None:
    _, other, left, right = channels()
    await left.send_all(framed(Cipher(ONE).seal(b"hello"))[:cut])
    await left.send_eof()
    for _ in range(2):
        with pytest.raises(StreamReset):
            await other.receive_some()
    assert right.was_reset


async def test_a_cancelled_receive_loses_nothing(autojump_clock: MockClock) -> None:
    one, other, _, _ = channels(segments=[7])
    got = b""
    async with trio.open_nursery() as nursery:

        async def send() -> None:
            for at in range(0, 2000, 50):
                await one.send_all(PAYLOAD[at : at + 50])
                await trio.sleep(0.3)
            await one.send_eof()

        nursery.start_soon(send)
        while True:
            with trio.move_on_after(0.1) as scope:
                data = await other.receive_some(20)
            if scope.cancelled_caught:
                continue
            if not data:
                break
            got += data
    assert got == PAYLOAD[:2000]


async def test_closing_and_resetting_are_the_carriers(autojump_clock: MockClock) -> None:
    one, other, left, _ = channels()
    await one.aclose()
    assert await other.receive_some() == b""
    one.reset()
    assert left.was_reset
