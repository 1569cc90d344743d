"""Noise frames over a carrier: whole, cut, truncated, garbled, oversized, empty."""

from __future__ import annotations

import random

import pytest
import trio
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from trio.testing import MockClock

from appliance.dataplane.channel import MAX_PLAINTEXT, CipherState, SecureChannel
from appliance.dataplane.secure import SecureStream
from appliance.dataplane.streams import BATCH
from appliance.errors import RemoteProtocolError, StreamReset
from appliance.reasons import Reason
from tests.dataplane.carriers import MemoryCarrier, carrier_pair
from tests.dataplane.sessions import read_to_end

PAYLOAD = random.Random(8).randbytes(300_000)


class Cipher:
    """One direction of noise's transport phase, apart from ours: a key and a counting nonce."""

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
        SecureStream(left, SecureChannel(CipherState(ONE), CipherState(OTHER))),
        SecureStream(right, SecureChannel(CipherState(OTHER), CipherState(ONE)), leftover=leftover),
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


# --- driven without waiting


def taken(stream: SecureStream) -> bytes:
    """What is there, taken at once; trio.WouldBlock if nothing is."""
    into = memoryview(bytearray(BATCH))
    return bytes(into[: stream.receive_nowait(into)])


async def test_all_that_is_there_is_opened_in_one_pass(autojump_clock: MockClock) -> None:
    one, other, _, carrier = channels()
    with pytest.raises(trio.WouldBlock):
        taken(other)
    for at in range(0, 100_000, 1000):
        one.send_nowait(memoryview(PAYLOAD)[at : at + 1000])
    await other.wait_receivable()
    assert taken(other) == PAYLOAD[:100_000] and carrier.unread == 0
    await one.send_eof()
    assert taken(other) == taken(other) == b""


async def test_driving_and_receiving_may_follow_each_other(autojump_clock: MockClock) -> None:
    """The upgrade receives as a byte stream; what it left is what the driver gets first."""
    one, other, _, _ = channels()
    await one.send_all(PAYLOAD[:1000])
    assert await other.receive_some(300) == PAYLOAD[:300]
    await other.wait_receivable()
    into = memoryview(bytearray(BATCH))
    assert other.receive_nowait(into[:100]) == 100 and into[:100] == PAYLOAD[300:400]
    assert taken(other) == PAYLOAD[400:1000]
    with pytest.raises(trio.WouldBlock):
        taken(other)


@pytest.mark.parametrize("cut", [1, 2, 3, 17, 18, 22, 23, 24, 40])
async def test_a_leftover_that_is_cut_anywhere_is_read_first(
    autojump_clock: MockClock, cut: int
) -> None:
    cipher = Cipher(ONE)
    wire = framed(cipher.seal(b"early ")) + framed(cipher.seal(b"bird"))
    _, other, left, _ = channels(leftover=wire[:cut])
    await left.send_all(wire[cut:])
    got = b""
    while len(got) < 10:
        await other.wait_receivable()
        try:
            got += taken(other)
        except trio.WouldBlock:
            continue
    assert got == b"early bird"


@pytest.mark.parametrize("wire", BROKEN.values(), ids=BROKEN)
async def test_a_driver_learns_whose_fault_it_was(autojump_clock: MockClock, wire: bytes) -> None:
    _, other, left, right = channels()
    await left.send_all(wire)
    with pytest.raises(RemoteProtocolError) as caught:
        taken(other)
    assert caught.value.reason is Reason.NOISE_VIOLATION
    assert right.was_reset
    with trio.fail_after(1):
        await other.wait_receivable()
    with pytest.raises(StreamReset):
        taken(other)


async def test_an_end_inside_a_message_is_a_reset_for_a_driver_too(
    autojump_clock: MockClock,
) -> None:
    _, other, left, right = channels()
    await left.send_all(framed(Cipher(ONE).seal(b"hello"))[:-1])
    await left.send_eof()
    with pytest.raises(trio.WouldBlock):
        taken(other)
    for _ in range(2):
        with pytest.raises(StreamReset):
            taken(other)
    assert right.was_reset


async def test_a_batch_behind_the_first_part_of_a_message_is_taken_in_two(
    autojump_clock: MockClock,
) -> None:
    """The part that came before needs room in the buffer too."""
    cipher = Cipher(ONE)
    _, other, left, _ = channels()
    messages = [PAYLOAD[at : at + MAX_PLAINTEXT] for at in range(0, 300_000, MAX_PLAINTEXT)] * 2
    wire = b"".join(framed(cipher.seal(message)) for message in messages)
    await left.send_all(wire[:60_000])
    with pytest.raises(trio.WouldBlock):
        taken(other)
    await left.send_all(wire[60_000:])
    got = b""
    while len(got) < sum(map(len, messages)):
        got += taken(other)
    assert got == b"".join(messages)
