"""The machine against bytes written down from the yamux specification."""

from __future__ import annotations

import pytest

from appliance.dataplane.frames import (
    HEADER_SIZE,
    DataReceived,
    EofReceived,
    Event,
    GoAwayReceived,
    PongReceived,
    ResetReceived,
    StreamOpened,
    StreamRefused,
    WindowOpened,
)
from appliance.dataplane.windows import INITIAL_WINDOW, MAX_WINDOW
from appliance.dataplane.yamux import MAX_CONTROL_BACKLOG, MAX_DATA, MAX_SKIPPED, Yamux
from appliance.errors import LocalProtocolError, RemoteProtocolError
from appliance.reasons import Reason
from tests.dataplane.frames import (
    ACK,
    DATA,
    FIN,
    GO_AWAY,
    PING,
    RST,
    SYN,
    WINDOW_UPDATE,
    control_of,
    data,
    frame,
    opened,
    server,
    window,
)


def got(stream: int, payload: bytes) -> DataReceived:
    return DataReceived(stream, memoryview(payload))


def written(machine: Yamux, stream: int, payload: bytes, room: int = 1 << 20) -> bytes:
    """The frame that takes a prefix of `payload` into a buffer, which is untouched behind it."""
    into = memoryview(bytearray(b"\xaa" * room))
    size = machine.write_data(stream, memoryview(payload), into)
    end = HEADER_SIZE + size if size else 0
    assert bytes(into[end : end + 64]) == b"\xaa" * min(64, room - end)
    return bytes(into[:end])


# --- what we write


def test_our_frames_are_the_specifications() -> None:
    client = Yamux(client=True)
    stream = client.open_stream()
    syn = control_of(client)
    payload = written(client, stream, b"hi")
    client.send_eof(stream)
    client.reset(stream)
    client.ping(0xDEADBEEF)
    client.go_away(0)
    assert syn + payload + control_of(client) == bytes.fromhex(
        "000100010000000100000000"  # window update, SYN, stream 1
        "000000000000000100000002"  # data, stream 1, two bytes
        "6869"
        "000100040000000100000000"  # window update, FIN
        "000100080000000100000000"  # window update, RST
        "0002000100000000deadbeef"  # ping, SYN
        "000300000000000000000000"  # go away, normal
    )
    assert client.backlog == 0


def test_our_answers_are_the_specifications() -> None:
    machine = server()
    events = machine.receive(window(1, flags=SYN) + frame(PING, SYN, 0, 7))
    assert events == [StreamOpened(1)]
    assert control_of(machine) == bytes.fromhex(
        "000100020000000100000000"  # window update, ACK, stream 1
        "000200020000000000000007"  # ping, ACK, the same value
    )


def test_the_client_has_odd_ids_and_the_server_even_ones() -> None:
    client, own = Yamux(client=True), server()
    assert [client.open_stream() for _ in range(3)] == [1, 3, 5]
    assert [own.open_stream() for _ in range(3)] == [2, 4, 6]


def test_ids_run_out() -> None:
    client = Yamux(client=True)
    client._next_id = 0xFFFF_FFFF
    assert client.open_stream() == 0xFFFF_FFFF
    with pytest.raises(LocalProtocolError):
        client.open_stream()


def test_sending_is_bounded_by_frame_and_window() -> None:
    client = Yamux(client=True)
    stream = client.open_stream()
    payload = bytes(2 * INITIAL_WINDOW)
    sent = 0
    while wire := written(client, stream, payload):
        assert len(wire) <= HEADER_SIZE + MAX_DATA
        sent += len(wire) - HEADER_SIZE
    assert sent == INITIAL_WINDOW
    assert client.send_window(stream) == 0
    assert client.receive(window(stream, 5)) == [WindowOpened(stream)]
    assert written(client, stream, payload) == data(stream, bytes(5))


@pytest.mark.parametrize("room", [0, 1, HEADER_SIZE - 1, HEADER_SIZE])
def test_a_buffer_without_room_for_a_byte_gets_no_frame(room: int) -> None:
    machine = opened()
    assert written(machine, 1, b"hi", room) == b""
    assert machine.send_window(1) == INITIAL_WINDOW
    assert written(machine, 1, b"hi", HEADER_SIZE + 1) == data(1, b"h")
    assert machine.send_window(1) == INITIAL_WINDOW - 1


@pytest.mark.parametrize("room", [1, 11, 12, 13, 24, 1000])
def test_control_frames_are_written_in_order_into_whatever_room_there_is(room: int) -> None:
    machine = server()
    for value in range(5):
        machine.ping(value)
    into = memoryview(bytearray(room))
    wire = b""
    while size := machine.write_control(into):
        wire += into[:size]
        assert machine.backlog == 5 * HEADER_SIZE - len(wire)
    assert wire == b"".join(frame(PING, SYN, 0, value) for value in range(5))


# --- what we read


def fed(machine: Yamux, wire: bytes, size: int) -> list[Event]:
    return [
        event for at in range(0, len(wire), size) for event in machine.receive(wire[at : at + size])
    ]


def joined(events: list[Event]) -> list[Event]:
    """Neighbouring payloads of a stream as one."""
    out: list[Event] = []
    for event in events:
        last = out[-1] if out else None
        if (
            isinstance(event, DataReceived)
            and isinstance(last, DataReceived)
            and last.stream_id == event.stream_id
        ):
            out[-1] = DataReceived(event.stream_id, memoryview(bytes(last.data) + event.data))
        else:
            out.append(event)
    return out


CONVERSATION = (
    window(1, flags=SYN)
    + data(3, b"first", flags=SYN)
    + data(1, b"one")
    + data(1, b"")
    + frame(PING, ACK, 0, 99)
    + window(1, 1000)
    + data(3, b" and last", flags=FIN)
    + data(1, b"then a reset", flags=FIN | RST)
    + data(5, b"all at once", flags=SYN | FIN)
    + window(7, 10, flags=SYN | RST)
    + frame(GO_AWAY, 0, 0, 2)
)
MEANING = [
    StreamOpened(1),
    StreamOpened(3),
    got(3, b"first"),
    got(1, b"one"),
    PongReceived(99),
    WindowOpened(1),
    got(3, b" and last"),
    EofReceived(3),
    got(1, b"then a reset"),
    ResetReceived(1),
    StreamOpened(5),
    got(5, b"all at once"),
    EofReceived(5),
    StreamOpened(7),
    WindowOpened(7),
    ResetReceived(7),
    GoAwayReceived(2),
]


@pytest.mark.parametrize("size", range(1, len(CONVERSATION) + 1))
def test_any_segmentation_means_the_same(size: int) -> None:
    assert joined(fed(server(), CONVERSATION, size)) == MEANING


@pytest.mark.parametrize("cut", range(len(CONVERSATION) + 1))
def test_a_cut_at_every_byte_means_the_same(cut: int) -> None:
    machine = server()
    events = machine.receive(CONVERSATION[:cut]) + machine.receive(CONVERSATION[cut:])
    assert joined(events) == MEANING


VIOLATIONS = {
    "another version": frame(WINDOW_UPDATE, SYN, 1, 0, version=1),
    "an unknown type": frame(4, 0, 1, 0),
    "an unknown flag": frame(WINDOW_UPDATE, 0x10, 1, 0),
    "data on stream 0": data(0, b"x"),
    "a window for stream 0": window(0, 1),
    "data on a stream that was never opened": data(9, b"x"),
    "a reset of a stream that was never opened": window(9, flags=RST),
    "data on a stream of ours that we never opened": data(2, b"x"),
    "an id of our parity": window(2, flags=SYN),
    "the same id twice": window(1, flags=SYN) * 2,
    "one byte more than the window": window(1, flags=SYN) + frame(DATA, 0, 1, INITIAL_WINDOW + 1),
    "a window beyond 32 bits": window(1, flags=SYN) + window(1, 0xFFFF_FFFF),
    "data behind the end of file": window(1, flags=SYN | FIN) + data(1, b"x"),
    "a ping on a stream": frame(PING, SYN, 1, 0),
    "a ping that asks and answers": frame(PING, SYN | ACK, 0, 0),
    "a ping that does neither": frame(PING, 0, 0, 0),
    "a go-away on a stream": frame(GO_AWAY, 0, 1, 0),
    "too much on a closed stream": window(1, flags=SYN | RST) + frame(DATA, 0, 1, MAX_WINDOW + 1),
}


@pytest.mark.parametrize("wire", VIOLATIONS.values(), ids=VIOLATIONS)
def test_a_violation_is_the_peers_fault(wire: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        server().receive(wire)
    assert caught.value.reason is Reason.YAMUX_VIOLATION


def test_a_window_may_be_filled_to_the_last_byte() -> None:
    machine = opened()
    events = machine.receive(data(1, bytes(INITIAL_WINDOW)))
    assert joined(events) == [got(1, bytes(INITIAL_WINDOW))]
    with pytest.raises(RemoteProtocolError):
        machine.receive(data(1, b"x"))


# --- ends of streams


@pytest.mark.parametrize("we_first", [True, False])
def test_a_stream_is_forgotten_after_both_ends_of_file(we_first: bool) -> None:
    machine = opened()
    if we_first:
        machine.send_eof(1)
        assert machine.receive(data(1, b"late") + window(1, flags=FIN)) == [
            got(1, b"late"),
            EofReceived(1),
        ]
    else:
        machine.receive(window(1, flags=FIN))
        assert written(machine, 1, b"late") == data(1, b"late")
        machine.send_eof(1)
    assert machine.open_streams == 0
    with pytest.raises(LocalProtocolError):
        written(machine, 1, b"x")


def test_an_end_of_file_twice_is_ours_to_avoid() -> None:
    machine = opened()
    machine.send_eof(1)
    with pytest.raises(LocalProtocolError):
        machine.send_eof(1)


def test_what_comes_behind_our_reset_is_dropped() -> None:
    machine = opened()
    begun = data(1, b"half of this arrived before")
    assert machine.receive(begun[:20]) == [got(1, begun[12:20])]
    machine.reset(1)
    machine.reset(1)
    assert control_of(machine) == window(1, flags=RST)
    late = begun[20:] + data(1, b"more", flags=FIN) + window(1, 10) + window(1, flags=RST)
    assert machine.receive(late + frame(PING, ACK, 0, 5)) == [PongReceived(5)]
    assert machine.open_streams == 0 and machine.backlog == 0


def test_a_reset_takes_its_place_back_only_with_the_next_read() -> None:
    machine = server(max_inbound=2)
    flood = b"".join(window(stream, flags=SYN | RST) for stream in range(1, 201, 2))
    events = machine.receive(flood)
    assert sum(isinstance(event, StreamOpened) for event in events) == 2
    assert sum(isinstance(event, StreamRefused) for event in events) == 98
    assert machine.receive(window(201, flags=SYN)) == [StreamOpened(201)]


def test_one_stream_too_many_is_refused_and_its_bytes_are_dropped() -> None:
    machine = server(max_inbound=1)
    machine.receive(window(1, flags=SYN))
    control_of(machine)
    assert machine.receive(data(3, b"unheard", flags=SYN)) == [StreamRefused(3)]
    assert control_of(machine) == window(3, flags=RST)
    machine.receive(window(1, flags=RST))
    assert machine.receive(window(5, flags=SYN)) == [StreamOpened(5)]


# --- going away, floods


def test_after_the_peers_go_away_it_may_still_open_streams_and_we_may_not() -> None:
    machine = server()
    assert machine.receive(frame(GO_AWAY, 0, 0, 0)) == [GoAwayReceived(0)]
    with pytest.raises(LocalProtocolError):
        machine.open_stream()
    assert machine.receive(window(1, flags=SYN)) == [StreamOpened(1)]


def test_after_our_go_away_new_streams_are_refused_and_old_ones_live() -> None:
    machine = opened()
    machine.go_away(0)
    assert machine.receive(window(3, flags=SYN) + data(1, b"on")) == [
        StreamRefused(3),
        got(1, b"on"),
    ]


FLOODS = {
    "pings": [frame(PING, SYN, 0, 1)],
    "streams that are refused": [window(2 * n + 1, flags=SYN) for n in range(40_000)],
    "streams that are reset": [window(2 * n + 1, flags=SYN | RST) for n in range(40_000)],
    "short streams": [data(2 * n + 1, b"x", flags=SYN | RST) for n in range(40_000)],
}


def test_streams_may_be_opened_out_of_order() -> None:
    """go-yamux numbers a stream before it sends the SYN, and another one may overtake it."""
    machine = server()
    order = [5, 1, 3, 9, 7]
    events = machine.receive(b"".join(window(stream, flags=SYN) for stream in order))
    assert events == [StreamOpened(stream) for stream in order]
    with pytest.raises(RemoteProtocolError):
        machine.receive(window(3, flags=SYN))


def test_data_on_an_id_that_was_passed_over_is_a_violation() -> None:
    machine = server()
    machine.receive(window(5, flags=SYN))
    with pytest.raises(RemoteProtocolError):
        machine.receive(data(3, b"?"))


def test_ids_that_were_passed_over_long_ago_count_as_closed() -> None:
    machine = server()
    machine.receive(window(2 * MAX_SKIPPED + 11, flags=SYN))
    assert machine.receive(window(13, flags=SYN)) == [StreamOpened(13)]
    with pytest.raises(RemoteProtocolError):
        machine.receive(window(9, flags=SYN))


@pytest.mark.parametrize("frames", FLOODS.values(), ids=FLOODS)
def test_a_flood_whose_answers_are_not_read_is_bounded(frames: list[bytes]) -> None:
    machine = server(max_inbound=8)

    def flood() -> None:
        for index in range(40_000):
            machine.receive(frames[index % len(frames)])
            assert machine.backlog <= 2 * MAX_CONTROL_BACKLOG

    with pytest.raises(RemoteProtocolError):
        flood()


def test_pings_whose_answers_are_read_are_welcome() -> None:
    machine = server()
    for _ in range(40_000):
        machine.receive(frame(PING, SYN, 0, 1))
        control_of(machine)
