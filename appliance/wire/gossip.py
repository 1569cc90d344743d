"""`/kaspa-appliance/gossip/1`, without I/O: how appliances pass signed records on.

Whoever opened the stream asks once, and may tell a few records with the question; the other side
answers once; both end the stream. A peer that does not know the protocol says so in multistream's
negotiation, and is asked for addresses in Kaspa's own messages instead.

    Asker     START ─begin─► ASKED ─answer came─► DONE
    Answerer  START ─ask came─► ASKED ─answer─► DONE

Records travel as sealed bytes; `wire.records.unseal` judges each by itself, so one bad record does
not spoil an answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Final

from google.protobuf.message import DecodeError

from appliance.errors import LocalProtocolError, RemoteProtocolError
from appliance.reasons import Reason
from appliance.units import HOUR, KIB, MINUTE
from appliance.wire import peer_ids
from appliance.wire.framing import Deframer, frame
from appliance.wire.kaspa_codec import cut_utf8
from appliance.wire.pb import appliance_gossip_pb2 as pb
from appliance.wire.records import MAX_RECORD

PROTOCOL: Final = "/kaspa-appliance/gossip/1"

MAX_RECORDS: Final = 64
"""In an answer; some 16 KiB of ordinary records: more than a private node ever needs at once."""
MAX_TOLD: Final = 8
"""Records that come with a question: the asker's own, and what it heard last."""
MAX_PEERS: Final = 16
"""Peers that one question may name."""
MAX_ASK: Final = 40 * KIB
"""Bytes: `MAX_TOLD` records and `MAX_PEERS` ids of the greatest size."""
MAX_ANSWER: Final = 260 * KIB
"""Bytes: `MAX_RECORDS` records of the greatest size."""
MAX_NETWORK_NAME: Final = 64
"""Bytes that we keep of a network's name."""

# Manners. The asker keeps the first three, the answerer the rest.
ASK_INTERVAL: Final = 5 * MINUTE
"""Between questions to one peer: records are renewed hourly, so little is missed."""
ASKS_PER_HOUR: Final = 120
"""To all peers together; with ordinary answers 2 MB an hour."""
EXCHANGE_TIMEOUT: Final = 10.0
"""For all of one exchange, which is one round trip; over a relay in the field below 2 s."""
ANSWER_INTERVAL: Final = MINUTE
"""A peer earns one answer in this time; sooner it hears TOO_SOON."""
ANSWER_BURST: Final = 3
"""Answers that a peer may have saved up: it starts, gets its reservation, tells of it."""
MAX_EXCHANGES: Final = 8
"""Exchanges that one side serves at once: with `MAX_ASK` and `MAX_ANSWER` 2.4 MB."""
MAX_WAIT: Final = int(HOUR)
"""Seconds for which we let a peer silence us."""


class Wanted(IntEnum):
    """Which records are asked for."""

    ANY = pb.Wanted.ANY
    RELAYS = pb.Wanted.RELAYS
    PRIVATE = pb.Wanted.PRIVATE


class Status(IntEnum):
    """How a question was taken."""

    OK = pb.Status.OK
    TOO_SOON = pb.Status.TOO_SOON
    OTHER_NETWORK = pb.Status.OTHER_NETWORK


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """Tell me of peers."""

    network: str  # "kaspa-mainnet", …
    limit: int = MAX_RECORDS
    wanted: Wanted = Wanted.ANY
    peers: tuple[str, ...] = ()  # these first, whatever is wanted
    records: tuple[bytes, ...] = ()  # sealed; what the asker has to tell


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Sealed records, at most as many as were asked for; none unless the status is OK."""

    status: int = Status.OK  # an int: a later version may know more
    records: tuple[bytes, ...] = ()
    ask_again: int = 0  # seconds; 0: not said


class State(Enum):
    """Where an exchange stands."""

    START = "start"
    ASKED = "asked"
    DONE = "done"


class Asker:
    """The side that opened the stream."""

    def __init__(self, ask: Ask) -> None:
        self.state = State.START
        self._ask = ask
        self._deframer = Deframer(MAX_ANSWER)

    def begin(self) -> bytes:
        """What to send. Raises LocalProtocolError if called twice or asking too much."""
        _want(self.state, State.START)
        self.state = State.ASKED
        return frame(encode_ask(self._ask))

    def receive(self, data: bytes) -> Answer | None:
        """The answer, as soon as all of it is there.

        Raises RemoteProtocolError: malformed-message, message-too-large, unexpected-message,
        too-many-records. Nothing more may come then, or after the answer.
        """
        message = _message(self.state, State.ASKED, self._deframer, data)
        if message is None:
            return None
        self.state = State.DONE
        answer = decode_answer(message)
        if len(answer.records) > self._ask.limit:
            raise RemoteProtocolError(Reason.TOO_MANY_RECORDS, f"{self._ask.limit} were asked for")
        return answer


class Answerer:
    """The side to which the stream was opened."""

    def __init__(self) -> None:
        self.state = State.START
        self._deframer = Deframer(MAX_ASK)
        self._limit = 0

    def receive(self, data: bytes) -> Ask | None:
        """The question, as soon as all of it is there. Raises RemoteProtocolError as `Asker`."""
        message = _message(self.state, State.START, self._deframer, data)
        if message is None:
            return None
        ask = decode_ask(message)
        self.state, self._limit = State.ASKED, ask.limit
        return ask

    def answer(self, answer: Answer) -> bytes:
        """What to send. Raises LocalProtocolError for more than was asked for."""
        _want(self.state, State.ASKED)
        if len(answer.records) > self._limit:
            raise LocalProtocolError(Reason.TOO_MANY_RECORDS, f"{self._limit} were asked for")
        self.state = State.DONE
        return frame(encode_answer(answer))


def encode_ask(ask: Ask) -> bytes:
    """Raises LocalProtocolError for more than the other side would take."""
    _own_bounds(ask.records, MAX_TOLD)
    if len(ask.peers) > MAX_PEERS or not 0 <= ask.limit <= MAX_RECORDS:
        raise LocalProtocolError(Reason.TOO_MANY_RECORDS, "a question out of its bounds")
    message = pb.GossipMessage()
    message.ask.network = ask.network
    message.ask.limit = ask.limit
    message.ask.wanted = ask.wanted  # type: ignore[assignment]  # proto3 enums are open
    message.ask.peers.extend(map(peer_ids.to_bytes, ask.peers))
    message.ask.records.extend(ask.records)
    return message.SerializeToString()


def encode_answer(answer: Answer) -> bytes:
    """Raises LocalProtocolError for more than the other side would take."""
    _own_bounds(answer.records, MAX_RECORDS)
    message = pb.GossipMessage()
    message.answer.SetInParent()
    message.answer.status = answer.status  # type: ignore[assignment]  # proto3 enums are open
    message.answer.records.extend(answer.records)
    message.answer.ask_again_seconds = answer.ask_again
    return message.SerializeToString()


def decode_ask(data: bytes) -> Ask:
    """Raises RemoteProtocolError. A limit above ours is cut; an unknown wish means any."""
    ask = _parse(data, "ask").ask
    if len(ask.peers) > MAX_PEERS:
        raise RemoteProtocolError(Reason.TOO_MANY_RECORDS, f"more than {MAX_PEERS} peers named")
    wanted = int(ask.wanted)
    return Ask(
        network=cut_utf8(ask.network, MAX_NETWORK_NAME),
        limit=min(ask.limit, MAX_RECORDS),
        wanted=Wanted(wanted) if wanted in set(Wanted) else Wanted.ANY,
        peers=tuple(map(peer_ids.to_text, ask.peers)),
        records=_bounded(tuple(ask.records), MAX_TOLD),
    )


def decode_answer(data: bytes) -> Answer:
    """Raises RemoteProtocolError. A waiting time above ours is cut."""
    answer = _parse(data, "answer").answer
    records = _bounded(tuple(answer.records), MAX_RECORDS)
    status = int(answer.status)
    if status != Status.OK and records:
        raise RemoteProtocolError(Reason.UNEXPECTED_MESSAGE, "records with a refusal")
    return Answer(
        status=status,
        records=records,
        ask_again=min(answer.ask_again_seconds, MAX_WAIT),
    )


def _message(state: State, wanted: State, deframer: Deframer, data: bytes) -> bytes | None:
    if state is State.DONE or (state is State.ASKED and wanted is State.START):
        if not data:
            return None
        raise RemoteProtocolError(Reason.UNEXPECTED_MESSAGE, "bytes behind the message")
    _want(state, wanted)
    deframer.feed(data)
    message = deframer.next_message()
    if message is not None and deframer.take_rest():
        raise RemoteProtocolError(Reason.UNEXPECTED_MESSAGE, "bytes behind the message")
    return message


def _parse(data: bytes, kind: str) -> pb.GossipMessage:
    message = pb.GossipMessage()
    try:
        # The frame is bounded, and the parser keeps lists compactly: what is too many is counted
        # behind it, where it costs a hundredth of a walk in Python.
        message.ParseFromString(data)
    except DecodeError as error:
        raise RemoteProtocolError(Reason.MALFORMED_MESSAGE, f"gossip: {error}") from None
    if message.WhichOneof("message") != kind:
        raise RemoteProtocolError(Reason.UNEXPECTED_MESSAGE, f"no {kind}")
    return message


def _bounded(records: tuple[bytes, ...], most: int) -> tuple[bytes, ...]:
    if len(records) > most:
        raise RemoteProtocolError(Reason.TOO_MANY_RECORDS, f"more than {most} records")
    if any(len(record) > MAX_RECORD for record in records):
        raise RemoteProtocolError(Reason.MESSAGE_TOO_LARGE, f"a record of more than {MAX_RECORD}")
    return records


def _own_bounds(records: tuple[bytes, ...], most: int) -> None:
    try:
        _bounded(records, most)
    except RemoteProtocolError as error:
        raise LocalProtocolError(error.reason, error.detail) from None


def _want(state: State, wanted: State) -> None:
    if state is not wanted:
        raise LocalProtocolError(
            Reason.UNEXPECTED_MESSAGE, f"wants {wanted.value}, is {state.value}"
        )
