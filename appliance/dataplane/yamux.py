"""yamux as a machine without I/O: bytes in → events out; calls in → bytes out.

Source: hashicorp/yamux spec.md and libp2p's yamux spec. Every limit is checked on input; a
violation is a `RemoteProtocolError(yamux-violation)` and the connection is over.

Memory: the machine keeps control frames that nobody took yet, and no payload: what arrives is
handed over in the events at once, at most the receive window of each stream ahead of its reader;
what leaves is written where the driver wants it (`write_data`).
"""

from __future__ import annotations

from typing import Final

from appliance.dataplane.frames import (
    ACK,
    FIN,
    HEADER,
    HEADER_SIZE,
    LENGTH,
    RST,
    SYN,
    DataReceived,
    EofReceived,
    Event,
    GoAwayReceived,
    Kind,
    PongReceived,
    ResetReceived,
    StreamOpened,
    StreamRefused,
    WindowOpened,
)
from appliance.dataplane.windows import INITIAL_WINDOW, ReceiveWindow, WindowBudget
from appliance.errors import LocalProtocolError, RemoteProtocolError
from appliance.reasons import Reason
from appliance.units import KIB

MAX_DATA: Final = 64 * KIB
"""Payload of one frame of ours: what most implementations write at a time."""
MAX_SKIPPED: Final = 256
"""Stream ids that the peer passed over and may still open; those before them count as closed."""
MAX_CONTROL_BACKLOG: Final = 256 * KIB
"""Unsent answers to pings and new streams; more means that the peer floods and does not read."""
_MAX_WINDOW: Final = 0xFFFF_FFFF
_MAX_STREAM_ID: Final = 0xFFFF_FFFF


class _Stream:
    """Window and half-close bookkeeping of one stream."""

    __slots__ = ("eof_in", "eof_out", "receiving", "send_window")

    def __init__(self) -> None:
        self.send_window = INITIAL_WINDOW
        self.receiving = ReceiveWindow()
        self.eof_in = False
        self.eof_out = False


class Yamux:
    """One end of a yamux connection.

    `max_inbound` is the number of streams that the peer may have open at once, `windows` what
    receive windows may grow by altogether. A stream that the peer resets gives its place back with
    the next call of `receive`: until then its owner did not even have a chance to notice, and a
    flood of open and reset would be a flood of owners.
    """

    def __init__(
        self, *, client: bool, max_inbound: int = 64, windows: WindowBudget | None = None
    ) -> None:
        self._next_id = 1 if client else 2
        self._inbound_parity = 0 if client else 1
        self._next_inbound = 2 if client else 1
        self._skipped: set[int] = set()
        self._max_inbound = max_inbound
        self._inbound_open = 0
        self._inbound_freed = 0
        self._windows = windows or WindowBudget()
        self._streams: dict[int, _Stream] = {}
        self._out = bytearray()
        self._control_backlog = 0
        self._head = bytearray()
        # The DATA frame whose payload is still arriving: stream, bytes missing, flags to apply.
        self._body_stream = 0
        self._body_left = 0
        self._body_flags = 0
        self._said_go_away = False
        self._heard_go_away = False

    # --- what the driver asks

    @property
    def backlog(self) -> int:
        """Bytes of frames not yet taken by `write_control`."""
        return len(self._out)

    @property
    def open_streams(self) -> int:
        return len(self._streams)

    def send_window(self, stream_id: int) -> int:
        """Bytes that the peer is ready to take on this stream; 0 if the stream is gone."""
        stream = self._streams.get(stream_id)
        return 0 if stream is None else stream.send_window

    def write_control(self, into: memoryview) -> int:
        """Move frames of the backlog into `into`, as far as there is room; the bytes written."""
        size = min(len(self._out), len(into))
        into[:size] = self._out[:size]
        del self._out[:size]
        self._control_backlog = max(0, self._control_backlog - size)
        return size

    # --- what the driver does

    def open_stream(self) -> int:
        """A new stream of ours. Raises LocalProtocolError when ids or the peer's patience end."""
        if self._heard_go_away or self._next_id > _MAX_STREAM_ID:
            raise LocalProtocolError(Reason.CONNECTION_LOST, "no more streams here")
        stream_id = self._next_id
        self._next_id += 2
        self._streams[stream_id] = _Stream()
        self._frame(Kind.WINDOW_UPDATE, SYN, stream_id, 0)
        return stream_id

    def write_data(self, stream_id: int, data: memoryview, into: memoryview) -> int:
        """A frame with a prefix of `data` that fits the window, a frame and `into`.

        The length of the prefix, 0 if nothing was written; the frame is 12 bytes longer.
        """
        stream = self._sendable(stream_id)
        size = min(len(data), stream.send_window, MAX_DATA, len(into) - HEADER_SIZE)
        if size <= 0:
            return 0
        stream.send_window -= size
        HEADER.pack_into(into, 0, 0, Kind.DATA, 0, stream_id, size)
        into[HEADER_SIZE : HEADER_SIZE + size] = data[:size]
        return size

    def extend_data(self, stream_id: int, data: memoryview, frame: memoryview, have: int) -> int:
        """Put a prefix of `data` behind the `have` bytes of payload that `frame` has already.

        `frame` begins with what `write_data` wrote for the same stream, and nothing was written
        since. The length of the prefix, by which the frame is longer.
        """
        stream = self._sendable(stream_id)
        room = min(MAX_DATA, len(frame) - HEADER_SIZE) - have
        size = min(len(data), stream.send_window, room)
        if size <= 0:
            return 0
        stream.send_window -= size
        start = HEADER_SIZE + have
        frame[start : start + size] = data[:size]
        LENGTH.pack_into(frame, HEADER_SIZE - LENGTH.size, have + size)
        return size

    def send_eof(self, stream_id: int) -> None:
        """Half-close. Raises LocalProtocolError if that happened already or the stream is gone."""
        stream = self._sendable(stream_id)
        stream.eof_out = True
        self._frame(Kind.WINDOW_UPDATE, FIN, stream_id, 0)
        self._forget_if_done(stream_id, stream)

    def reset(self, stream_id: int) -> None:
        """End a stream in both directions; nothing if it is gone."""
        if stream_id in self._streams:
            self._forget(stream_id)
            self._frame(Kind.WINDOW_UPDATE, RST, stream_id, 0)

    def credit(
        self, stream_id: int, consumed: int, *, now: float = 0.0, rtt: float | None = None
    ) -> None:
        """The reader took `consumed` bytes: tell the peer once half a window has gathered.

        `now` and `rtt` (seconds, None while unknown) let the window grow for a fast reader.
        """
        stream = self._streams.get(stream_id)
        if stream is None or stream.eof_in:
            return
        streams = len(self._streams)
        if granted := stream.receiving.consumed(consumed, self._windows, streams, now, rtt):
            self._frame(Kind.WINDOW_UPDATE, 0, stream_id, granted)

    def ping(self, value: int) -> None:
        """Ask for a sign of life; `PongReceived(value)` follows."""
        self._frame(Kind.PING, SYN, 0, value)

    def go_away(self, code: int) -> None:
        """Say that no new streams are welcome; existing ones live on."""
        self._said_go_away = True
        self._frame(Kind.GO_AWAY, 0, 0, code)

    def end(self) -> None:
        """The connection is over: every stream is gone, what windows grew by is given back."""
        for stream_id in list(self._streams):
            self._forget(stream_id)

    # --- input

    def receive(self, data: bytes | memoryview) -> list[Event]:
        """Events of these bytes, in order; any segmentation gives the same bytes per stream.

        Raises RemoteProtocolError(yamux-violation); the machine is then unusable.
        """
        events: list[Event] = []
        self._inbound_freed = 0
        view = memoryview(data)
        position, end = 0, len(view)
        while position < end:
            if self._body_left:
                size = min(self._body_left, end - position)
                self._body_left -= size
                if self._body_stream:
                    piece = view[position : position + size]
                    events.append(DataReceived(self._body_stream, piece))
                position += size
                if not self._body_left:
                    self._flags_behind(events, self._body_stream, self._body_flags)
                continue
            if not self._head and end - position >= HEADER_SIZE:
                fields = HEADER.unpack_from(view, position)
                position += HEADER_SIZE
            else:
                missing = HEADER_SIZE - len(self._head)
                self._head += view[position : position + missing]
                position += missing
                if len(self._head) < HEADER_SIZE:
                    break
                fields = HEADER.unpack(self._head)
                self._head.clear()
            version, kind, flags, stream_id, length = fields
            if not (version or kind or flags) and 0 < length <= end - position:
                # Nearly every frame of a busy connection: payload that is all here.
                stream = self._streams.get(stream_id)
                if stream is not None and not stream.eof_in and stream.receiving.received(length):
                    piece = view[position : position + length]
                    events.append(DataReceived(stream_id, piece))
                    position += length
                    continue
                # What is wrong with it is found below: the window is overrun for good.
            if version != 0 or kind > Kind.GO_AWAY or flags > 0xF:
                raise _violation(f"header {version}/{kind}/{flags:#x}")
            self._header(events, Kind(kind), flags, stream_id, length)
        return events

    def _header(
        self, events: list[Event], kind: Kind, flags: int, stream_id: int, length: int
    ) -> None:
        if kind is Kind.PING:
            self._on_ping(events, flags, stream_id, length)
            return
        if kind is Kind.GO_AWAY:
            if stream_id:
                raise _violation("go-away on a stream")
            self._heard_go_away = True
            events.append(GoAwayReceived(length))
            return
        if stream_id == 0:
            raise _violation(f"{kind.name.lower()} on stream 0")
        if flags & SYN:
            self._on_syn(events, stream_id)
        stream = self._streams.get(stream_id)
        if stream is None and not self._was_known(stream_id):
            raise _violation(f"stream {stream_id} was never opened")
        if kind is Kind.DATA:
            self._on_data(events, stream, stream_id, flags, length)
            return
        if stream is not None and length:
            stream.send_window += length
            if stream.send_window > _MAX_WINDOW:
                raise _violation(f"window of stream {stream_id} overflows")
            events.append(WindowOpened(stream_id))
        self._flags_behind(events, stream_id if stream is not None else 0, flags)

    def _on_ping(self, events: list[Event], flags: int, stream_id: int, value: int) -> None:
        if stream_id or flags not in (SYN, ACK):
            raise _violation("malformed ping")
        if flags == SYN:
            self._control(Kind.PING, ACK, 0, value)
        else:
            events.append(PongReceived(value))

    def _on_syn(self, events: list[Event], stream_id: int) -> None:
        if stream_id % 2 != self._inbound_parity or self._was_known(stream_id):
            raise _violation(f"stream id {stream_id} is not the peer's to open")
        self._skipped.discard(stream_id)
        if stream_id >= self._next_inbound:
            # go-yamux numbers a stream in one step and sends its SYN in another: others overtake.
            first = max(self._next_inbound, stream_id - 2 * MAX_SKIPPED)
            self._skipped.update(range(first, stream_id, 2))
            self._next_inbound = stream_id + 2
            while len(self._skipped) > MAX_SKIPPED:
                self._skipped.remove(min(self._skipped))
        in_use = self._inbound_open + self._inbound_freed
        if in_use >= self._max_inbound or self._said_go_away:
            self._control(Kind.WINDOW_UPDATE, RST, stream_id, 0)
            events.append(StreamRefused(stream_id))
            return
        self._inbound_open += 1
        self._streams[stream_id] = _Stream()
        self._control(Kind.WINDOW_UPDATE, ACK, stream_id, 0)
        events.append(StreamOpened(stream_id))

    def _on_data(
        self, events: list[Event], stream: _Stream | None, stream_id: int, flags: int, length: int
    ) -> None:
        if stream is None:
            # Late payload of a stream that we reset or refused: it was within its window once.
            if length > self._windows.per_stream:
                raise _violation(f"{length} bytes on a closed stream")
        elif stream.eof_in and length:
            raise _violation(f"data behind the end of stream {stream_id}")
        elif not stream.receiving.received(length):
            raise _violation(f"stream {stream_id} overruns its window")
        known = stream_id if stream is not None else 0
        if length:
            self._body_stream, self._body_left, self._body_flags = known, length, flags
        else:
            self._flags_behind(events, known, flags)

    def _flags_behind(self, events: list[Event], stream_id: int, flags: int) -> None:
        """FIN and RST take effect behind the payload that they came with."""
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        if flags & RST:
            self._forget(stream_id)
            self._inbound_freed += stream_id % 2 == self._inbound_parity
            events.append(ResetReceived(stream_id))
        elif flags & FIN and not stream.eof_in:
            stream.eof_in = True
            events.append(EofReceived(stream_id))
            self._forget_if_done(stream_id, stream)

    # --- bookkeeping

    def _was_known(self, stream_id: int) -> bool:
        if stream_id % 2 == self._inbound_parity:
            return stream_id < self._next_inbound and stream_id not in self._skipped
        return stream_id < self._next_id

    def _sendable(self, stream_id: int) -> _Stream:
        stream = self._streams.get(stream_id)
        if stream is None or stream.eof_out:
            raise LocalProtocolError(Reason.UNEXPECTED_MESSAGE, "sending on a closed stream")
        return stream

    def _forget_if_done(self, stream_id: int, stream: _Stream) -> None:
        if stream.eof_in and stream.eof_out:
            self._forget(stream_id)

    def _forget(self, stream_id: int) -> None:
        stream = self._streams.pop(stream_id)
        self._windows.give_back(stream.receiving)
        if stream_id % 2 == self._inbound_parity:
            self._inbound_open -= 1
        if self._body_stream == stream_id:
            self._body_stream = 0

    def _frame(self, kind: Kind, flags: int, stream_id: int, length: int) -> None:
        self._out += HEADER.pack(0, kind, flags, stream_id, length)

    def _control(self, kind: Kind, flags: int, stream_id: int, length: int) -> None:
        """A frame that the peer provoked."""
        self._control_backlog += HEADER_SIZE
        if self._control_backlog > MAX_CONTROL_BACKLOG:
            raise _violation("the peer provokes answers and does not read them")
        self._frame(kind, flags, stream_id, length)


def _violation(detail: str) -> RemoteProtocolError:
    return RemoteProtocolError(Reason.YAMUX_VIOLATION, detail)
