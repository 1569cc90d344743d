"""multistream-select: golden lines, lazy proposals, every cut, refusals, nonsense."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import RemoteProtocolError
from appliance.reasons import Reason
from appliance.wire.multistream import HEADER, MAX_PROPOSALS, Dialler, Listener, line

HELLO = b"\x13/multistream/1.0.0\n"
NOISE = b"\x07/noise\n"
NA = b"\x03na\n"


def supports(protocol: str) -> bool:
    return protocol in ("/noise", "/b")


def test_lines_are_the_specifications() -> None:
    assert line(HEADER) == HELLO
    assert line("/noise") == NOISE
    assert line("na") == NA


def test_the_dialler_proposes_at_once_and_hears_the_answer() -> None:
    dialler = Dialler("/noise")
    assert dialler.to_send == HELLO + NOISE
    assert dialler.receive(HELLO) is None
    assert dialler.receive(NOISE + b"first bytes") == b"first bytes"


@pytest.mark.parametrize("cut", range(len(HELLO + NOISE) + 3))
def test_the_dialler_does_not_mind_a_cut(cut: int) -> None:
    wire = HELLO + NOISE + b"xy"
    dialler = Dialler("/noise")
    first = dialler.receive(wire[:cut])
    second = dialler.receive(wire[cut:]) if first is None else wire[cut:]
    assert (first or b"") + (second or b"") == b"xy"


def test_a_refusal_names_the_protocol() -> None:
    dialler = Dialler("/noise")
    with pytest.raises(RemoteProtocolError) as caught:
        dialler.receive(HELLO + NA)
    assert caught.value.reason is Reason.UNSUPPORTED_PROTOCOL
    assert caught.value.detail == "/noise"


@pytest.mark.parametrize(
    "wire",
    [
        NA,  # refused before the greeting
        NOISE,
        HELLO + HELLO,
        HELLO + line("/other"),
        b"\x02na",
        HELLO + b"\x04\xff\xfe\xfd\n",
        b"\x00",
        b"\x81\x00",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
    ],
)
def test_the_dialler_refuses_nonsense(wire: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        Dialler("/noise").receive(wire + bytes(200))
    assert caught.value.reason in (Reason.MALFORMED_MESSAGE, Reason.MESSAGE_TOO_LARGE)


def test_the_listener_answers_line_by_line() -> None:
    listener = Listener(supports)
    assert listener.receive(HELLO) is None
    assert listener.data_to_send() == HELLO
    assert listener.receive(line("/a")) is None
    assert listener.data_to_send() == NA
    assert listener.receive(line("/b") + b"rest") == b"rest"
    assert listener.data_to_send() == line("/b")
    assert listener.protocol == "/b"


@pytest.mark.parametrize("cut", range(len(HELLO + NA + NOISE) + 3))
def test_the_listener_does_not_mind_a_cut(cut: int) -> None:
    wire = HELLO + line("/a") + NOISE + b"xyz"
    listener = Listener(supports)
    first = listener.receive(wire[:cut])
    second = listener.receive(wire[cut:]) if first is None else wire[cut:]
    assert (first or b"") + (second or b"") == b"xyz"
    assert listener.data_to_send() == HELLO + NA + NOISE


def test_a_listener_does_not_play_for_ever() -> None:
    listener = Listener(supports)
    listener.receive(HELLO)
    for _ in range(MAX_PROPOSALS - 1):
        listener.receive(line("ls"))
    with pytest.raises(RemoteProtocolError) as caught:
        listener.receive(line("ls"))
    assert caught.value.reason is Reason.UNSUPPORTED_PROTOCOL
    assert listener.data_to_send() == HELLO + NA * (MAX_PROPOSALS - 1)


def test_the_last_proposal_counts_as_well() -> None:
    listener = Listener(supports)
    listener.receive(HELLO + line("ls") * (MAX_PROPOSALS - 1))
    assert listener.receive(NOISE) == b""


@given(st.binary(max_size=200), st.booleans())
def test_noise_is_the_peers_fault(wire: bytes, greeted: bool) -> None:
    listener, dialler = Listener(supports), Dialler("/noise")
    for machine in (listener, dialler):
        try:
            machine.receive((HELLO if greeted else b"") + wire)
        except RemoteProtocolError as error:
            assert error.reason in (  # noqa: PT017 - either is right
                Reason.MALFORMED_MESSAGE,
                Reason.MESSAGE_TOO_LARGE,
                Reason.UNSUPPORTED_PROTOCOL,
            )


def test_dialler_and_listener_understand_each_other() -> None:
    dialler, listener = Dialler("/b"), Listener(supports)
    assert listener.receive(dialler.to_send + b"early data") == b"early data"
    assert dialler.receive(listener.data_to_send() + b"reply") == b"reply"
