"""Plays a scenario inside a world; `perform` is the target of `world.run`.

It starts everything, waits for what must happen, and tells how it went.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import trio

from appliance.lab.discovery import DiscoveryStory
from appliance.lab.journal import Event, Journal, ScenarioFailed
from appliance.lab.scenarios import SCENARIOS, Discovery, Scenario, TwoHomes
from appliance.lab.stage import Stage, Story
from appliance.lab.two_homes import TwoHomesStory
from appliance.lab.world import Send


def perform(order: dict[str, Any], send: Send) -> dict[str, Any]:
    """The order: `scenario`, `delay_ms`, `timeout` (s), `log_level`, `logs` (a directory
    or None) and `scratch` (a directory of the world)."""
    scratch = Path(order["scratch"])
    logs = Path(order["logs"] or scratch / "logs")
    logs.mkdir(parents=True, exist_ok=True)
    return trio.run(_perform, order, scratch, logs, send)


def story_of(scenario: Scenario) -> Story:
    """Who plays it."""
    match scenario:
        case TwoHomes():
            return TwoHomesStory(scenario)
        case Discovery():
            return DiscoveryStory(scenario)
    raise TypeError(f"nobody plays a {type(scenario).__name__}")


async def _perform(order: dict[str, Any], scratch: Path, logs: Path, send: Send) -> dict[str, Any]:
    scenario = SCENARIOS[order["scenario"]]
    story = story_of(scenario)
    delay_ms = float(order["delay_ms"])

    story_over = False

    def on_event(event: Event) -> None:
        if event.level != "debug" and not story_over:
            send({"kind": "event", **event.as_json()})

    journal = Journal(time.time(), on_event)
    failure: ScenarioFailed | None = None
    with story.build(delay_ms) as topology:
        async with trio.open_nursery() as nursery:
            stage = Stage(topology, journal, nursery, scratch, logs, order["log_level"])
            with trio.move_on_after(order["timeout"]) as limit:
                journal.note("map_built", hosts=len(topology.namespaces) - 1)  # without the WAN
                try:
                    await story.perform(stage)
                except ScenarioFailed as error:
                    failure = error
            if limit.cancelled_caught:
                failure = _too_slow(journal, order["timeout"])
            story_over = True
            mark = journal.mark
            nodes = [one | story.about(one["name"], journal) for one in stage.described()]
            clean = await stage.stop_all()
            nursery.cancel_scope.cancel()
        wan = topology.stop_forwarder()
    return {
        "scenario": scenario.name,
        "delay_ms": delay_ms,
        **story.summarise(journal, mark, failure),
        "nodes": nodes,
        "stopped_cleanly": clean,
        "wan": wan,
        "log_tails": {who: list(one.tail) for who, one in stage.actors.items() if failure},
        "events_lost": journal.lost,
        "events": [
            event.as_json()
            for event in sorted(journal.events, key=lambda event: event.at_ms)
            if event.level != "debug"
        ],
    }


def _too_slow(journal: Journal, timeout: float) -> ScenarioFailed:
    sentence = f"not finished within {timeout:g} s"
    if journal.waiting_for is None:
        return ScenarioFailed(sentence)
    who, name = journal.waiting_for
    return ScenarioFailed(f"{sentence}, while waiting for {name} from {who}", who)
