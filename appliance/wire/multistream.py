"""multistream-select 1.0 as two machines without I/O.

Source: multiformats/multistream-select and libp2p's connections spec. Each line travels behind its
varint length and ends in a newline. The dialler may send its choice together with the header and
go on at once ("lazily"): that saves a round trip for each layer and is legal, since the listener
reads one line after the other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from appliance.errors import RemoteProtocolError
from appliance.reasons import Reason
from appliance.wire.framing import Deframer, frame

HEADER: Final = "/multistream/1.0.0"
MAX_LINE: Final = 1024
"""Bytes of one line; protocol names in the field have fewer than 100 (go-multistream: 64 KiB)."""
MAX_PROPOSALS: Final = 32
"""Lines that a dialler may spend before it has chosen; more is somebody playing."""
_NOT_AVAILABLE: Final = "na"


def line(text: str) -> bytes:
    """One line, framed."""
    return frame(text.encode() + b"\n")


def _text(message: bytes) -> str:
    if not message.endswith(b"\n"):
        raise RemoteProtocolError(Reason.MALFORMED_MESSAGE, "multistream line without newline")
    try:
        return message[:-1].decode("ascii")
    except UnicodeDecodeError:
        raise RemoteProtocolError(
            Reason.MALFORMED_MESSAGE, "multistream line is not ASCII"
        ) from None


class Dialler:
    """Proposes one protocol. `to_send` goes out in front of the first bytes of the protocol."""

    def __init__(self, protocol: str) -> None:
        self.protocol = protocol
        self.to_send = line(HEADER) + line(protocol)
        self._expected = [HEADER, protocol]
        self._deframer = Deframer(MAX_LINE)

    def receive(self, data: bytes) -> bytes | None:
        """None while the answer is incomplete; then the bytes behind it (possibly empty).

        Raises RemoteProtocolError: unsupported-protocol for "na", malformed-message otherwise.
        """
        self._deframer.feed(data)
        while self._expected:
            message = self._deframer.next_message()
            if message is None:
                return None
            text = _text(message)
            if text == _NOT_AVAILABLE and len(self._expected) == 1:
                raise RemoteProtocolError(Reason.UNSUPPORTED_PROTOCOL, self.protocol)
            if text != self._expected[0]:
                raise RemoteProtocolError(
                    Reason.MALFORMED_MESSAGE, f"multistream answered {text[:64]!r}"
                )
            del self._expected[0]
        return self._deframer.take_rest()


class Listener:
    """Answers proposals until one is supported."""

    def __init__(self, supports: Callable[[str], bool]) -> None:
        self._supports = supports
        self._deframer = Deframer(MAX_LINE)
        self._greeted = False
        self._proposals = 0
        self._out = bytearray()
        self.protocol: str | None = None

    def receive(self, data: bytes) -> bytes | None:
        """None while nothing is chosen; then the bytes behind the choice. Call `data_to_send`.

        Raises RemoteProtocolError: malformed-message, or unsupported-protocol after 32 proposals.
        """
        self._deframer.feed(data)
        while self.protocol is None:
            message = self._deframer.next_message()
            if message is None:
                return None
            self._line(_text(message))
        return self._deframer.take_rest()

    def data_to_send(self) -> bytes:
        out = bytes(self._out)
        self._out.clear()
        return out

    def _line(self, text: str) -> None:
        if not self._greeted:
            if text != HEADER:
                raise RemoteProtocolError(Reason.MALFORMED_MESSAGE, "no multistream header")
            self._greeted = True
            self._out += line(HEADER)
            return
        self._proposals += 1
        if self._supports(text):
            self.protocol = text
            self._out += line(text)
        elif self._proposals >= MAX_PROPOSALS:
            raise RemoteProtocolError(Reason.UNSUPPORTED_PROTOCOL, "too many proposals")
        else:
            self._out += line(_NOT_AVAILABLE)
