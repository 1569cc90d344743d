"""Room for one waiting task: what a stream needs instead of a parking lot, at 40 bytes."""

from __future__ import annotations

import trio


class Seat:
    """At most one task waits here; whoever owns the seat makes sure of that."""

    __slots__ = ("_task",)

    def __init__(self) -> None:
        self._task: trio.lowlevel.Task | None = None

    @property
    def taken(self) -> bool:
        return self._task is not None

    async def wait(self) -> None:
        """Until `wake`, or cancelled. Raises trio.BusyResourceError if it is taken."""
        if self._task is not None:
            raise trio.BusyResourceError("another task waits here")

        def abort(_: object) -> trio.lowlevel.Abort:
            self._task = None
            return trio.lowlevel.Abort.SUCCEEDED

        self._task = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(abort)

    def wake(self) -> None:
        """The waiting task goes on soon; nothing if there is none."""
        task, self._task = self._task, None
        if task is not None:
            trio.lowlevel.reschedule(task)
