"""What the connections of one host share: the list of those with something to send, and a bound on
what all of them hold unread."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final, Protocol

from appliance.dataplane.windows import CONNECTION_GROWTH, WindowBudget
from appliance.units import KIB, MIB


@dataclass(frozen=True, slots=True)
class PlaneLimits:
    """Bounds in bytes. The plan gives them (`sizing`)."""

    connection_unread: int = 4 * MIB
    """What the streams of one connection may hold unread before it is no longer read."""
    total_unread: int = 64 * MIB
    """The same for all connections together: beyond it each may hold only `assured`."""
    assured: int = 256 * KIB
    connection_growth: int = CONNECTION_GROWTH
    """What the receive windows of one connection may grow by."""
    total_growth: int = 64 * MIB


class Pumped(Protocol):
    """A connection, as far as the plane drives it."""

    def pump(self) -> None:
        """Send what can be sent without waiting. Never raises."""
        ...


class Paused(Protocol):
    """A connection that is not read, since too much of what came is unread."""

    def resume(self) -> None:
        """Look again whether it may be read."""
        ...


class Borrower(Protocol):
    """Keeps parts of the buffer in which received bytes lie, for the length of one step."""

    def settle(self) -> None:
        """The buffer is about to be used again: copy what is still needed."""
        ...


class Debtor(Protocol):
    """Has used up received bytes that it did not credit to their sender yet."""

    def pay(self) -> None: ...


class Plane:
    """Connections touched in one step are pumped at its end, in the order in which they were.

    Whoever drives a connection (a reader, a writer, a task that sends or receives, a timer)
    calls `flush` before it waits, so that nothing ready stays behind.
    """

    __slots__ = ("_borrowers", "_debtors", "_flushing", "_growth", "_paused", "_touched", "limits",
                 "unread")  # fmt: skip

    def __init__(self, limits: PlaneLimits = PlaneLimits()) -> None:
        self.limits: Final = limits
        self.unread = 0
        """Bytes received on streams whose readers did not take them yet."""
        self._touched: deque[Pumped] = deque()
        self._borrowers: list[Borrower] = []
        self._debtors: list[Debtor] = []
        self._paused: set[Paused] = set()
        self._flushing = False
        self._growth = WindowBudget(limits.total_growth)

    def windows(self) -> WindowBudget:
        """The budget of a new connection."""
        return WindowBudget(self.limits.connection_growth, shared=self._growth)

    def touch(self, session: Pumped) -> None:
        """`session` has something to send."""
        self._touched.append(session)

    def borrow(self, borrower: Borrower) -> None:
        """`borrower` keeps received bytes where they lie until the end of the step."""
        self._borrowers.append(borrower)

    def owe(self, debtor: Debtor) -> None:
        """`debtor` pays what it owes in one sum, before this flush ends."""
        self._debtors.append(debtor)

    def flush(self) -> None:
        """Pump what was touched, also by pumping. Within a `flush` the outer one does it."""
        if self._flushing:
            return
        self._flushing = True
        try:
            while self._touched or self._debtors:
                while self._touched:
                    self._touched.popleft().pump()
                while self._debtors:
                    self._debtors.pop().pay()
        finally:
            self._flushing = False

    def settle(self) -> None:
        """The end of a step: flush, then free the buffer of received bytes."""
        self.flush()
        while self._borrowers:
            self._borrowers.pop().settle()

    def add_unread(self, size: int) -> None:
        """Bytes came for a reader (positive), or were taken or dropped (negative)."""
        self.unread += size
        if size < 0 and self._paused and self.unread <= self.limits.total_unread:
            paused, self._paused = self._paused, set()
            for session in paused:
                session.resume()

    def pause(self, session: Paused) -> None:
        """`session` waits until the total is below its bound."""
        self._paused.add(session)

    def forget(self, session: Paused) -> None:
        """`session` is over."""
        self._paused.discard(session)
