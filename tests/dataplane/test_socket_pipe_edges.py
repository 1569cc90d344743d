"""The pipe to the node at its edges: what comes before it, and its being cancelled."""

from __future__ import annotations

import pytest
import trio

from appliance.dataplane.muxstream import MuxStream
from appliance.dataplane.pipe import PipeEnd
from appliance.errors import StreamReset
from appliance.reasons import Reason
from appliance.units import KIB
from appliance.wire import multistream
from tests.dataplane.chains import until
from tests.dataplane.sessions import read_to_end, say, settle
from tests.dataplane.test_socket_pipe import (
    AGREED,
    CLEAN,
    PAYLOAD,
    PROTOCOL,
    fill,
    piped,
    send_until_reset,
)

# --- the negotiation in front of it


@pytest.mark.parametrize("size", [1, 3, 20, 1 << 20])
async def test_the_agreement_may_arrive_in_pieces(size: int) -> None:
    async with piped(agree=multistream.Dialler(PROTOCOL).receive, segments=[size]) as state:
        await state.node.send_all(b"node first")
        got = b""
        while len(got) < 10:
            got += await state.peer.receive_some()
        assert got == b"node first"
        await state.peer.send_all(AGREED)
        await settle()
        assert state.counts.backward == state.first_backward == 0
        await say(state.peer, b"payload")
        assert await read_to_end(state.node) == b"payload"
        assert state.first_backward == 1 and state.counts.backward == 7
        await state.node.send_eof()
        assert await read_to_end(state.peer) == b""
    assert state.end == CLEAN


@pytest.mark.parametrize("cut", [0, 5, len(AGREED), len(AGREED) + 3])
async def test_what_was_read_before_comes_first(cut: int) -> None:
    """A part was read from the stream, a part waits in it, the rest is yet to come."""
    wire = AGREED + b"payload"

    def before(peer: MuxStream) -> None:
        peer.send_nowait(memoryview(wire[cut:]))

    async with piped(
        agree=multistream.Dialler(PROTOCOL).receive,
        leftover=wire[:cut],
        segments=[4],
        before=before,
    ) as state:
        await say(state.peer, b" and more")
        assert await read_to_end(state.node) == b"payload and more"
        await state.node.send_eof()
        assert await read_to_end(state.peer) == b""
    assert state.end == CLEAN
    assert state.counts.backward == len(b"payload and more")


@pytest.mark.parametrize("how", ["before", "in pieces", "at once"])
async def test_a_refusal_is_that_fault_alone(how: str) -> None:
    refusal = multistream.line(multistream.HEADER) + multistream.line("na")

    def before(peer: MuxStream) -> None:
        if how == "before":
            peer.send_nowait(memoryview(refusal))

    segments = [1] if how == "in pieces" else None
    async with piped(
        agree=multistream.Dialler(PROTOCOL).receive, before=before, segments=segments
    ) as state:
        if how != "before":
            await state.node.send_all(b"PRI * HTTP/2.0")
            await state.peer.send_all(refusal)
        await state.over.wait()
        with pytest.raises(StreamReset):
            await read_to_end(state.node)
        with pytest.raises(StreamReset):
            await read_to_end(state.peer)
    assert state.end is None and state.fault is not None
    assert state.fault.reason is Reason.UNSUPPORTED_PROTOCOL


async def test_an_end_of_file_before_the_agreement_is_no_clean_end() -> None:
    async with piped(agree=multistream.Dialler(PROTOCOL).receive) as state:
        await state.peer.send_all(AGREED[:5])
        await state.peer.send_eof()
        await state.over.wait()
    assert state.end == PipeEnd(clean=False, reset_by="right")


@pytest.mark.parametrize("how", ["end", "reset", "bytes and end"])
async def test_what_happened_before_it_began(how: str) -> None:
    def before(peer: MuxStream) -> None:
        if how == "bytes and end":
            peer.send_nowait(memoryview(b"early"))
        if how == "reset":
            peer.reset()
        else:
            peer.half_close()
            peer.session.flush()

    async with piped(before=before) as state:
        if how == "reset":
            await state.over.wait()
        else:
            assert await read_to_end(state.node) == (b"early" if how != "end" else b"")
            await say(state.node, b"late")
            assert await read_to_end(state.peer) == b"late"
    assert state.end == (CLEAN if how != "reset" else PipeEnd(clean=False, reset_by="right"))


# --- cancellation


@pytest.mark.parametrize(
    "moment", ["idle", "stalled node", "stalled peer", "after one end", "after the other"]
)
async def test_cancelled_it_resets_both(moment: str) -> None:
    async with piped(buffer=4 * KIB) as state, trio.open_nursery() as nursery:
        refused = trio.Event()

        async def feed_node() -> None:
            with pytest.raises(StreamReset):
                await state.node.send_all(PAYLOAD)
            refused.set()

        match moment:
            case "stalled node":
                nursery.start_soon(send_until_reset, state.peer)
                await until(lambda: state.inner.sending)
            case "stalled peer":
                nursery.start_soon(feed_node)
                await until(lambda: state.stream.sending)
            case "after one end":
                await state.node.send_eof()
                assert await state.peer.receive_some() == b""
            case "after the other":
                await state.peer.send_eof()
                assert await state.node.receive_some() == b""
        await settle()
        state.scope.cancel()
        await state.over.wait()
        await settle()
        with pytest.raises(StreamReset):
            await read_to_end(state.peer)
        if moment == "stalled peer":
            await refused.wait()
            return
        with pytest.raises(StreamReset):
            # Whoever has read to the end hears of it by writing.
            await (
                state.node.send_all(b"anybody there?")
                if moment == "after the other"
                else read_to_end(state.node)
            )


@pytest.mark.parametrize("after", range(3))
async def test_bytes_that_come_while_it_is_cancelled_hurt_nobody(after: int) -> None:
    """The node does not read, so that they want a task to wait for room: of a pipe that is on its
    way out, in a connection whose other streams have nothing to do with it."""
    for _ in range(20):  # the order of tasks is up to trio
        async with piped(buffer=4 * KIB) as state:
            await fill(state.inner)
            state.scope.cancel()
            for _ in range(after):
                await trio.lowlevel.checkpoint()
            state.peer.send_nowait(memoryview(bytes(1000)))
            await state.over.wait()
            await settle()
            assert not state.near.session.closed.is_set()
        assert state.end is None
