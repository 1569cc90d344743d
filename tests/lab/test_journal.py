"""Events of many processes in one list, and waiting for one of them."""

from __future__ import annotations

import json
import math

import pytest
import trio
import trio.testing

from appliance.lab import journal as journals
from appliance.lab.journal import Event, Journal, ScenarioFailed


def fresh() -> Journal:
    return Journal(started=1000.0, on_event=lambda _: None)


def line(name: str, **fields: object) -> bytes:
    return json.dumps({"t": 1001.5, "level": "info", "event": name, **fields}).encode()


def test_a_line_becomes_an_event_with_its_time_in_the_run() -> None:
    journal = fresh()
    assert journal.add_line("home-a", line("punch_succeeded", logger="bridge", took_ms=83))
    assert journal.events[0].as_json() == {
        "at_ms": 1500.0,
        "who": "home-a",
        "event": "punch_succeeded",
        "took_ms": 83,
    }


@pytest.mark.parametrize(
    "text", [b"", b"plain words", b"{}", b"[]", b"7", b'{"t": "x", "event": "e"}', b"\xff\xfe"]
)
def test_other_lines_are_no_events(text: bytes) -> None:
    journal = fresh()
    assert not journal.add_line("home-a", text)
    assert not journal.events


async def test_waiting_ends_with_the_event_that_fits() -> None:
    journal = fresh()
    found: list[Event] = []

    async def wait() -> None:
        found.append(
            await journal.wait_for("home-a", "kaspa_stream", within=math.inf, path="direct")
        )

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        journal.add_line("home-b", line("kaspa_stream", path="direct"))
        journal.add_line("home-a", line("kaspa_stream", path="relayed"))
        await trio.testing.wait_all_tasks_blocked()
        assert not found
        journal.add_line("home-a", line("kaspa_stream", path="direct"))
    assert found == [journal.events[2]]


async def test_after_looks_only_at_what_comes_later(autojump_clock: trio.abc.Clock) -> None:
    journal = fresh()
    journal.add_line("node-a", line("kaspa_handshake"))
    with pytest.raises(ScenarioFailed, match="node-a did not report kaspa_handshake within 7 s"):
        await journal.wait_for("node-a", "kaspa_handshake", within=7, after=journal.mark)


async def test_waiting_for_a_process_that_ended_fails_at_once() -> None:
    journal = fresh()
    caught: list[ScenarioFailed] = []

    async def wait() -> None:
        try:
            await journal.wait_for("relay", "ready", within=math.inf)
        except ScenarioFailed as error:
            caught.append(error)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        journal.process_ended("relay", "ended with exit code 1")
    assert caught[0].reason == "relay ended with exit code 1"
    assert caught[0].who == "relay"


def test_a_flood_of_events_is_cut_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "MAX_EVENTS", 3)
    journal = fresh()
    for _ in range(5):
        journal.add_line("relay", line("ready"))
    assert len(journal.events) == 3
    assert journal.lost == 2
