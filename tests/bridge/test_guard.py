"""The one guard: whose fault it was, what is counted, and what goes through."""

from __future__ import annotations

import logging

import pytest
import trio
from trio.testing import MockClock

from appliance.bridge.guard import guarded
from appliance.bridge.telemetry import Telemetry
from appliance.errors import LocalProtocolError, Refused, RemoteProtocolError, StreamReset
from appliance.reasons import Reason
from tests.bridge.world import logged

FAULT = RemoteProtocolError(Reason.MALFORMED_MESSAGE, "what they said")
BUG = LookupError("what we did")


async def guard(error: BaseException | None, telemetry: Telemetry) -> bool:
    async def body() -> None:
        await trio.lowlevel.checkpoint()
        if error is not None:
            raise error

    return await guarded(telemetry, lambda: "/a/protocol", "12D3KooPeer", body)


async def test_what_returns_is_well() -> None:
    telemetry = Telemetry()
    assert await guard(None, telemetry)
    assert not telemetry.faults


@pytest.mark.parametrize(
    ("error", "ours"),
    [
        (StreamReset("gone"), 0),
        (FAULT, 0),
        (Refused(Reason.CIRCUITS_FULL), 0),
        (LocalProtocolError(Reason.UNEXPECTED_MESSAGE), 1),
        (BUG, 1),
        (ExceptionGroup("a nursery", [FAULT]), 0),
        (ExceptionGroup("a nursery", [FAULT, ExceptionGroup("another", [StreamReset("x")])]), 0),
        (ExceptionGroup("a nursery", [FAULT, BUG]), 1),
        (ExceptionGroup("a nursery", [BUG, ExceptionGroup("another", [BUG])]), 2),
    ],
    ids=str,
)
async def test_everything_else_is_survived_and_counted_if_it_is_ours(
    error: Exception, ours: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    telemetry = Telemetry()
    assert not await guard(error, telemetry)
    assert telemetry.faults["/a/protocol"] == ours
    assert bool(logged(caplog, "handler_fault")) is bool(ours)
    if ours and isinstance(error, LookupError):
        assert telemetry.last_fault["/a/protocol"][1] == "LookupError: what we did"
        assert logged(caplog, "handler_fault")[0]["peer"] == "12D3KooPeer"


async def test_a_peers_fault_is_told_with_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    await guard(FAULT, Telemetry())
    (fields,) = logged(caplog, "peer_fault")
    assert fields["reason"] == "malformed-message" and fields["what"] == "/a/protocol"


async def test_cancellation_goes_through(autojump_clock: MockClock) -> None:
    telemetry = Telemetry()
    with trio.move_on_after(1) as scope:
        await guarded(telemetry, "x", "p", trio.sleep_forever)
    assert scope.cancelled_caught and not telemetry.faults


async def test_a_bug_in_the_cleanup_of_a_cancelled_handler_stays_here(
    autojump_clock: MockClock,
) -> None:
    """A group of a cancellation and an exception is no Exception: it passed the guard once, and
    what was left of it behind the cancelled scope would have ended the whole bridge."""
    telemetry = Telemetry()

    async def stumble() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise BUG

    async def body() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stumble)
            await trio.sleep_forever()

    with trio.move_on_after(1) as scope:
        await guarded(telemetry, "x", "p", body)
    assert scope.cancelled_caught
    assert telemetry.faults["x"] == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)])
async def test_the_interpreters_own_are_not_swallowed(error: BaseException) -> None:
    with pytest.raises(type(error)):
        await guard(error, Telemetry())
    with pytest.raises(BaseExceptionGroup) as caught:
        await guard(BaseExceptionGroup("a nursery", [error, BUG]), Telemetry())
    assert caught.value.exceptions == (error,)
