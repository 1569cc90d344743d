"""The world of one test: peers that end with it, and who may take part."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Final, Self

import pytest
import trio

from tests.interop.ours import running_ours
from tests.interop.peers import Peer, pattern, running, why_not

SECONDS: Final = 100.0
"""For one test; a peer that hangs ends it."""
JS, PY, RUST = (pytest.param(kind, marks=pytest.mark.slow) for kind in ("js", "py", "rust"))
OTHERS: Final = ["go", "js", "py", RUST]
"""Every other implementation, the one that builds slowly behind the marker `slow`."""
QUICK_GO: Final = ["go", JS, PY, RUST]
"""The same where one will do on every run: js and py take a second or two to start."""


class World:
    """Starts peers; all of them are gone after the block."""

    def __init__(self) -> None:
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._stack.enter_context(trio.fail_after(SECONDS))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        try:
            return await self._stack.__aexit__(kind, error, trace)
        except BaseExceptionGroup as group:
            # One nursery a peer: the test's own error is at the bottom, and alone.
            inner: BaseException = group
            while isinstance(inner, BaseExceptionGroup) and len(inner.exceptions) == 1:
                inner = inner.exceptions[0]
            raise inner from None

    async def start(self, kind: str, **options: Any) -> Peer:
        """A peer of that implementation; the test is skipped where it is not built."""
        if kind == "ours":
            return await self._stack.enter_async_context(running_ours(**options))
        if (reason := why_not(kind)) is not None:
            pytest.skip(reason)
        return await self._stack.enter_async_context(running(kind, options))


def combine(*groups: Any) -> Any:
    """A parameter of several peers; slow if one of them is. Its id names them in order."""
    names, marks = [], []
    for group in groups:
        if isinstance(group, str):
            names.append(group)
        else:
            names += group.values
            marks += group.marks
    return pytest.param(*names, marks=marks, id="-".join(names))


def circuit(relay: Peer, target: Peer) -> str:
    """The address of `target` through `relay`."""
    return f"{relay.addr}/p2p-circuit/p2p/{target.peer_id}"


async def until(what: Callable[[], object], *, seconds: float = 10.0) -> None:
    """Wait for something that has no event of its own."""
    with trio.fail_after(seconds):
        while not what():  # noqa: ASYNC110 - tables have no event
            await trio.sleep(0.01)


READS_RESET_AS_END: Final = frozenset({"py", "rust"})
"""py-libp2p 0.8.1 forgets a reset stream before its reader looks; rust's yamux says `Ok(0)`."""


def noticed(reader: Peer) -> str:
    """What the reader of a stream notices when the other side resets it."""
    return "eof" if reader.kind in READS_RESET_AS_END else "reset"


async def exercise(a: Peer, b: Peer, *, size: int) -> None:
    """Bytes, ends and resets in both directions on streams that a opens to b."""
    sent = pattern(size)
    # js-libp2p 3.3 resets a stream of which everything, the end included, came before it had
    # begun to negotiate; so to it nothing is sent before the protocol is agreed.
    agreed = b.kind == "js"
    echoed = await a.do("echo", peer=b.peer_id, bytes=size, agreed=agreed)
    assert echoed["bytes"] == size
    assert echoed["sha256"] == hashlib.sha256(sent).hexdigest()
    await b.event("served", protocol="/echo/1.0.0", peer=a.peer_id, bytes=size, ended="eof")
    # The answer is sent only after our end of file: it is lost if a half-close closes both ways.
    digest = await a.do("digest", peer=b.peer_id, bytes=size, agreed=agreed)
    assert digest["answer"] == f"{size} {hashlib.sha256(sent).hexdigest()}"
    await a.do("reset", peer=b.peer_id)
    await b.event("served", protocol="/echo/1.0.0", peer=a.peer_id, bytes=1, ended=noticed(b))
    assert (await a.do("be_reset", peer=b.peer_id))["ended"] == noticed(a)
    # One stream's reset left the others' connection alone.
    assert (await a.do("ping", peer=b.peer_id))["ms"] < 10_000
