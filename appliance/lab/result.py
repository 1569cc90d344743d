"""From the journal of a run to the fields of `lab run --json`."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from appliance.lab.journal import Event, Journal, ScenarioFailed, matches
from appliance.lab.scenarios import Outcome, TwoHomes

HOMES = ("home-a", "home-b")
NODES = ("node-a", "node-b")


def summarise(
    scenario: TwoHomes, journal: Journal, end: int, failure: ScenarioFailed | None
) -> dict[str, Any]:
    """What the first `end` events amount to; `passed` only if everything is as it must be."""
    events = journal.events[:end]
    first_byte = _last(events, "home-a", "kaspa_first_byte")
    direct = _first(events, ("home-a",), "direct_first_byte")
    # The receiving side starts the punch, so its time holds the whole exchange.
    punch = _first(events, HOMES[::-1], "punch_succeeded")
    payloads = [event for event in events if event.name == "lab_payload"]
    shaken = {event.who for event in events if event.name == "kaspa_handshake"}
    addresses = _addresses(events)
    path = first_byte.fields.get("path") if first_byte else None
    reason = failure.reason if failure else _complaint(scenario, path, shaken, addresses, payloads)
    # Earlier ones are of a time when home B was not there yet.
    refusal = _last(events, "home-a", "refused")
    return {
        "passed": reason is None,
        "reason": reason,
        "faulty": failure.who if failure else None,
        "path": path,
        "refused": refusal.fields.get("reason")
        if refusal and scenario.outcome is Outcome.REFUSED
        else None,
        "time_to_direct_ms": direct.fields.get("time_to_direct_ms") if direct else None,
        # The same until the node's first byte, which includes waiting for a node that is not there.
        "time_to_kaspa_ms": first_byte.fields.get("since_relayed_ms") if first_byte else None,
        "punch_ms": punch.fields.get("took_ms") if punch else None,
        "handshake": _handshake(shaken),
        # The smaller direction: 16 MiB means 16 MiB each way.
        "bytes": _bytes(payloads),
        "addresses": addresses,
        "intact": bool(payloads) and all(bool(event.fields.get("intact")) for event in payloads),
        "punch_failures": [
            str(event.fields.get("reason")) for event in events if event.name == "punch_failed"
        ],
    }


def _first(events: Sequence[Event], whose: Sequence[str], name: str, **fields: str) -> Event | None:
    for event in events:
        if event.who in whose and event.name == name and matches(event, fields):
            return event
    return None


def _last(events: Sequence[Event], who: str, name: str) -> Event | None:
    return _first(events[::-1], (who,), name)


def _handshake(shaken: set[str]) -> str:
    if shaken >= set(NODES):
        return "ready"
    return f"only {next(iter(shaken))} ready" if shaken else "none"


def _bytes(payloads: Sequence[Event]) -> int:
    received = dict.fromkeys(NODES, 0)
    for event in payloads:
        received[event.who] = max(received.get(event.who, 0), int(event.fields.get("bytes", 0)))
    return min(received.values())


def _addresses(events: Sequence[Event]) -> dict[str, int]:
    """How many addresses each node learnt from the other."""
    learnt = dict.fromkeys(NODES, 0)
    for event in events:
        if event.name == "kaspa_addresses" and event.who in learnt:
            learnt[event.who] = max(learnt[event.who], int(event.fields.get("count", 0)))
    return learnt


def _complaint(
    scenario: TwoHomes,
    path: str | None,
    shaken: set[str],
    addresses: dict[str, int],
    payloads: Sequence[Event],
) -> str | None:
    if scenario.outcome is Outcome.REFUSED:
        return None if path is None else f"a stream passed ({path}) that had to be refused"
    if path != scenario.outcome.value:
        return f"the stream's path was {path}, not {scenario.outcome.value}"
    if _handshake(shaken) != "ready":
        return "the handshake did not become ready on both sides"
    if not all(addresses.values()):
        return "the nodes did not exchange addresses both ways"
    if _bytes(payloads) < scenario.payload:
        return f"only {_bytes(payloads)} of {scenario.payload} bytes arrived"
    return None


def summarise_runs(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """`runs`, and how many passed, with the medians of what was measured."""

    def median(name: str) -> float | None:
        values = [run[name] for run in runs if run.get(name) is not None]
        return round(statistics.median(values), 1) if values else None

    passed = sum(run["passed"] for run in runs)
    return {
        "scenario": runs[0]["scenario"],
        "passed": passed == len(runs),
        "runs_passed": passed,
        "runs_total": len(runs),
        "median_time_to_direct_ms": median("time_to_direct_ms"),
        "median_punch_ms": median("punch_ms"),
        "median_found_after_ms": median("found_after_ms"),
        "runs": list(runs),
    }
