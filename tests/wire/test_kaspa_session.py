"""The Kaspa machine: what a peer sees of it, and what it takes from a peer."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from dataclasses import replace
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import LocalProtocolError, RemoteProtocolError
from appliance.reasons import Reason
from appliance.wire import kaspa_codec, kaspa_events
from appliance.wire.kaspa import LIBP2P_TIMEOUTS, MAX_HELD_MESSAGES, KaspaSession, Timeouts
from appliance.wire.kaspa_messages import (
    Addresses,
    Message,
    NetAddress,
    Opaque,
    Payload,
    Ping,
    Pong,
    Ready,
    Reject,
    RequestAddresses,
    Verack,
    Version,
)
from appliance.wire.kaspa_states import TABLE, State

OURS = Version(
    protocol_version=10,
    network="kaspa-simnet",
    peer_id=b"a" * 16,
    user_agent="/ours/",
    timestamp_ms=1,
)
THEIRS = replace(OURS, peer_id=b"b" * 16, user_agent="/theirs/")
ADDRESS = NetAddress(ip=IPv4Address("203.0.113.7"), port=16111)


def said(session: KaspaSession) -> list[Payload]:
    return [kaspa_codec.decode(data).payload for data in session.messages_to_send()]


def hear(session: KaspaSession, *payloads: Payload, now: float = 0.0) -> list[kaspa_events.Event]:
    events: list[kaspa_events.Event] = []
    for payload in payloads:
        events += session.receive(kaspa_codec.encode(Message(payload)), now)
    return events


def started(version: Version = OURS, timeouts: Timeouts | None = None) -> KaspaSession:
    session = KaspaSession(version, rng=random.Random(1), timeouts=timeouts)
    session.start(0.0)
    return session


def opened() -> KaspaSession:
    session = started()
    hear(session, THEIRS, Verack())
    session.accept(0.0)
    hear(session, Ready(), Addresses(()))
    session.messages_to_send()
    return session


def fault(session: KaspaSession, *payloads: Payload, now: float = 0.0) -> RemoteProtocolError:
    with pytest.raises(RemoteProtocolError) as caught:
        hear(session, *payloads, now=now)
    assert session.state is State.CLOSED
    assert session.next_deadline == math.inf
    return caught.value


def exchange(sides: Iterable[tuple[KaspaSession, KaspaSession]]) -> list[kaspa_events.Event]:
    """Carry messages between two machines, accepting whoever comes, until both are silent."""
    events: list[kaspa_events.Event] = []
    pairs = list(sides)
    moved = True
    while moved:
        moved = False
        for source, sink in pairs:
            for data in source.messages_to_send():
                moved = True
                for event in sink.receive(data, 1.0):
                    events.append(event)
                    if isinstance(event, kaspa_events.PeerIdentified):
                        events += sink.accept(1.0)
    return events


def test_both_sides_speak_first_and_end_open() -> None:
    left, right = started(OURS), started(THEIRS)
    events = exchange([(left, right), (right, left)])
    assert left.state is right.state is State.OPEN
    assert [type(event).__name__ for event in events].count("HandshakeDone") == 2
    assert [type(event).__name__ for event in events].count("AddressesRequested") == 2


def test_the_order_of_what_a_stock_peer_sees() -> None:
    session = started()
    assert said(session) == [OURS]
    assert hear(session, THEIRS) == []
    assert said(session) == [Verack()]
    assert hear(session, Verack()) == [kaspa_events.PeerIdentified(THEIRS)]
    assert said(session) == []
    assert session.accept(0.0) == []
    assert said(session) == [Ready()]
    assert hear(session, Ready()) == [kaspa_events.HandshakeDone(THEIRS)]
    assert said(session) == [RequestAddresses()]


@pytest.mark.parametrize(
    "order", [(THEIRS, Verack(), Ready()), (Verack(), THEIRS, Ready()), (Ready(), Verack(), THEIRS)]
)
def test_the_handshake_takes_any_order(order: tuple[Payload, ...]) -> None:
    session = started()
    events: list[kaspa_events.Event] = []
    for payload in order:
        for event in hear(session, payload):
            events.append(event)
            if isinstance(event, kaspa_events.PeerIdentified):
                events += session.accept(0.0)
    assert session.state is State.OPEN


def test_repeated_handshake_messages_are_let_pass_until_it_is_done() -> None:
    session = started()
    hear(session, THEIRS, THEIRS, Verack(), Verack(), THEIRS)
    assert session.state is State.VETTING
    session.accept(0.0)
    hear(session, Verack(), Ready())
    for payload in (THEIRS, Verack(), Ready()):
        assert fault(opened(), payload).reason is Reason.UNEXPECTED_MESSAGE


@pytest.mark.parametrize(
    ("version", "reason", "text"),
    [
        (replace(THEIRS, network="kaspa-mainnet"), Reason.WRONG_NETWORK, "kaspa-mainnet"),
        (replace(THEIRS, peer_id=OURS.peer_id), Reason.SELF_CONNECTION, "LOOPBACK_CONNECTION"),
        (replace(THEIRS, protocol_version=4), Reason.WRONG_PROTOCOL_VERSION, "4"),
    ],
)
def test_a_peer_that_does_not_fit_is_answered_and_told(
    version: Version, reason: Reason, text: str
) -> None:
    session = started()
    assert fault(session, version, Verack()).reason is reason
    *before, last = said(session)
    assert before == [OURS, Verack()]  # stock, too, answers before it judges
    assert isinstance(last, Reject)
    assert text in last.reason


@pytest.mark.parametrize("number", [5, 9, 10, 11, 4_000_000_000])
def test_older_and_newer_protocol_versions_are_served(number: int) -> None:
    session = started()
    hear(session, replace(THEIRS, protocol_version=number), Verack())
    assert session.state is State.VETTING


def test_the_shell_may_refuse_a_second_connection() -> None:
    session = started()
    hear(session, THEIRS, Verack())
    session.refuse(Reason.PEER_HAS_STREAM)
    assert said(session)[-1] == Reject("DUPLICATE_CONNECTION")
    assert session.state is State.CLOSED


@pytest.mark.parametrize("payload", [Ping(1), RequestAddresses(), Addresses(()), Opaque(2, 0)])
def test_before_the_handshake_nothing_else_is_heard(payload: Payload) -> None:
    session = started()
    message = Message(payload, extra=b"\x12\x00" if isinstance(payload, Opaque) else b"")
    with pytest.raises(RemoteProtocolError) as caught:
        session.receive(kaspa_codec.encode(message), 0.0)
    assert caught.value.reason is Reason.UNEXPECTED_MESSAGE


def test_what_comes_before_ready_waits() -> None:
    session = started()
    hear(session, THEIRS, Verack())
    session.accept(0.0)
    assert hear(session, Ping(9), RequestAddresses()) == []
    assert Pong(9) not in said(session)
    events = hear(session, Ready())
    assert kaspa_events.AddressesRequested() in events
    assert Pong(9) in said(session)


def test_what_waits_is_bounded() -> None:
    session = started()
    hear(session, THEIRS, Verack())
    session.accept(0.0)
    hear(session, *[Ping(n) for n in range(MAX_HELD_MESSAGES)])
    assert fault(session, Ping(0)).reason is Reason.UNEXPECTED_MESSAGE


@pytest.mark.parametrize("heard", [[], [THEIRS], [Verack()]])
def test_version_and_verack_have_four_seconds(heard: list[Payload]) -> None:
    for timeouts, limit in ((Timeouts(), 4.0), (LIBP2P_TIMEOUTS, 8.0)):
        session = started(timeouts=timeouts)
        hear(session, *heard)
        assert session.next_deadline == limit
        session.tick(limit - 0.001)
        with pytest.raises(RemoteProtocolError) as caught:
            session.tick(limit)
        assert caught.value.reason is Reason.KASPA_TIMEOUT


def test_ready_has_eight_seconds_from_when_we_said_it() -> None:
    session = started()
    hear(session, THEIRS, Verack(), now=3.0)
    session.accept(3.0)
    assert session.next_deadline == 11.0
    with pytest.raises(RemoteProtocolError) as caught:
        session.tick(11.0)
    assert caught.value.reason is Reason.KASPA_TIMEOUT


def test_ping_is_answered_at_once() -> None:
    session = opened()
    hear(session, Ping(5), Ping(6))
    assert said(session) == [Pong(5), Pong(6)]


def test_we_ping_every_two_minutes_and_want_the_pong_in_two() -> None:
    session = opened()
    assert session.next_deadline == 120.0
    session.tick(120.0)
    (ping,) = said(session)
    assert isinstance(ping, Ping)
    assert session.next_deadline == 240.0
    assert hear(session, Pong(ping.nonce), now=120.25) == [kaspa_events.PongReceived(0.25)]
    assert session.next_deadline == 240.25
    session.tick(240.25)
    with pytest.raises(RemoteProtocolError) as caught:
        session.tick(360.25)
    assert caught.value.reason is Reason.KASPA_TIMEOUT


def test_a_wrong_pong_ends_it() -> None:
    session = opened()
    session.tick(120.0)
    assert fault(session, Pong(1), now=121.0).reason is Reason.UNEXPECTED_MESSAGE
    assert fault(opened(), Pong(1)).reason is Reason.UNEXPECTED_MESSAGE


def test_addresses_are_taken_once_per_question() -> None:
    session = started()
    hear(session, THEIRS, Verack())
    session.accept(0.0)
    hear(session, Ready())
    events = hear(session, Addresses((ADDRESS,)))
    assert events == [kaspa_events.AddressesReceived((ADDRESS,))]
    session.request_addresses(1.0)
    assert hear(session, Addresses(())) == [kaspa_events.AddressesReceived(())]
    assert fault(session, Addresses(())).reason is Reason.UNEXPECTED_MESSAGE


def test_a_peer_that_never_sends_addresses_is_left_after_two_minutes() -> None:
    session = started()
    hear(session, THEIRS, Verack())
    session.accept(0.0)
    hear(session, Ready())
    with pytest.raises(RemoteProtocolError) as caught:
        session.tick(120.0)
    assert caught.value.reason is Reason.KASPA_TIMEOUT


def test_we_never_send_more_than_a_thousand_addresses() -> None:
    session = opened()
    session.send_addresses([ADDRESS] * 1000)
    with pytest.raises(LocalProtocolError):
        session.send_addresses([ADDRESS] * 1001)


def test_too_many_addresses_are_a_fault_that_is_told() -> None:
    session = opened()
    session.request_addresses(0.0)
    session.messages_to_send()
    assert fault(session, Addresses((ADDRESS,) * 2501)).reason is Reason.TOO_MANY_ADDRESSES
    assert isinstance(said(session)[-1], Reject)


def test_unknown_payloads_are_ignored_and_empty_ones_are_not() -> None:
    session = opened()
    assert session.receive(bytes.fromhex("1204deadbeef"), 0.0) == [
        kaspa_events.OpaqueReceived(2, 4)
    ]
    assert session.receive(bytes.fromhex("c23e00"), 0.0) == [kaspa_events.OpaqueReceived(1000, 0)]
    with pytest.raises(RemoteProtocolError):
        session.receive(b"", 0.0)


def test_an_answer_to_no_question_of_ours_ends_it() -> None:
    session = opened()
    with pytest.raises(RemoteProtocolError) as caught:
        session.receive(kaspa_codec.encode(Message(Ping(1), response_id=4)), 0.0)
    assert caught.value.reason is Reason.UNEXPECTED_MESSAGE


@pytest.mark.parametrize("text", ["LOOPBACK_CONNECTION", "DUPLICATE_CONNECTION", "go away"])
def test_a_reject_ends_it_in_any_state(text: str) -> None:
    for session in (started(), opened()):
        session.messages_to_send()
        (event,) = hear(session, Reject(text))
        assert event == kaspa_events.RejectReceived(text, innocent=text != "go away")
        assert session.state is State.CLOSED
        assert said(session) == []  # nobody rejects a reject


def test_calls_out_of_turn_are_our_bug() -> None:
    session = KaspaSession(OURS, rng=random.Random(1))
    for call in (
        lambda: session.accept(0.0),
        lambda: session.receive(b"", 0.0),
        lambda: session.request_addresses(0.0),
        lambda: session.refuse(Reason.SHUTTING_DOWN),
    ):
        with pytest.raises(LocalProtocolError):
            call()
    session.start(0.0)
    with pytest.raises(LocalProtocolError):
        session.start(0.0)
    session.close()
    session.close()
    with pytest.raises(LocalProtocolError):
        session.receive(b"", 0.0)


def test_the_table_has_a_row_for_every_state() -> None:
    assert set(TABLE) == set(State)


@given(st.lists(st.binary(max_size=60), max_size=5), st.integers(0, 3))
def test_any_bytes_give_events_or_one_fault(messages: list[bytes], stage: int) -> None:
    session = opened() if stage == 3 else started()
    if stage in (1, 2):
        hear(session, THEIRS, Verack())
    if stage == 2:
        session.accept(0.0)
    for data in messages:
        try:
            session.receive(data, 0.0)
        except RemoteProtocolError:
            assert session.state is State.CLOSED
            break
        if session.state in (State.CLOSED, State.VETTING):
            break
    assert all(kaspa_codec.decode(data) for data in session.messages_to_send())


SMALL = st.sampled_from(
    [THEIRS, Verack(), Ready(), Ping(1), Pong(1), RequestAddresses(), Addresses((ADDRESS,))]
)


@given(st.lists(SMALL, max_size=12), st.randoms(use_true_random=False))
def test_damaged_messages_never_break_the_machine(
    payloads: list[Payload], rng: random.Random
) -> None:
    session = started()
    for payload in payloads:
        data = bytearray(kaspa_codec.encode(Message(payload)))
        if rng.random() < 0.3:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        try:
            events = session.receive(bytes(data), 0.0)
        except RemoteProtocolError:
            return
        if any(isinstance(event, kaspa_events.PeerIdentified) for event in events):
            session.accept(0.0)
        if session.state is State.CLOSED:
            return
