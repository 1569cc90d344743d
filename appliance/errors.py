"""The errors that cross room borders, each saying whose fault it was."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from appliance.reasons import Reason


class ApplianceError(Exception):
    """Something the operator must know: one clear sentence and, where there is one, a hint.

    The command line prints it without a traceback and exits with code 1. A `located` message
    begins with its own place (`file:line:column`) and is printed as it is.
    """

    located: ClassVar[bool] = False

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class Fault(Exception):
    """Base of the errors that carry a reason code of `appliance.reasons`."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(f"{reason.value}: {detail}" if detail else reason.value)
        self.reason = reason
        self.detail = detail


class LocalProtocolError(Fault):
    """We asked a protocol machine for something that is not legal in its state: our bug."""


class RemoteProtocolError(Fault):
    """The peer broke the protocol. `reason.wire_status` says what to answer, if anything."""


class Refused(Fault):
    """A policy said no. Never a bug: answered, counted and logged by `bridge.refusals`."""


class StreamReset(Exception):
    """The stream ended abnormally: reset by the peer, by us, or with its connection.

    Bytes received before the reset may be lost; bytes sent may not have arrived.
    """
