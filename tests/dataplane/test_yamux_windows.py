"""What the machine grants its peer: how far a reader may be behind, and what it costs whom."""

from __future__ import annotations

import pytest

from appliance.dataplane.windows import INITIAL_WINDOW, MAX_WINDOW, READ_WINDOW, WindowBudget
from appliance.dataplane.yamux import Yamux
from appliance.errors import RemoteProtocolError
from tests.dataplane.frames import FIN, RST, SYN, control_of, data, opened, server, window

HALF = INITIAL_WINDOW // 2


def test_an_unread_stream_never_holds_more_than_the_initial_window() -> None:
    machine = opened()
    machine.receive(data(1, bytes(INITIAL_WINDOW)))
    assert machine.backlog == 0, "no credit without a reader"


def granted(machine: Yamux, stream: int) -> int:
    """What the only frame that the machine has to send grants on `stream`; 0 if there is none."""
    if not (wire := control_of(machine)):
        return 0
    size = int.from_bytes(wire[8:], "big")
    assert wire == window(stream, size)
    return size


def read(machine: Yamux, stream: int, size: int, now: float = 0.0, rtt: float | None = None) -> int:
    """`size` bytes come and are read at once; what is granted for it."""
    machine.receive(data(stream, bytes(size)))
    machine.credit(stream, size, now=now, rtt=rtt)
    return granted(machine, stream)


def overrun(machine: Yamux, stream: int, size: int) -> None:
    """The peer may be ahead by exactly `size` bytes. The machine is unusable afterwards."""
    machine.receive(data(stream, bytes(size)))
    with pytest.raises(RemoteProtocolError):
        machine.receive(data(stream, b"x"))


def test_half_a_window_read_widens_it() -> None:
    machine = opened()
    assert read(machine, 1, HALF - 1) == 0
    assert read(machine, 1, 1) == HALF + READ_WINDOW - INITIAL_WINDOW
    overrun(machine, 1, READ_WINDOW)


def test_credit_is_returned_at_half_the_window_and_not_before() -> None:
    machine = opened()
    read(machine, 1, HALF)
    half = READ_WINDOW // 2
    assert read(machine, 1, half - 1) == 0
    assert read(machine, 1, 1) == half
    overrun(machine, 1, READ_WINDOW)


def test_only_a_reader_that_is_faster_than_the_round_trip_gets_more() -> None:
    machine = opened()
    read(machine, 1, HALF, now=0.0)
    half = READ_WINDOW // 2
    assert read(machine, 1, half, now=0.001) == half, "the round trip is not known yet"
    assert read(machine, 1, half, now=0.402, rtt=0.1) == half, (
        "beyond four round trips: slow enough"
    )
    assert read(machine, 1, half, now=0.8, rtt=0.1) == half + READ_WINDOW
    assert read(machine, 1, READ_WINDOW, now=0.9, rtt=0.1) == READ_WINDOW + MAX_WINDOW // 2
    assert read(machine, 1, MAX_WINDOW // 2, now=1.0, rtt=0.1) == MAX_WINDOW // 2, "and no more"
    overrun(machine, 1, MAX_WINDOW)


def test_a_window_grows_no_further_than_the_budget() -> None:
    machine = opened(windows=WindowBudget(1000))
    assert read(machine, 1, HALF) == HALF + 1000
    assert read(machine, 1, HALF + 500, now=0.0, rtt=1.0) == HALF + 500
    overrun(machine, 1, INITIAL_WINDOW + 1000)


def test_streams_share_the_budget_of_their_connection() -> None:
    machine = server(windows=WindowBudget(4000))
    ids = [1, 3, 5, 7]
    machine.receive(b"".join(window(stream, flags=SYN) for stream in ids))
    control_of(machine)
    assert [read(machine, stream, HALF) for stream in ids] == [HALF + 1000] * 4


def test_what_a_window_grew_by_is_given_on_when_its_stream_ends() -> None:
    machine = server(windows=WindowBudget(1000))
    machine.receive(window(1, flags=SYN))
    control_of(machine)
    assert read(machine, 1, HALF) == HALF + 1000
    machine.receive(window(3, flags=SYN))
    control_of(machine)
    assert read(machine, 3, HALF) == HALF
    machine.receive(window(1, flags=RST))
    assert read(machine, 3, HALF) == HALF + 1000
    overrun(machine, 3, INITIAL_WINDOW + 1000)


def test_no_credit_behind_the_end_of_file() -> None:
    machine = opened()
    machine.receive(data(1, bytes(INITIAL_WINDOW), flags=FIN))
    machine.credit(1, INITIAL_WINDOW)
    assert machine.backlog == 0
