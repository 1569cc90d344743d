"""What happens at the caps: the next of each kind is refused, and nobody inside is hurt."""

from __future__ import annotations

from contextlib import AsyncExitStack

from appliance.errors import Fault, StreamReset
from appliance.reasons import Reason
from tests.bench.capacity.crowd import Dial
from tests.bench.capacity.filling import Filling
from tests.bench.capacity.outcome import Outcome
from tests.bench.capacity.watchers import Operator, Scraper, refusals
from tests.bench.ours import plain

ACCEPTED = "accepted"


async def one_more_watcher(full: Filling, outcome: Outcome) -> None:
    """While as many watch as may."""
    places = full.daemon.places
    async with AsyncExitStack() as stack:
        try:
            await (await Operator.connect(places.control, stack)).status()
            seen = ACCEPTED
        except ConnectionRefusedError as error:
            seen = str(error)
        outcome.claim("the next operator is told so", seen != ACCEPTED, seen)
        try:
            scraper = await Scraper.connect(places.metrics, stack)
            seen = ACCEPTED if await scraper.answered() else "closed"
        except ConnectionResetError:
            seen = "reset"
        outcome.claim("the next scraper is turned away", seen != ACCEPTED, seen)


async def one_more(full: Filling, outcome: Outcome) -> None:
    """The next of each kind, its answer on the wire and the counter of its reason."""
    caps, stranger = full.caps, full.callers[0]

    async def refused(subject: str, reason: Reason, seen: str) -> None:
        counted = (await refusals(full.daemon.places.metrics)).get((subject, reason.value), 0)
        outcome.claim(
            f"the next {subject} is refused: {reason.value}",
            counted > 0 and seen != ACCEPTED,
            f"{seen}, counted {counted}",
        )

    reply = await stranger.reserve()
    await refused("reservation", Reason.RESERVATIONS_FULL, ACCEPTED if reply.ok else reply.name)
    reply = await stranger.call(full.holders[-1])
    await refused("circuit", Reason.CIRCUITS_FULL, ACCEPTED if reply.ok else reply.name)

    unknown = caps["unknown_relay_inbound"] < caps["inbound_private"]
    reason = Reason.UNKNOWN_RELAY_FULL if unknown else Reason.INBOUND_PRIVATE_FULL
    try:
        await stranger.reach_node()
        seen = ACCEPTED
    except StreamReset:
        seen = "reset"
    await refused("kaspa", reason, seen)

    try:
        await full.crowd.arrive()
        seen = ACCEPTED
    except Fault as fault:
        seen = fault.reason.value
    await refused("connection", Reason.CONNECTIONS_FULL, seen)

    for slot in full.daemon.slots[:1]:
        try:
            await (await Dial.through(slot)).echo()
            seen = ACCEPTED
        except ConnectionResetError:
            seen = "reset"
        await refused("slot", Reason.PEER_HAS_STREAM, seen)


async def shown(full: Filling, outcome: Outcome) -> None:
    """`status` agrees with what is there."""
    told = await full.daemon.status()
    used = {
        "relay_reservations": told["relay"]["reservations"]["used"],
        "relay_circuits": told["relay"]["circuits"]["used"],
        "inbound_private": told["inbound"]["private"]["used"],
        "outbound_private": len(told["outbound"]),
    }
    outcome.claim(
        "status shows every cap as full",
        all(used[name] == outcome.loaded[name] for name in used),
        ", ".join(f"{name} {count}" for name, count in used.items()),
    )


async def nobody_hurt(full: Filling, outcome: Outcome) -> None:
    """Bytes still go through all that are inside, and reservations can be renewed."""
    text = "nobody inside is hurt"
    try:
        echoed = await full.echo()
        renewed = [(await guest.reserve()).ok for guest in full.holders]
    except Exception as error:  # noqa: BLE001 - whatever it was, it must not have happened
        outcome.claim(text, False, "; ".join(plain(error)))
        return
    seen = f"bytes through {echoed} streams, {sum(renewed)} renewals"
    outcome.claim(text, all(renewed), seen)
