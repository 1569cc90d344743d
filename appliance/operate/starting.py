"""The type of `task_status`, said structurally.

One of libp2p's dependencies installs old stubs of trio, which a type checker prefers to trio's own
types and which do not know `trio.TaskStatus`.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

_T_contra = TypeVar("_T_contra", contravariant=True)


class TaskStatus(Protocol[_T_contra]):
    """What `nursery.start` gives to the task that it starts."""

    def started(self, value: _T_contra, /) -> None:
        """Tell the starter that we are ready; once."""
        ...
