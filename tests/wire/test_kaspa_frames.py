"""gRPC's framing: cut anywhere, compressed or not, within its bound."""

from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import RemoteProtocolError
from appliance.reasons import Reason
from appliance.wire.grpc_frames import FrameDecoder, encode


def packed(message: bytes) -> bytes:
    """As tonic sends it when the headers said gzip."""
    body = gzip.compress(message)
    return b"\1" + len(body).to_bytes(4, "big") + body


def decoded(decoder: FrameDecoder, data: bytes) -> list[bytes]:
    decoder.feed(data)
    return list(iter(decoder.next_message, None))


def test_the_prefix_is_a_flag_and_a_length() -> None:
    assert encode(b"abc") == b"\0\0\0\0\3abc"


@given(st.lists(st.tuples(st.binary(max_size=200), st.booleans())), st.integers(1, 50))
def test_messages_come_out_however_they_are_cut(
    messages: list[tuple[bytes, bool]], step: int
) -> None:
    stream = b"".join(packed(body) if small else encode(body) for body, small in messages)
    decoder = FrameDecoder(gzip=True)
    out: list[bytes] = []
    for at in range(0, len(stream), step):
        out += decoded(decoder, stream[at : at + step])
    decoder.end()
    assert out == [body for body, _ in messages]


def test_compression_that_was_not_announced_is_refused() -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        decoded(FrameDecoder(), packed(b"abc"))
    assert caught.value.reason is Reason.MALFORMED_MESSAGE
    with pytest.raises(RemoteProtocolError):
        decoded(FrameDecoder(gzip=True), b"\2\0\0\0\0")


def test_a_large_message_is_refused_from_its_prefix_alone() -> None:
    decoder = FrameDecoder(max_message=100)
    assert decoded(decoder, encode(bytes(100))) == [bytes(100)]
    with pytest.raises(RemoteProtocolError) as caught:
        decoded(decoder, encode(bytes(101))[:5])
    assert caught.value.reason is Reason.MESSAGE_TOO_LARGE


def test_a_gzip_bomb_is_refused() -> None:
    limit = 100_000
    assert decoded(FrameDecoder(max_message=limit, gzip=True), packed(bytes(limit)))
    with pytest.raises(RemoteProtocolError) as caught:
        decoded(FrameDecoder(max_message=limit, gzip=True), packed(bytes(limit + 1)))
    assert caught.value.reason is Reason.MESSAGE_TOO_LARGE


@pytest.mark.parametrize(
    "body", [b"", b"no gzip", gzip.compress(b"x" * 99)[:-1], gzip.compress(b"x") + b"y"]
)
def test_bad_gzip_is_refused(body: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        decoded(FrameDecoder(gzip=True), b"\1" + len(body).to_bytes(4, "big") + body)
    assert caught.value.reason is Reason.MALFORMED_MESSAGE


def test_an_end_inside_a_message_is_refused() -> None:
    decoder = FrameDecoder()
    decoder.feed(encode(b"abc")[:-1])
    assert decoder.next_message() is None
    with pytest.raises(RemoteProtocolError):
        decoder.end()


@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_give_messages_or_a_fault(data: bytes, compressed: bool) -> None:
    decoder = FrameDecoder(max_message=64, gzip=compressed)
    try:
        out = decoded(decoder, data)
    except RemoteProtocolError:
        return
    assert all(len(message) <= 64 for message in out)


def test_zlib_without_the_gzip_header_is_refused() -> None:
    body = zlib.compress(b"abc")
    with pytest.raises(RemoteProtocolError):
        decoded(FrameDecoder(gzip=True), b"\1" + len(body).to_bytes(4, "big") + body)
