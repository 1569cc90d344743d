"""The relay's table: caps, renewals, expiry, counters; as a table and against a model."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from appliance.errors import Refused
from appliance.policy.relaying import RelayLimits, RelayTable
from appliance.reasons import Reason

LIMITS = RelayLimits(
    reservations=3,
    reservations_per_ip=2,
    circuits=4,
    circuits_per_peer=2,
    reservation_seconds=100,
    circuit_seconds=0,
    circuit_bytes=0,
)


def refusal(operation: Callable[..., object], *args: object) -> Reason:
    with pytest.raises(Refused) as caught:
        operation(*args)
    return caught.value.reason


def full_table() -> RelayTable:
    table = RelayTable(LIMITS)
    for number, peer in enumerate("abc"):
        table.reserve(peer, f"ip{number}", number, 0.0)
    return table


def test_a_reservation_has_its_time() -> None:
    table = RelayTable(LIMITS)
    assert table.reserve("a", "ip", 1, 50.0).expires == 150.0
    assert table.reservation_of("a", 149.9).connection == 1
    assert refusal(table.reservation_of, "a", 150.0) is Reason.NO_RESERVATION
    assert refusal(table.reservation_of, "b", 0.0) is Reason.NO_RESERVATION
    assert table.reservations == 1
    table.expire(150.0)
    assert table.reservations == 0


def test_no_more_reservations_than_the_cap_and_a_renewal_needs_no_free_one() -> None:
    table = full_table()
    assert refusal(table.reserve, "d", "ip9", 9, 1.0) is Reason.RESERVATIONS_FULL
    assert table.reserve("a", "ip0", 0, 50.0).expires == 150.0
    assert table.reservations == 3


def test_an_expired_reservation_makes_room() -> None:
    table = full_table()
    assert table.reserve("d", "ip9", 9, 100.0).peer_id == "d"
    assert table.reservations == 1


def test_one_address_has_its_share() -> None:
    table = RelayTable(LIMITS)
    table.reserve("a", "ip", 1, 0.0)
    table.reserve("b", "ip", 2, 0.0)
    assert refusal(table.reserve, "c", "ip", 3, 0.0) is Reason.RESERVATIONS_PER_IP_FULL
    table.reserve("a", "ip", 1, 1.0)
    table.reserve("c", "elsewhere", 3, 0.0)
    assert refusal(table.reserve, "c", "ip", 4, 0.0) is Reason.RESERVATIONS_PER_IP_FULL
    assert table.reservation_of("c", 0.0).ip == "elsewhere", "a refused move takes nothing away"


def test_a_reservation_ends_with_the_connection_it_was_made_on() -> None:
    table = RelayTable(LIMITS)
    table.reserve("a", "ip", 1, 0.0)
    table.reserve("a", "ip", 2, 1.0)
    table.connection_closed(1)
    assert table.reservation_of("a", 2.0).connection == 2
    table.connection_closed(2)
    assert table.reservations == 0


def test_circuits_and_their_caps() -> None:
    table = full_table()
    assert refusal(table.open_circuit, "x", "nobody", 0.0) is Reason.NO_RESERVATION
    assert refusal(table.open_circuit, "a", "a", 0.0) is Reason.CONNECT_TO_SELF
    first = table.open_circuit("x", "a", 0.0)
    table.open_circuit("x", "b", 0.0)
    assert refusal(table.open_circuit, "x", "c", 0.0) is Reason.CIRCUITS_PER_PEER_FULL
    table.open_circuit("y", "a", 0.0)
    assert refusal(table.open_circuit, "z", "a", 0.0) is Reason.CIRCUITS_PER_PEER_FULL
    table.open_circuit("y", "b", 0.0)
    assert refusal(table.open_circuit, "z", "c", 0.0) is Reason.CIRCUITS_FULL
    assert refusal(table.open_circuit, "z", "c", 100.0) is Reason.NO_RESERVATION
    table.close_circuit(first)
    table.close_circuit(first)
    assert table.circuits == 3
    table.open_circuit("z", "c", 0.0)


def test_draining_takes_nothing_new() -> None:
    table = full_table()
    number = table.open_circuit("x", "a", 0.0)
    table.draining = True
    assert refusal(table.reserve, "a", "ip0", 0, 1.0) is Reason.SHUTTING_DOWN
    assert refusal(table.open_circuit, "x", "b", 1.0) is Reason.SHUTTING_DOWN
    table.close_circuit(number)
    assert table.circuits == 0


PEERS = st.sampled_from("abcdef")


class Relaying(RuleBasedStateMachine):
    """A small model: who holds what until when, and which circuits stand."""

    def __init__(self) -> None:
        super().__init__()
        self.table = RelayTable(LIMITS)
        self.now = 0.0
        self.held: dict[str, tuple[str, int, float]] = {}
        self.circuits: dict[int, tuple[str, str]] = {}

    def valid(self) -> dict[str, tuple[str, int, float]]:
        return {peer: row for peer, row in self.held.items() if row[2] > self.now}

    @rule(seconds=st.floats(0, 60))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(peer=PEERS, ip=st.sampled_from(["ip1", "ip2"]), connection=st.integers(1, 4))
    def reserve(self, peer: str, ip: str, connection: int) -> None:
        self.held = self.valid()
        others = {name: row for name, row in self.held.items() if name != peer}
        same_ip = sum(row[0] == ip for row in others.values())
        try:
            granted = self.table.reserve(peer, ip, connection, self.now)
        except Refused as fault:
            if fault.reason is Reason.RESERVATIONS_FULL:
                assert peer not in self.held and len(self.held) == LIMITS.reservations
            else:
                assert fault.reason is Reason.RESERVATIONS_PER_IP_FULL  # noqa: PT017 - the model says which
                assert same_ip >= LIMITS.reservations_per_ip
        else:
            assert len(others) < LIMITS.reservations and same_ip < LIMITS.reservations_per_ip
            self.held[peer] = (ip, connection, granted.expires)
            assert granted.expires == self.now + LIMITS.reservation_seconds

    @rule(source=PEERS, wanted=PEERS)
    def open(self, source: str, wanted: str) -> None:
        ends = [peer for pair in self.circuits.values() for peer in pair]
        possible = (
            source != wanted
            and wanted in self.valid()
            and len(self.circuits) < LIMITS.circuits
            and max(ends.count(source), ends.count(wanted)) < LIMITS.circuits_per_peer
        )
        try:
            number = self.table.open_circuit(source, wanted, self.now)
        except Refused:
            assert not possible
        else:
            assert possible and number not in self.circuits
            self.circuits[number] = (source, wanted)

    @rule(choice=st.integers(0, 3), twice=st.booleans())
    def close(self, choice: int, twice: bool) -> None:
        if self.circuits:
            number = list(self.circuits)[choice % len(self.circuits)]
            for _ in range(1 + twice):
                self.table.close_circuit(number)
            del self.circuits[number]

    @rule(connection=st.integers(1, 4))
    def connection_closed(self, connection: int) -> None:
        self.table.connection_closed(connection)
        self.held = {peer: row for peer, row in self.held.items() if row[1] != connection}

    @rule()
    def expire(self) -> None:
        self.table.expire(self.now)
        self.held = self.valid()

    @invariant()
    def the_table_is_the_model(self) -> None:
        assert self.table.circuits == len(self.circuits) <= LIMITS.circuits
        assert len(self.valid()) <= self.table.reservations <= LIMITS.reservations
        for peer in "abcdef":
            if peer in self.valid():
                ip, connection, expires = self.held[peer]
                row = self.table.reservation_of(peer, self.now)
                assert (row.ip, row.connection, row.expires) == (ip, connection, expires)
            else:
                assert refusal(self.table.reservation_of, peer, self.now) is Reason.NO_RESERVATION

    def teardown(self) -> None:
        for number in list(self.circuits):
            self.table.close_circuit(number)
        self.table.expire(self.now + LIMITS.reservation_seconds)
        assert self.table.circuits == self.table.reservations == 0
        assert not self.table._per_peer


TestRelaying = Relaying.TestCase
TestRelaying.settings = settings(max_examples=60, stateful_step_count=40)
