"""Large buffers on loan, so that an idle connection has none.

A buffer is borrowed for one step without a checkpoint. Steps nest (a connection inside a circuit
writes into the circuit's connection), which is why this is a stack of buffers and not one.
"""

from __future__ import annotations

from typing import Final

from appliance.dataplane.streams import BATCH

SIZE: Final = BATCH + 4096
"""A batch of plaintext, sealed: 18 bytes for each noise message, however small the last is."""

_free: Final[list[memoryview]] = []


def borrow() -> memoryview:
    """`SIZE` writable bytes. Whoever borrows gives back before the next checkpoint."""
    return _free.pop() if _free else memoryview(bytearray(SIZE))


def give_back(buffer: memoryview) -> None:
    """The loan is over: no part of the buffer is looked at any more."""
    _free.append(buffer)
