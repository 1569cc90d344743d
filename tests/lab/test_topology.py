"""The map behaves as homes behind routers do: tried with plain TCP in real namespaces."""

from __future__ import annotations

from typing import Any

import pytest

from appliance.lab import world
from appliance.lab.topology import ROUTER_IPS

pytestmark = [pytest.mark.netns, pytest.mark.usefixtures("lab")]


def inside(function: str, **order: Any) -> dict[str, Any]:
    # Seconds, and many times what it takes: a loaded machine is not a fault.
    return world.run(f"tests.lab.inside:{function}", order, print, 120)


def test_a_home_reaches_the_relay_from_its_routers_address_and_its_own_port() -> None:
    done = inside("how_the_relay_sees_a_home")
    assert done["seen"] == [[ROUTER_IPS["a"], 16112]] * 2
    assert done["counters"]["no_route"] == 0
    assert done["counters"]["send_failed"] == 0


def test_a_symmetric_router_shows_another_port_to_each_destination() -> None:
    done = inside("how_the_relay_sees_a_home", router="symmetric")
    ports = {port for _, port in done["seen"]}
    assert len(ports) == 2
    assert {ip for ip, _ in done["seen"]} == {ROUTER_IPS["a"]}


@pytest.mark.parametrize(
    ("router", "outcome"),
    [
        ("drops", "TimeoutError"),
        ("symmetric", "TimeoutError"),
        ("resets", "ConnectionRefusedError"),
    ],
)
def test_what_a_stranger_gets_from_a_router(router: str, outcome: str) -> None:
    assert inside("dial_a_home_from_outside", router=router)["outcome"] == outcome


@pytest.mark.parametrize(("router", "delay_ms"), [("drops", 0), ("drops", 40), ("resets", 40)])
def test_a_simultaneous_open_passes_both_routers(router: str, delay_ms: int) -> None:
    done = inside("simultaneous_open", router=router, delay_ms=delay_ms)
    assert done["connected"], done
    assert done["peer"] == [ROUTER_IPS["a"], 16112]
    # SYN crosses SYN, then SYN-ACK: one round trip, unless a first SYN came early and was dropped.
    assert done["took"] < 2 * delay_ms / 1000 + 1.5


def test_the_kernel_takes_half_of_a_simultaneous_opens_round_trip_for_the_whole() -> None:
    """Why a punched connection is not left to BBR (transport.dial); a mended kernel fails this."""
    done = inside("simultaneous_open", router="drops", delay_ms=40)
    assert min(done["shortest_round_trips"]) < 0.06


def test_a_simultaneous_open_does_not_pass_symmetric_routers() -> None:
    done = inside("simultaneous_open", router="symmetric", delay_ms=20, patience=1.5)
    assert not done["connected"]


@pytest.mark.parametrize("delay_ms", [0, 40, 200])
def test_the_round_trip_is_twice_the_delay_and_little_more(delay_ms: int) -> None:
    seconds = inside("round_trip", delay_ms=delay_ms)["seconds"]
    assert 2 * delay_ms / 1000 <= seconds < 2 * delay_ms / 1000 + 0.02


def test_16_mib_pass_in_a_few_seconds_without_loss() -> None:
    done = inside("bulk", bytes=16 * 1024 * 1024)
    print(f"{16 / done['seconds']:.0f} MiB/s", done["counters"])
    assert done["seconds"] < 5
    assert done["counters"]["send_failed"] == 0
    assert done["counters"]["forwarded_bytes"] > 16 * 1024 * 1024


def test_frames_that_the_forwarder_is_too_late_for_are_counted() -> None:
    """Once each: what the kernel dropped before the packet socket looks like loss on the line."""
    done = inside("late_forwarder", frames=50)
    assert done["overruns"] > 0
    # The kernel's answers, that nobody is at that port, pass the link as well.
    assert done["read"] + done["overruns"] >= 50
    assert done["again"] == 0
