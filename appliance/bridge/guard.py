"""The one guard: whatever goes wrong in the service of one peer ends there."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterator

import trio

from appliance.bridge.telemetry import Telemetry
from appliance.errors import Fault, LocalProtocolError, StreamReset
from appliance.events import emit
from appliance.policy.backoff import RESTART_CEILING, RESTART_FIRST, Backoff

_log = logging.getLogger("appliance.bridge")


async def guarded(
    telemetry: Telemetry,
    name: str | Callable[[], str],
    peer: str,
    body: Callable[[], Awaitable[None]],
) -> bool:
    """Run `body`; True if it returned, False if it failed in any way but cancellation.

    `name` says what was served (a callable is asked once it failed). A reset or a fault of the
    peer is that peer's affair and only logged; anything else is a bug of ours: counted under that
    name, logged with its traceback at debug level, and survived. What a nursery of `body` has
    gathered is judged one by one; a cancellation among it goes on, alone.
    """
    try:
        await body()
    except Exception as error:  # noqa: BLE001 - the one guard
        _survive(telemetry, _text(name), peer, error)
    except BaseExceptionGroup as group:
        # Not an Exception, hence a cancellation is in it, or the interpreter wants to end.
        ours, others = group.split(Exception)
        if ours is not None:
            _survive(telemetry, _text(name), peer, ours)
        if others is not None:
            raise others from None
    else:
        return True
    return False


def _survive(telemetry: Telemetry, what: str, peer: str, error: Exception) -> None:
    for leaf in _leaves(error):
        if isinstance(leaf, StreamReset):
            emit(_log, logging.DEBUG, "stream_reset", what=what, peer=peer, detail=str(leaf))
        elif isinstance(leaf, Fault) and not isinstance(leaf, LocalProtocolError):
            emit(
                _log,
                logging.INFO,
                "peer_fault",
                what=what,
                peer=peer,
                reason=leaf.reason.value,
                detail=leaf.detail,
            )
        else:
            _our_fault(telemetry, what, peer, leaf)


def _leaves(error: Exception) -> Iterator[Exception]:
    if isinstance(error, ExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


async def supervised(telemetry: Telemetry, name: str, body: Callable[[], Awaitable[None]]) -> None:
    """Run `body` for ever: a fault of ours ends it for a while, and never its neighbours.

    It is run again after 1 s, then 2 s, up to a minute. For services that do not return.
    """
    backoff = Backoff(RESTART_FIRST, RESTART_CEILING)
    rng = random.Random()
    while True:
        await guarded(telemetry, name, "-", body)
        await trio.sleep(backoff.failed(rng))


def _text(name: str | Callable[[], str]) -> str:
    return name if isinstance(name, str) else name()


def _our_fault(telemetry: Telemetry, what: str, peer: str, error: Exception) -> None:
    telemetry.faults[what] += 1
    telemetry.last_fault[what] = (time.time(), f"{type(error).__name__}: {error}"[:200])
    if telemetry.worth_a_line(("fault", what)):
        emit(
            _log,
            logging.ERROR,
            "handler_fault",
            what=what,
            peer=peer,
            error=f"{type(error).__name__}: {error}"[:500],
            count=telemetry.faults[what],
        )
        _log.debug("handler_fault traceback", exc_info=error)
