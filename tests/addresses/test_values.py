"""Stored values: what goes in comes out, and rubbish is told from records."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.addresses import legacy
from appliance.addresses.fields import MAX_VALUE, CodecError, Tag, decode, encode
from appliance.addresses.keys import KEY_SIZE
from appliance.addresses.model import (
    MAX_ADDRESSES,
    MAX_ENVELOPE,
    MAX_FAILURES,
    MAX_PEER_ID,
    MAX_RELAYS,
    MAX_TEXT,
    MAX_TIME,
    Capability,
    PeerRecord,
    RelayRole,
    Source,
)
from appliance.addresses.rows import CORE
from appliance.addresses.values import (
    AddressValue,
    core_of,
    decode_address,
    decode_ban,
    decode_capability,
    encode_address,
    encode_capability,
    texts_of,
    with_core,
)

texts = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=MAX_TEXT)
ids = st.from_regex(rf"[0-9A-Za-z]{{1,{MAX_PEER_ID}}}", fullmatch=True)
times = st.integers(0, MAX_TIME)
records = st.builds(
    PeerRecord,
    peer_id=ids,
    addresses=st.lists(texts, max_size=MAX_ADDRESSES).map(tuple),
    relays=st.lists(texts, max_size=MAX_RELAYS).map(tuple),
    is_relay=st.booleans(),
    last_seen=times,
    last_success=times,
    last_failure=times,
    failures=st.integers(0, MAX_FAILURES),
    source=st.sampled_from(Source),
)
cores = st.binary(min_size=CORE.size, max_size=CORE.size)
capabilities = st.builds(
    Capability,
    peer_id=st.one_of(st.just(""), ids),
    relay_port=st.integers(0, 65535),
    capacity=st.integers(0, 2**32 - 1),
    role=st.sampled_from(RelayRole),
    who=texts,
    heard=times,
    expires=times,
    signed=st.just(True),
    confirmed=times,
    hint=st.one_of(st.just(""), texts),
    seq=st.integers(0, 2**64 - 1),
    envelope=st.binary(min_size=1, max_size=MAX_ENVELOPE),
    addresses=st.lists(st.binary(min_size=KEY_SIZE, max_size=KEY_SIZE), max_size=MAX_ADDRESSES).map(
        tuple
    ),
)


@given(records)
def test_a_record_of_version_1_comes_back_as_it_was(record: PeerRecord) -> None:
    value = legacy.encode(record)
    assert len(value) <= legacy.MAX_VALUE
    assert legacy.decode(record.peer_id.encode(), value) == record


@given(cores, texts, times, st.one_of(st.just(""), ids), cores)
def test_an_address_comes_back_as_it_was(
    core: bytes, who: str, heard: int, peer_id: str, other: bytes
) -> None:
    value = AddressValue(core, who, heard, peer_id)
    stored = encode_address(value)
    assert decode_address(stored) == value
    assert core_of(stored) == core
    assert decode_address(with_core(stored, other)) == value._replace(core=other)


@given(capabilities, st.lists(texts, max_size=MAX_RELAYS))
def test_a_capability_comes_back_as_it_was(found: Capability, others: list[str]) -> None:
    value = encode_capability(found, tuple(others))
    assert decode_capability(value) == found
    assert texts_of(value) == tuple(others)


def test_a_field_of_a_later_version_is_skipped() -> None:
    value = encode_address(AddressValue(bytes(CORE.size), "11.0.0.1", 5)) + b"\xc8\x03\x00new"
    assert decode_address(value).who == "11.0.0.1"
    core_last = encode([(Tag.WHO, b"x"), (Tag.CORE, bytes(CORE.size))])
    assert decode_address(core_last).who == "x"
    assert core_of(core_last) == bytes(CORE.size)
    assert decode_address(with_core(core_last, b"\1" * CORE.size)).core == b"\1" * CORE.size


@pytest.mark.parametrize(
    "value",
    [b"", b"\x01{}", b"\x03", b"\x02\x01", b"\x02\x01\x09\x00short", b"\x02" + b"x" * MAX_VALUE],
)
def test_rubbish_is_told(value: bytes) -> None:
    with pytest.raises(CodecError):
        decode(value)


def test_what_would_not_be_read_is_not_written() -> None:
    with pytest.raises(CodecError):
        encode([(Tag.ENVELOPE, bytes(MAX_VALUE))])
    with pytest.raises(CodecError):
        encode([(Tag.ENVELOPE, bytes(70_000))])


@given(st.one_of(st.binary(max_size=300), st.binary(max_size=300).map(lambda b: b"\x02" + b)))
def test_any_bytes_are_a_value_or_a_codec_error(value: bytes) -> None:
    for parse in (
        decode_address,
        decode_capability,
        core_of,
        texts_of,
        lambda value: decode_ban(value[:17], value),
        lambda value: legacy.decode(value[:9], value),
    ):
        with contextlib.suppress(CodecError):
            parse(value)


def test_an_empty_envelope_signs_nothing() -> None:
    """Found by the fuzz target: it was read as signed, and written back as unsigned."""
    found = decode_capability(encode([(Tag.ENVELOPE, b""), (Tag.SEQ, (5).to_bytes(8, "little"))]))
    assert not found.signed
    assert decode_capability(encode_capability(found)) == found
