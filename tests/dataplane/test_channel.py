"""Noise's transport phase: against the library's, cut anywhere, garbled, and at its last nonce."""

from __future__ import annotations

import random

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from noise.connection import NoiseConnection
from noise.state import CipherState as LibraryState
from trio.testing import MockClock

from appliance.dataplane.buffers import SIZE
from appliance.dataplane.channel import (
    LAST_NONCE,
    MAX_MESSAGE,
    MAX_PLAINTEXT,
    PREFIX,
    TAG,
    CipherState,
    SecureChannel,
)
from appliance.dataplane.secure import SecureStream
from appliance.dataplane.session import Session
from appliance.dataplane.streams import BATCH
from appliance.errors import LocalProtocolError, RemoteProtocolError, StreamReset
from appliance.reasons import Reason
from tests.dataplane.carriers import carrier_pair
from tests.dataplane.sessions import End, assert_over, outcome_of, settle

PAYLOAD = random.Random(9).randbytes(BATCH)
KEY, OTHER_KEY = random.Random(1).randbytes(32), random.Random(2).randbytes(32)
NONCES = [0, 1, 255, 2**32 - 1, 2**32, 2**64 - 3, LAST_NONCE]
SIZES = [0, 1, 15, 16, 17, 1000, MAX_PLAINTEXT]


def library(key: bytes, nonce: int) -> LibraryState:
    name = b"Noise_XX_25519_ChaChaPoly_SHA256"
    state = LibraryState(NoiseConnection.from_name(name).noise_protocol)
    state.initialize_key(key)
    state.set_nonce(nonce)
    return state


def channels(nonce: int = 0) -> tuple[SecureChannel, SecureChannel]:
    """Both ends, each direction with a key of its own."""
    return (
        SecureChannel(CipherState(KEY, nonce), CipherState(OTHER_KEY, nonce)),
        SecureChannel(CipherState(OTHER_KEY, nonce), CipherState(KEY, nonce)),
    )


def sealed(channel: SecureChannel, plain: bytes) -> bytes:
    out = memoryview(bytearray(SIZE))
    return bytes(out[: channel.seal(memoryview(plain), out)])


def opened(channel: SecureChannel, wire: bytes, room: int = BATCH) -> tuple[int, bytes]:
    """Bytes consumed, and the plaintext. Nothing is written behind it."""
    out = memoryview(bytearray(b"\xaa" * (room + 1)))
    consumed, size = channel.open(memoryview(wire), out[:room])
    assert out[room] == 0xAA
    return consumed, bytes(out[:size])


# --- against the library's


@pytest.mark.parametrize("nonce", NONCES)
@pytest.mark.parametrize("size", SIZES)
def test_what_we_seal_is_what_the_library_seals(nonce: int, size: int) -> None:
    plain = memoryview(PAYLOAD[:size])
    theirs = library(KEY, nonce)
    out = memoryview(bytearray(size + TAG))
    ours = CipherState(KEY, nonce)
    assert ours.seal_into(plain, out) == size + TAG
    assert bytes(out) == theirs.encrypt_with_ad(b"", bytes(plain))
    assert ours.nonce == theirs.n == nonce + 1


@pytest.mark.parametrize("nonce", NONCES)
@pytest.mark.parametrize("size", SIZES)
def test_what_the_library_seals_we_open(nonce: int, size: int) -> None:
    message = library(KEY, nonce).encrypt_with_ad(b"", PAYLOAD[:size])
    out = memoryview(bytearray(size))
    ours = CipherState(KEY, nonce)
    assert ours.open_into(memoryview(message), out) == size
    assert bytes(out) == PAYLOAD[:size] and ours.nonce == nonce + 1


def test_both_directions_over_many_messages_in_turn() -> None:
    theirs_in, theirs_out = library(KEY, 0), library(OTHER_KEY, 0)
    ours, _ = channels()
    for size in (5, 0, 300, MAX_PLAINTEXT, 1):
        wire = sealed(ours, PAYLOAD[:size])
        assert wire == b"" or theirs_in.decrypt_with_ad(b"", wire[PREFIX:]) == PAYLOAD[:size]
        message = theirs_out.encrypt_with_ad(b"", PAYLOAD[:size])
        framed = len(message).to_bytes(PREFIX, "big") + message
        assert opened(ours, framed) == (len(framed), PAYLOAD[:size])


# --- messages in a stream of bytes


@pytest.mark.parametrize("size", [0, 1, MAX_PLAINTEXT, MAX_PLAINTEXT + 1, 3 * 65_536, BATCH])
def test_no_message_is_larger_than_noise_allows(size: int) -> None:
    one, other = channels()
    wire = sealed(one, PAYLOAD[:size])
    lengths, position = [], 0
    while position < len(wire):
        lengths.append(int.from_bytes(wire[position : position + PREFIX], "big"))
        position += PREFIX + lengths[-1]
    assert position == len(wire) <= SIZE
    assert lengths == [MAX_MESSAGE] * (size // MAX_PLAINTEXT) + [
        size % MAX_PLAINTEXT + TAG for _ in range(bool(size % MAX_PLAINTEXT))
    ]
    assert opened(other, wire) == (len(wire), PAYLOAD[:size])


WIRE_SIZES = [0, 1, 2, 3, 40, 0, 7]


def test_every_cut_of_the_wire_means_the_same() -> None:
    parts = [PAYLOAD[at : at + size] for at, size in enumerate(WIRE_SIZES)]
    library_state = library(KEY, 0)
    wire = b""
    for part in parts:
        message = library_state.encrypt_with_ad(b"", part)
        wire += len(message).to_bytes(PREFIX, "big") + message
    for first in range(len(wire) + 1):
        for second in {first, first + 1, first + TAG, (first + len(wire)) // 2}:
            _, channel = channels()
            kept, plain = b"", b""
            for piece in (wire[:first], wire[first:second], wire[second:]):
                kept += piece
                consumed, more = opened(channel, kept)
                kept, plain = kept[consumed:], plain + more
            assert plain == b"".join(parts) and kept == b""


@settings(max_examples=40)
@given(
    sizes=st.lists(st.one_of(st.integers(0, 100), st.integers(0, 70_000)), max_size=4),
    cuts=st.lists(st.integers(500, 70_000), min_size=1, max_size=8),
    room=st.integers(MAX_PLAINTEXT, 3 * MAX_PLAINTEXT),
)
def test_no_byte_is_lost_between_pieces_of_any_size_and_buffers_of_any_room(
    sizes: list[int], cuts: list[int], room: int
) -> None:
    one, other = channels()
    wire = b"".join(sealed(one, PAYLOAD[:size]) for size in sizes)
    kept, plain, turn = b"", b"", 0
    while wire or kept:
        cut, turn = cuts[turn % len(cuts)], turn + 1
        kept, wire = kept + wire[:cut], wire[cut:]
        progress = True
        while progress:
            consumed, more = opened(other, kept, room)
            kept, plain, progress = kept[consumed:], plain + more, consumed > 0
        assert wire or not kept
    assert plain == b"".join(PAYLOAD[:size] for size in sizes)


def test_a_buffer_without_room_gets_no_part_of_a_message() -> None:
    one, other = channels()
    wire = sealed(one, PAYLOAD[:100]) + sealed(one, PAYLOAD[:50])
    assert opened(other, wire, 149) == (PREFIX + 100 + TAG, PAYLOAD[:100])


# --- what does not authenticate


@pytest.mark.parametrize("position", range(PREFIX, PREFIX + 5 + TAG))
@pytest.mark.parametrize("bit", [0, 7])
def test_no_changed_bit_is_accepted(position: int, bit: int) -> None:
    one, other = channels()
    wire = bytearray(sealed(one, b"hello"))
    wire[position] ^= 1 << bit
    with pytest.raises(RemoteProtocolError) as caught:
        opened(other, bytes(wire))
    assert caught.value.reason is Reason.NOISE_VIOLATION


@pytest.mark.parametrize("length", range(TAG))
def test_a_message_shorter_than_its_tag_is_a_violation(length: int) -> None:
    _, other = channels()
    with pytest.raises(RemoteProtocolError, match="shorter than its tag"):
        opened(other, length.to_bytes(PREFIX, "big") + bytes(length))


@pytest.mark.parametrize("order", [(1, 0), (0, 0), (1, 1)], ids=["swapped", "replayed", "skipped"])
def test_the_order_of_messages_is_authentic_too(order: tuple[int, int]) -> None:
    one, other = channels()
    messages = [sealed(one, b"first"), sealed(one, b"second")]
    with pytest.raises(RemoteProtocolError):
        opened(other, messages[order[0]] + messages[order[1]])


def test_our_own_messages_do_not_come_back() -> None:
    one, _ = channels()
    with pytest.raises(RemoteProtocolError):
        opened(one, sealed(one, b"hello"))


# --- the last nonce


def test_the_last_nonce_is_used_and_the_one_behind_it_is_not() -> None:
    one, other = channels(LAST_NONCE)
    wire = sealed(one, b"goodbye")
    assert opened(other, wire)[1] == b"goodbye"
    with pytest.raises(LocalProtocolError) as ours:
        sealed(one, b"x")
    assert ours.value.reason is Reason.NOISE_VIOLATION
    with pytest.raises(RemoteProtocolError) as theirs:
        opened(other, wire)
    assert theirs.value.reason is Reason.NOISE_VIOLATION
    assert sealed(other, b"the other direction") != b"", "it has a nonce of its own"


def test_a_batch_of_several_messages_stops_at_the_last_nonce() -> None:
    one, _ = channels(LAST_NONCE - 1)
    assert sealed(one, PAYLOAD[: 2 * MAX_PLAINTEXT])
    one, _ = channels(LAST_NONCE)
    with pytest.raises(LocalProtocolError):
        sealed(one, PAYLOAD[: MAX_PLAINTEXT + 1])


async def test_a_stream_whose_nonces_are_used_up_is_over(autojump_clock: MockClock) -> None:
    left, right = carrier_pair()
    ours, theirs = channels(LAST_NONCE)
    one, other = SecureStream(left, ours), SecureStream(right, theirs)
    await one.send_all(b"goodbye")
    assert await other.receive_some() == b"goodbye"
    for _ in range(2):
        with pytest.raises(StreamReset):
            await one.send_all(b"x")
        with pytest.raises(StreamReset):
            one.send_nowait(memoryview(b"x"))
    assert left.was_reset
    with pytest.raises(StreamReset):
        await other.receive_some()


async def test_a_connection_whose_nonces_are_used_up_ends(autojump_clock: MockClock) -> None:
    left, right = carrier_pair()
    ours, theirs = channels(LAST_NONCE - 1)
    ends = (
        End(left, Session(SecureStream(left, ours), client=True)),
        End(right, Session(SecureStream(right, theirs), client=False)),
    )
    async with trio.open_nursery() as nursery:
        for end in ends:
            nursery.start_soon(end.run)
        stream = ends[0].session.open_stream()
        await stream.send_all(b"the last message")
        there = await ends[1].accept()
        assert await there.receive_some() == b"the last message"

        async def use_up() -> None:
            for _ in range(3):  # an answer to a ping may have used one too
                await stream.send_all(b"one too many")

        async with outcome_of(stream.receive_some) as outcome:
            with pytest.raises(StreamReset):
                await use_up()
        assert isinstance(outcome[0], StreamReset)
        await settle()
    assert [end.reason for end in ends] == [Reason.CONNECTION_LOST] * 2
    assert_over(*(end.session for end in ends))


async def test_a_peer_that_uses_one_nonce_too_many_is_a_violator(
    autojump_clock: MockClock,
) -> None:
    carrier, raw = carrier_pair()
    channel = SecureChannel(CipherState(KEY), CipherState(OTHER_KEY, LAST_NONCE))
    end = End(carrier, Session(SecureStream(carrier, channel), client=True))
    state = library(OTHER_KEY, LAST_NONCE)
    for nonce in (LAST_NONCE, LAST_NONCE + 1):
        message = state.cipher.encrypt(state.k, nonce, b"", b"")
        await raw.send_all(len(message).to_bytes(PREFIX, "big") + message)
    await end.run()
    assert end.reason is Reason.NOISE_VIOLATION
    assert end.session.closed_detail == "the nonces are exhausted"
