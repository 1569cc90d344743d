"""For every test here: buffers on loan come back, and nobody looks at them afterwards."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from appliance.dataplane import buffers

_POISON = b"\xaa" * buffers.SIZE


class _Returned(list[memoryview]):
    """Buffers that nobody has borrowed. What is returned is overwritten at once."""

    made = 0

    def __bool__(self) -> bool:
        self.made += not len(self)  # `borrow` makes one if there is none
        return len(self) > 0

    def append(self, buffer: memoryview) -> None:
        assert not any(buffer is other for other in self), "returned twice"
        buffer[:] = _POISON
        super().append(buffer)


@pytest.fixture(autouse=True)
def poisoned_buffers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Bytes that are read from a buffer behind its loan are 0xAA and not what was sent."""
    returned = _Returned()
    monkeypatch.setattr(buffers, "_free", returned)
    yield
    assert len(returned) == returned.made, "a buffer on loan was not returned"
    assert len(returned) <= 8, "two for each of three nested connections, and two for a read"
