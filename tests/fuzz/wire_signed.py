"""Hostile bytes for signed records, for the gossip that carries them, and for AutoNAT."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Final

from appliance.errors import RemoteProtocolError
from appliance.network import Endpoint, Network
from appliance.reasons import Reason
from appliance.wire import autonat, gossip
from appliance.wire.framing import frame
from appliance.wire.records import CapabilityRecord, next_sequence, seal, unseal, withdrawal
from tests.fuzz.running import changed, check
from tests.wire.signing import NOW, peer, private, record, signer

ALICE, BOB = peer("alice"), peer("bob")

# --- signed records

_HONEST: Final[tuple[CapabilityRecord, ...]] = (
    record(),
    record(offer=None),
    private("bob"),
    withdrawal(peer("carol"), Network.SIMNET, next_sequence(NOW)),
    replace(record("dave"), network=Network.MAINNET),
    record("erin", issued=NOW + 10**6),
    record("frank", issued=NOW - 10**6),
)
_SIGNERS: Final = {peer(name): signer(name) for name in "alice bob carol dave erin frank".split()}
_SEALED: Final = tuple(seal(each, _SIGNERS[each.peer_id]) for each in _HONEST)


def record_input(rng: Random) -> bytes:
    match rng.randrange(20):
        case 0:
            return rng.randbytes(rng.randrange(200))
        case 1:
            return rng.choice(_SEALED)
        case 2:  # two records' halves
            first, second = rng.choice(_SEALED), rng.choice(_SEALED)
            return first[: rng.randrange(len(first))] + second[rng.randrange(len(second)) :]
    return changed(rng, rng.choice(_SEALED))


def record_outcome(data: bytes) -> object:
    """Only what was signed is believed, bit for bit."""
    opened = unseal(data, now=NOW, network=Network.SIMNET)
    check(opened in _HONEST and data in _SEALED, f"forged: {opened}")
    return opened.peer_id


# --- gossip

_ASK: Final = gossip.Ask(
    network="kaspa-simnet",
    limit=20,
    wanted=gossip.Wanted.RELAYS,
    peers=(ALICE, BOB),
    records=_SEALED[:2],
)
_ANSWER: Final = gossip.Answer(records=_SEALED[:4], ask_again=300)
_TOO_SOON: Final = gossip.Answer(status=gossip.Status.TOO_SOON, ask_again=60)
_BODIES: Final = (
    gossip.encode_ask(_ASK),
    gossip.encode_answer(_ANSWER),
    gossip.encode_answer(_TOO_SOON),
)
_REFUSED: Final = "refused"


def _pieces(rng: Random, data: bytes) -> list[bytes]:
    cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.randrange(4)))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def gossip_input(rng: Random) -> tuple[bytes, list[bytes]]:
    kinds = (
        gossip.encode_ask(_ASK),
        gossip.encode_answer(_ANSWER),
        gossip.encode_answer(_TOO_SOON),
    )
    body = rng.choice(kinds)
    data = frame(changed(rng, body)) if rng.random() < 0.7 else changed(rng, frame(body))
    if rng.random() < 0.05:
        data = rng.randbytes(rng.randrange(100))
    return data, _pieces(rng, data)


def gossip_outcome(either: tuple[bytes, list[bytes]]) -> object:
    """An exchange is the same however it is cut, within its bounds, for either side."""
    whole, pieces = either
    results = [(_hear(gossip.Answerer(), cut), _hear(_asked(), cut)) for cut in ([whole], pieces)]
    check(results[0] == results[1], f"whole: {results[0]}, in pieces: {results[1]}")
    asked, answered = results[0]
    if asked == answered == _REFUSED:
        raise RemoteProtocolError(Reason.UNEXPECTED_MESSAGE)
    if isinstance(asked, gossip.Ask):
        check(asked.limit <= gossip.MAX_RECORDS, "asks for too much")
        check(gossip.decode_ask(gossip.encode_ask(asked)) == asked, "does not come back")
    if isinstance(answered, gossip.Answer):
        check(len(answered.records) <= _ASK.limit, "answers too much")
        check(gossip.decode_answer(gossip.encode_answer(answered)) == answered, "not the same")
    return type(asked), type(answered)


def _asked() -> gossip.Asker:
    asker = gossip.Asker(_ASK)
    asker.begin()
    return asker


def _hear(machine: gossip.Asker | gossip.Answerer, pieces: list[bytes]) -> object:
    """The message, or None while it is incomplete, or that it was refused."""
    heard: gossip.Ask | gossip.Answer | None = None
    try:
        for piece in pieces:
            heard = machine.receive(piece) or heard
    except RemoteProtocolError as error:
        check(error.reason in REASONS, f"reason {error.reason}")
        return _REFUSED
    return heard


REASONS: Final = frozenset(
    (
        Reason.MALFORMED_MESSAGE,
        Reason.MESSAGE_TOO_LARGE,
        Reason.UNEXPECTED_MESSAGE,
        Reason.TOO_MANY_ADDRESSES,
        Reason.TOO_MANY_RECORDS,
        Reason.WRONG_NETWORK,
        Reason.BAD_SIGNATURE,
        Reason.RECORD_EXPIRED,
        Reason.RECORD_FROM_FUTURE,
        Reason.RECORD_LIVES_TOO_LONG,
    )
)


# --- AutoNAT

_AT: Final = (Endpoint("203.0.113.7", 16112), Endpoint("2001:db8::7", 16112))
_FIRST: Final = (
    autonat.encode_v1(autonat.DialMe(BOB, _AT)),
    autonat.encode_v1(autonat.DialResult(autonat.Verdict.OK, "fine", _AT[0])),
)
_SECOND: Final = (
    autonat.encode_v2(autonat.DialRequest(_AT, 2**64 - 1)),
    autonat.encode_v2(autonat.DialResponse(autonat.Outcome.OK, 1, autonat.Dialled.OK)),
    autonat.encode_v2(autonat.DataRequest(1, 30_000)),
    autonat.encode_v2(autonat.DataResponse(bytes(99))),
)


def autonat_input(rng: Random) -> bytes:
    if rng.random() < 0.1:
        return rng.randbytes(rng.randrange(60))
    return changed(rng, rng.choice((*_FIRST, *_SECOND)))


def autonat_outcome(data: bytes) -> object:
    """Each version reads it or refuses it; what is read and understood is written the same."""
    read = list[object]()
    for version in (1, 2):
        try:
            read.append(_autonat(data, version))
        except RemoteProtocolError as error:
            check(error.reason in REASONS, f"reason {error.reason}")
    if not read:
        raise RemoteProtocolError(Reason.MALFORMED_MESSAGE)
    return [type(one) for one in read]


def _autonat(data: bytes, version: int) -> object:
    if version == 1:
        first = autonat.decode_v1(data)
        if not (isinstance(first, autonat.DialMe) and None in first.addresses):
            check(autonat.decode_v1(autonat.encode_v1(first)) == first, "does not come back")
        return first
    second = autonat.decode_v2(data)
    if isinstance(second, autonat.DialRequest):
        check(len(second.addresses) <= autonat.MAX_ADDRESSES, "too many addresses")
        if None in second.addresses:
            return second
    check(autonat.decode_v2(autonat.encode_v2(second)) == second, "does not come back")
    return second
