"""Stored values: what goes in comes out, and rubbish is told from records."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.addresses.codec import MAX_VALUE, VERSION, CodecError, decode, encode
from appliance.addresses.model import (
    MAX_ADDRESSES,
    MAX_FAILURES,
    MAX_PEER_ID,
    MAX_RELAYS,
    MAX_TEXT,
    MAX_TIME,
    PeerRecord,
    Source,
)

texts = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=MAX_TEXT)
times = st.integers(0, MAX_TIME)
records = st.builds(
    PeerRecord,
    peer_id=st.from_regex(rf"[0-9A-Za-z]{{1,{MAX_PEER_ID}}}", fullmatch=True),
    addresses=st.lists(texts, max_size=MAX_ADDRESSES).map(tuple),
    relays=st.lists(texts, max_size=MAX_RELAYS).map(tuple),
    is_relay=st.booleans(),
    last_seen=times,
    last_success=times,
    last_failure=times,
    failures=st.integers(0, MAX_FAILURES),
    source=st.sampled_from(Source),
)


@given(records)
def test_a_record_comes_back_as_it_was(record: PeerRecord) -> None:
    value = encode(record)
    assert len(value) <= MAX_VALUE
    assert decode(record.peer_id.encode(), value) == record


def test_the_largest_record_fits() -> None:
    largest = PeerRecord(
        "a" * MAX_PEER_ID, ('"' * MAX_TEXT,) * MAX_ADDRESSES, ("\\" * MAX_TEXT,) * MAX_RELAYS
    )
    assert len(encode(largest)) <= MAX_VALUE
    assert decode(largest.peer_id.encode(), encode(largest)) == largest


@given(st.binary(max_size=64), st.binary(max_size=256))
def test_any_bytes_are_a_record_or_a_codec_error(key: bytes, value: bytes) -> None:
    for candidate in (value, bytes([VERSION]) + value):
        try:
            decode(key, candidate)
        except CodecError:
            continue


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\x02{}",
        b"\x01",
        b"\x01[]",
        b'\x01{"source":"rumour"}',
        b'\x01{"source":"met","addresses":"/ip4"}',
        b'\x01{"source":"met","addresses":[1]}',
        b'\x01{"source":"met","addresses":["a\\u001bb"]}',
        b'\x01{"source":"met","failures":true}',
        b'\x01{"source":"met","failures":-1}',
        b'\x01{"source":"met","last_seen":1e400}',
        b'\x01{"source":"met","last_seen":' + b"9" * 5000 + b"}",
        b"\x01" + b"[" * 10_000,
        b"\x01" + b" " * MAX_VALUE + b'{"source":"met"}',
        b'\x01{"source":"met","relays":' + str(["r"] * 9).replace("'", '"').encode() + b"}",
    ],
)
def test_rubbish_is_refused(value: bytes) -> None:
    with pytest.raises(CodecError):
        decode(b"12D3KooW", value)


def test_fields_of_a_later_version_are_ignored() -> None:
    value = b'\x01{"source":"met","colour":"blue","is_relay":true}'
    assert decode(b"12D3KooW", value) == PeerRecord("12D3KooW", is_relay=True, source=Source.MET)
