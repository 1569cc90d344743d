"""What the catalogue's machines get, and what they are told when a wish does not fit."""

from __future__ import annotations

import dataclasses

import pytest

from appliance.sizing import CATALOGUE, Infeasible, Profile, Wishes, plan
from appliance.units import GIB, MIB
from tests.sizing.machines import saying

ROOM_FOR_KASPAD = {
    "x86-medium",
    "x86-large",
    "raspberry-pi-4-4g",
    "raspberry-pi-4-8g",
    "raspberry-pi-5-4g",
    "raspberry-pi-5-8g",
    "raspberry-pi-5-16g",
    "router-4g",
}
REMOTE = Wishes(node="remote")


def refusal(profile: Profile, asked: Wishes) -> Infeasible:
    with pytest.raises(Infeasible) as caught:
        plan(profile, asked)
    return caught.value


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_machine_runs_a_home_node_whose_kaspad_is_elsewhere(name: str) -> None:
    caps = plan(CATALOGUE[name], REMOTE).caps
    assert (caps.inbound_private, caps.per_relay_inbound, caps.unknown_relay_inbound) == (8, 4, 8)
    assert (caps.outbound_private, caps.outbound_direct, caps.inbound_direct) == (8, 8, 117)
    assert caps.relay_reservations >= 128  # what go-libp2p and rust-libp2p grant
    assert caps.relay_circuits >= 16  # rust-libp2p's


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_machine_runs_the_embedded_node(name: str) -> None:
    found = plan(CATALOGUE[name], Wishes(node="embedded"))
    assert found.caps.inbound_private >= 4
    assert found.kaspad is None


@pytest.mark.parametrize("name", CATALOGUE)
def test_kaspad_runs_where_it_has_room(name: str) -> None:
    if name in ROOM_FOR_KASPAD:
        found = plan(CATALOGUE[name], Wishes())
        assert found.kaspad is not None
        assert found.kaspad.unit["LimitNOFILE"] >= 4096
        return
    verdict = refusal(CATALOGUE[name], Wishes())
    assert (verdict.wish, verdict.constraint) == ("node.kind", "memory")


def test_a_machine_without_room_for_kaspad_is_told_how_much_it_lacks() -> None:
    verdict = refusal(CATALOGUE["router-512m"], Wishes())
    assert verdict.message == (
        "node.kind: kaspad needs 2.2 GiB of memory beside the appliance and the system, and "
        "router-512m leaves 243.2 MiB: 2 GiB less than kaspad needs"
    )
    assert verdict.hint == "run kaspad on another machine and say node.kind: remote"
    enough = dataclasses.replace(CATALOGUE["router-4g"], memory_bytes=verdict.nearest + GIB)
    assert plan(enough, Wishes()).kaspad is not None


def test_kaspad_s_scale_follows_the_memory_as_its_documents_say() -> None:
    def flag(name: str) -> float:
        kaspad = plan(CATALOGUE[name], Wishes()).kaspad
        assert kaspad is not None
        return float(kaspad.flags[2].removeprefix("--ram-scale="))

    assert 0.2 <= flag("raspberry-pi-4-4g") <= 0.3
    assert 0.4 <= flag("raspberry-pi-5-8g") <= 0.5
    assert 0.8 <= flag("raspberry-pi-5-16g") <= 1.0
    assert 3.0 <= flag("x86-large") <= 4.0


def test_kaspad_is_told_to_count_what_the_bridge_brings() -> None:
    kaspad = plan(CATALOGUE["x86-medium"], Wishes()).kaspad
    assert kaspad is not None
    assert kaspad.flags[:2] == ("--maxinpeers=125", "--outpeers=16")


def test_a_remote_kaspad_gets_flags_and_no_part_of_this_machine() -> None:
    found = plan(CATALOGUE["router-512m"], REMOTE)
    assert found.kaspad is not None
    assert found.kaspad.flags == ("--maxinpeers=125", "--outpeers=16")
    assert (found.kaspad.fds, found.kaspad.unit) == (None, {})
    assert "kaspad" not in found.machine.owners


def test_a_file_limit_of_1024_shrinks_what_is_dispensable_first() -> None:
    narrow = dataclasses.replace(CATALOGUE["x86-medium"], nofile=1024)
    caps = plan(narrow, REMOTE).caps
    assert (caps.inbound_private, caps.outbound_private) == (8, 8)
    assert 128 < caps.relay_reservations < 1024


def test_a_wish_that_breaks_a_budget_names_the_field_and_the_nearest_value() -> None:
    narrow = dataclasses.replace(CATALOGUE["x86-medium"], nofile=1024)
    verdict = refusal(narrow, saying(REMOTE, inbound_private=500))
    assert (verdict.constraint, verdict.wish) == ("fds", "bridge.private_inbound_target")
    assert verdict.message.startswith(
        "bridge.private_inbound_target: 500 would take 1000 open files, and "
    )
    assert verdict.message.endswith(f"are free; at most {verdict.nearest} fit")
    settled = plan(narrow, saying(REMOTE, inbound_private=verdict.nearest))
    assert settled.caps.inbound_private == verdict.nearest
    assert refusal(narrow, saying(REMOTE, inbound_private=verdict.nearest + 1)).constraint == "fds"


def test_what_is_said_outright_wins_over_what_is_computed() -> None:
    asked = saying(
        REMOTE,
        relay_reservations=40,
        relay_circuits=500,
        relay_circuits_per_peer=2,
        relay_bytes_per_second=12_000_000,
        inbound_direct=5,
    )
    caps = plan(CATALOGUE["x86-medium"], asked).caps
    assert (caps.relay_reservations, caps.relay_circuits, caps.relay_circuits_per_peer) == (
        40,
        500,
        2,
    )
    assert (caps.relay_bytes_per_second, caps.inbound_direct) == (12_000_000, 5)


@pytest.mark.parametrize(
    ("caps", "message"),
    [
        (
            {"per_relay_inbound": 9},
            "bridge.per_relay_inbound: 9 is more than the 8 of inbound_private together; "
            "at most 8 fit",
        ),
        (
            {"relay_circuits": 4, "relay_circuits_per_peer": 5},
            "caps.relay_circuits_per_peer: 5 is more than the 4 of relay_circuits together; "
            "at most 4 fit",
        ),
        (
            {"relay_bytes_per_second": 20_000_000},
            "caps.relay_bytes_per_second: 20000000 bytes a second is more than the line carries; "
            "at most 12500000",
        ),
    ],
)
def test_a_part_is_no_larger_than_the_whole(caps: dict[str, int], message: str) -> None:
    assert refusal(CATALOGUE["x86-small"], saying(REMOTE, **caps)).message == message


def test_relay_caps_need_relaying() -> None:
    asked = saying(Wishes(node="remote", relay=False), relay_reservations=10)
    verdict = refusal(CATALOGUE["x86-small"], asked)
    assert verdict.message == "caps.relay_reservations: 10, but bridge.relay_mode is off"


def test_fewer_slots_than_declared_peers_are_refused() -> None:
    verdict = refusal(CATALOGUE["x86-small"], saying(Wishes(node="remote", peers=5),
                                                     outbound_private=3))  # fmt: skip
    assert verdict.message == "caps.outbound_private: 3 is less than the 5 of bridge.peers"
    assert verdict.nearest == 5


def test_a_machine_that_is_too_small_is_told_what_it_lacks() -> None:
    tiny = dataclasses.replace(CATALOGUE["router-512m"], memory_bytes=128 * MIB)
    verdict = refusal(tiny, REMOTE)
    assert verdict.constraint == "memory"
    assert verdict.message.startswith("this machine is too small: the appliance needs ")


def test_an_embedded_node_s_end_of_each_pipe_is_counted() -> None:
    beside = plan(CATALOGUE["x86-medium"], REMOTE).fds
    within = plan(CATALOGUE["x86-medium"], Wishes(node="embedded")).fds
    assert within.per_unit["inbound_private"] == beside.per_unit["inbound_private"] + 1
    assert within.per_unit["inbound_direct"] > beside.per_unit["inbound_direct"] == 0


def test_a_larger_book_takes_no_files_from_the_relay() -> None:
    """Memory sizes the book; its tables once grew with it, at the cost of a reservation."""
    small = dataclasses.replace(
        CATALOGUE["x86-small"], nofile=1024, conntrack_max=4124, memory_bytes=689_247_405
    )
    large = dataclasses.replace(small, memory_bytes=1_207_959_552)
    before, after = plan(small, REMOTE), plan(large, REMOTE)
    assert after.store["entries"] > before.store["entries"]
    assert after.fds.reserved["store"] == before.fds.reserved["store"]
    assert after.caps.relay_reservations >= before.caps.relay_reservations


def test_a_table_of_systems_has_its_memory() -> None:
    before = plan(CATALOGUE["x86-medium"], REMOTE)
    after = plan(CATALOGUE["x86-medium"], dataclasses.replace(REMOTE, as_table=True))
    assert "as_table" not in before.memory.reserved
    # 2,000,000 ranges of 12 bytes, should all be of IPv6.
    assert after.memory.reserved["as_table"] >= 2_000_000 * 12
    assert after.memory.limit == sum(after.memory.reserved.values()) + after.memory.available
