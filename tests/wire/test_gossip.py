"""The gossip of appliances: one question, one answer, and nothing beyond the bounds."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import LocalProtocolError, RemoteProtocolError
from appliance.network import Network
from appliance.reasons import Reason
from appliance.wire import gossip, multistream
from appliance.wire.framing import frame
from appliance.wire.gossip import (
    MAX_ANSWER,
    MAX_ASK,
    MAX_PEERS,
    MAX_RECORDS,
    MAX_TOLD,
    MAX_WAIT,
    Answer,
    Answerer,
    Ask,
    Asker,
    Status,
    Wanted,
)
from appliance.wire.pb import appliance_gossip_pb2 as pb
from appliance.wire.records import MAX_RECORD, seal, unseal
from tests.wire.signing import NOW, peer, private, record, signer

SEALED = seal(record(), signer("alice"))
ASK = Ask(
    network="kaspa-simnet",
    limit=20,
    wanted=Wanted.RELAYS,
    peers=(peer("bob"),),
    records=(seal(private(), signer("bob")),),
)
ANSWER = Answer(records=(SEALED,) * 3, ask_again=300)


def asked(ask: Ask = ASK) -> Asker:
    asker = Asker(ask)
    asker.begin()
    return asker


def answerer(ask: Ask = ASK) -> Answerer:
    machine = Answerer()
    assert machine.receive(Asker(ask).begin()) == ask
    return machine


def test_one_question_one_answer() -> None:
    asker, other = Asker(ASK), Answerer()
    heard = other.receive(asker.begin())
    assert heard == ASK
    assert unseal(heard.records[0], now=NOW, network=Network.SIMNET) == private()
    answer = asker.receive(other.answer(ANSWER))
    assert answer == ANSWER
    assert unseal(answer.records[0], now=NOW, network=Network.SIMNET) == record()
    assert asker.state is other.state is gossip.State.DONE


def test_it_may_come_a_byte_at_a_time() -> None:
    asker, other = Asker(ASK), Answerer()
    heard = [other.receive(bytes([byte])) for byte in asker.begin()]
    assert heard == [None] * (len(heard) - 1) + [ASK]
    answers = [asker.receive(bytes([byte])) for byte in other.answer(ANSWER)]
    assert answers[-1] == ANSWER


def test_a_peer_without_the_protocol_says_so_and_is_left() -> None:
    dialler = multistream.Dialler(gossip.PROTOCOL)
    listener = multistream.Listener(lambda protocol: protocol == "/ipfs/ping/1.0.0")
    assert listener.receive(dialler.to_send) is None
    with pytest.raises(RemoteProtocolError) as caught:
        dialler.receive(listener.data_to_send())
    assert caught.value.reason is Reason.UNSUPPORTED_PROTOCOL


def test_the_greatest_messages_fit_their_bounds() -> None:
    big = bytes(MAX_RECORD)
    ask = replace(ASK, limit=MAX_RECORDS, peers=(peer("bob"),) * MAX_PEERS, records=(big,) * 8)
    assert len(gossip.encode_ask(ask)) <= MAX_ASK
    assert len(gossip.encode_answer(Answer(records=(big,) * MAX_RECORDS))) <= MAX_ANSWER
    machine = answerer(ask)
    assert asked(ask).receive(machine.answer(Answer(records=(big,) * MAX_RECORDS)))


def test_a_refusal_holds_no_records() -> None:
    refused = Answer(status=Status.TOO_SOON, ask_again=60)
    assert asked().receive(answerer().answer(refused)) == refused
    with pytest.raises(RemoteProtocolError) as caught:
        gossip.decode_answer(gossip.encode_answer(replace(ANSWER, status=Status.TOO_SOON)))
    assert caught.value.reason is Reason.UNEXPECTED_MESSAGE


def test_what_a_later_version_says_is_understood_as_far_as_it_goes() -> None:
    later = pb.GossipMessage()
    later.ask.network = "kaspa-simnet"
    later.ask.limit = 4_000_000_000
    later.ask.wanted = 7  # type: ignore[assignment] # a number of later
    data = later.SerializeToString() + b"\xa2\x06\x02hi"
    assert gossip.decode_ask(data) == Ask(network="kaspa-simnet", limit=MAX_RECORDS)
    answer = pb.GossipMessage()
    answer.answer.status = 9  # type: ignore[assignment] # a number of later
    answer.answer.ask_again_seconds = 2**32 - 1
    heard = gossip.decode_answer(answer.SerializeToString())
    assert heard == Answer(status=9, ask_again=MAX_WAIT)  # nobody silences us for longer


def answer_bytes(count: int, size: int = 1) -> bytes:
    message = pb.GossipMessage()
    message.answer.records.extend([bytes(size)] * count)
    return frame(message.SerializeToString())


def ask_bytes(told: int = 0, peers: int = 0, size: int = 1) -> bytes:
    message = pb.GossipMessage()
    message.ask.records.extend([bytes(size)] * told)
    message.ask.peers.extend([signer("bob").key.peer_id] * peers)
    return frame(message.SerializeToString())


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (answer_bytes(21), Reason.TOO_MANY_RECORDS),  # 20 were asked for
        (answer_bytes(MAX_RECORDS + 1), Reason.TOO_MANY_RECORDS),
        (answer_bytes(1, MAX_RECORD + 1), Reason.MESSAGE_TOO_LARGE),
        (answer_bytes(100_000), Reason.MESSAGE_TOO_LARGE),
        (b"\xff\xff\x7f", Reason.MESSAGE_TOO_LARGE),  # refused before any of it came
        (ask_bytes(), Reason.UNEXPECTED_MESSAGE),
        (frame(b""), Reason.UNEXPECTED_MESSAGE),
        (frame(b"\xff"), Reason.MALFORMED_MESSAGE),
        (answer_bytes(1) + b"x", Reason.UNEXPECTED_MESSAGE),
    ],
)
def test_an_answer_that_is_refused(data: bytes, reason: Reason) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        asked().receive(data)
    assert caught.value.reason is reason


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (ask_bytes(told=MAX_TOLD + 1), Reason.TOO_MANY_RECORDS),
        (ask_bytes(peers=MAX_PEERS + 1), Reason.TOO_MANY_RECORDS),
        (ask_bytes(told=1, size=MAX_RECORD + 1), Reason.MESSAGE_TOO_LARGE),
        (ask_bytes(told=1, size=MAX_ASK), Reason.MESSAGE_TOO_LARGE),
        (answer_bytes(0), Reason.UNEXPECTED_MESSAGE),
        (frame(b"\x0a\x02\x22\x00"), Reason.MALFORMED_MESSAGE),  # a peer of no bytes
    ],
)
def test_a_question_that_is_refused(data: bytes, reason: Reason) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        Answerer().receive(data)
    assert caught.value.reason is reason


def test_nothing_comes_twice() -> None:
    asker, other = asked(), answerer()
    with pytest.raises(RemoteProtocolError):
        other.receive(b"\x00")
    data = other.answer(ANSWER)
    asker.receive(data)
    assert asker.receive(b"") is None
    for machine in (asker, other):
        with pytest.raises(RemoteProtocolError) as caught:
            machine.receive(data)
        assert caught.value.reason is Reason.UNEXPECTED_MESSAGE


def test_calls_out_of_turn_and_out_of_bounds_are_our_bug() -> None:
    for call in (
        asked().begin,
        lambda: Asker(ASK).receive(b""),
        lambda: Answerer().answer(ANSWER),
        lambda: answerer().answer(Answer(records=(SEALED,) * 21)),
        lambda: answerer().answer(Answer(records=(bytes(MAX_RECORD + 1),))),
        Asker(replace(ASK, records=(SEALED,) * 9)).begin,
        Asker(replace(ASK, limit=65)).begin,
        Asker(replace(ASK, peers=(peer("bob"),) * 17)).begin,
    ):
        with pytest.raises(LocalProtocolError):
            call()


ASKS = st.builds(
    Ask,
    network=st.sampled_from([network.wire_name for network in Network]),
    limit=st.integers(0, MAX_RECORDS),
    wanted=st.sampled_from(Wanted),
    peers=st.lists(st.sampled_from([peer("bob"), peer("carol")]), max_size=MAX_PEERS).map(tuple),
    records=st.lists(st.binary(max_size=300), max_size=MAX_TOLD).map(tuple),
)
ANSWERS = st.builds(
    Answer,
    records=st.lists(st.binary(max_size=300), max_size=MAX_RECORDS).map(tuple),
    ask_again=st.integers(0, MAX_WAIT),
)


@given(ASKS, ANSWERS, st.randoms(use_true_random=False))
def test_any_exchange_comes_through_however_it_is_cut(
    ask: Ask, answer: Answer, rng: random.Random
) -> None:
    asker, other = Asker(ask), Answerer()
    assert last(other, asker.begin(), rng) == ask
    answer = replace(answer, records=answer.records[: ask.limit])
    assert last(asker, other.answer(answer), rng) == answer


def last(machine: Asker | Answerer, data: bytes, rng: random.Random) -> Ask | Answer | None:
    heard: Ask | Answer | None = None
    at = 0
    while at < len(data):
        size = rng.randrange(1, 2000)
        heard = machine.receive(data[at : at + size])
        at += size
    return heard
