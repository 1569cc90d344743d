"""Varints and length prefixes: canonical, bounded, in any segmentation."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import RemoteProtocolError
from appliance.reasons import Reason
from appliance.wire.framing import MAX_MESSAGE, Deframer, decode_varint, encode_varint, frame

# By hand, from the unsigned-varint specification.
GOLDEN = {
    0: "00",
    1: "01",
    127: "7f",
    128: "8001",
    255: "ff01",
    300: "ac02",
    16384: "808001",
    2**63 - 1: "ffffffffffffffff7f",
}


@pytest.mark.parametrize(("value", "wire"), GOLDEN.items())
def test_golden_varints(value: int, wire: str) -> None:
    assert encode_varint(value).hex() == wire
    assert decode_varint(bytes.fromhex(wire)) == (value, len(wire) // 2)


@given(st.integers(0, 2**63 - 1), st.binary(max_size=4))
def test_varints_come_back(value: int, behind: bytes) -> None:
    wire = encode_varint(value)
    assert decode_varint(b"\xff" + wire + behind, 1) == (value, 1 + len(wire))
    for cut in range(len(wire)):
        assert decode_varint(wire[:cut]) is None


@pytest.mark.parametrize("value", [-1, 2**63])
def test_what_does_not_fit_is_our_mistake(value: int) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        encode_varint(value)


@pytest.mark.parametrize("wire", ["8000", "808000", "ff" * 9, "ff" * 9 + "01", "80" * 20])
def test_varints_that_are_not_canonical(wire: str) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        decode_varint(bytes.fromhex(wire))
    assert caught.value.reason is Reason.MALFORMED_MESSAGE


@given(st.lists(st.binary(max_size=300), max_size=5), st.integers(1, 64), st.binary(max_size=5))
def test_messages_come_out_however_they_went_in(
    messages: list[bytes], size: int, rest: bytes
) -> None:
    wire = b"".join(map(frame, messages)) + rest
    deframer = Deframer()
    got: list[bytes] = []
    for at in range(0, len(wire), size):
        deframer.feed(wire[at : at + size])
        while len(got) < len(messages) and (message := deframer.next_message()) is not None:
            got.append(message)
    while len(got) < len(messages) and (message := deframer.next_message()) is not None:
        got.append(message)
    assert got == messages
    assert deframer.take_rest() == rest
    assert deframer.take_rest() == b""


def test_a_message_may_be_as_large_as_allowed_and_no_larger() -> None:
    deframer = Deframer()
    deframer.feed(frame(bytes(MAX_MESSAGE)))
    assert deframer.next_message() == bytes(MAX_MESSAGE)
    deframer.feed(encode_varint(MAX_MESSAGE + 1))
    with pytest.raises(RemoteProtocolError) as caught:
        deframer.next_message()
    assert caught.value.reason is Reason.MESSAGE_TOO_LARGE
