"""Whose turn it is to send: deficit round robin, with a short cut for whoever just woke up.

Source: RFC 8290 (FQ-CoDel), section 4.2: two lists; who has sent nothing lately gets one quantum
before those who always have more, and cannot come back to the short cut without a full round.
"""

from __future__ import annotations

from typing import Final, Generic, Protocol, TypeVar

from appliance.units import KIB

QUANTUM: Final = 64 * KIB
"""Bytes of a turn: one frame of what most programs write at a time."""


class Sender(Protocol):
    """What takes turns. `place` and `deficit` belong to the `Turns`."""

    place: int
    deficit: int
    weight: int

    @property
    def sendable(self) -> int:
        """Bytes that could be sent now."""
        ...


S = TypeVar("S", bound=Sender)

_OUT, _NEW, _OLD = 0, 1, 2


class Turns(Generic[S]):
    """The senders of one connection that have something to send, or had a moment ago."""

    __slots__ = ("_new", "_old")

    def __init__(self) -> None:
        # Lists: they are short, and an empty deque would take 600 bytes of every connection.
        self._new: list[S] = []
        self._old: list[S] = []

    def __bool__(self) -> bool:
        return bool(self._new or self._old)

    @property
    def alone(self) -> bool:
        """Whether nobody else waits for a turn, so that the quantum need not be kept."""
        return len(self._new) + len(self._old) == 1

    def join(self, sender: S) -> None:
        """`sender` has something to send (again). Nothing if it waits for its turn already."""
        if sender.place == _OUT:
            sender.place = _NEW
            sender.deficit = QUANTUM * sender.weight
            self._new.append(sender)

    def leave(self, sender: S) -> None:
        """`sender` is gone: it does not stay in line, which may be for long."""
        if sender.place != _OUT:
            (self._new if sender.place == _NEW else self._old).remove(sender)
            sender.place = _OUT

    def next(self) -> S | None:
        """Whose turn it is: it may send up to its `deficit`, which is reduced by what it sent."""
        while True:
            if self._new:
                queue, place = self._new, _NEW
            elif self._old:
                queue, place = self._old, _OLD
            else:
                return None
            sender = queue[0]
            if sender.deficit <= 0:
                queue.pop(0)
                sender.deficit += QUANTUM * sender.weight
                self._defer(sender)
            elif sender.sendable <= 0:
                queue.pop(0)
                if place == _NEW and self._old:
                    # Else somebody who sends a little at a time would always be new.
                    self._defer(sender)
                else:
                    sender.place = _OUT
            else:
                return sender

    def _defer(self, sender: S) -> None:
        sender.place = _OLD
        self._old.append(sender)
