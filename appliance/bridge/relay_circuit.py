"""A circuit that we carry for two peers: its limits, its end and its account."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Final

import trio

from appliance.bridge.host import Host
from appliance.bridge.negotiate import NegotiatedStream
from appliance.dataplane.alarms import Alarm
from appliance.dataplane.muxstream import MuxStream
from appliance.dataplane.pace import Pacer
from appliance.dataplane.pipe import PipeCounts, PipeEnd, pipe
from appliance.dataplane.splice import Splice
from appliance.events import emit
from appliance.reasons import Reason
from appliance.wire.circuit import Limit

_log: Final = logging.getLogger("appliance.bridge.relay")


class Circuit:
    """Carries bytes between two streams until both have ended, or a limit is reached.

    It has no task: bytes are spliced by whoever reads the connections, and the limit on time is
    an alarm of the host's. `on_over` is called once, when neither stream is in use any more.
    """

    __slots__ = ("_deadline", "_host", "_on_over", "_opened", "_source_id", "_splice",
                 "_target_id", "counts")  # fmt: skip

    def __init__(
        self, host: Host, source_id: str, target_id: str, on_over: Callable[[Circuit], None]
    ) -> None:
        self.counts = PipeCounts()
        self._host = host
        self._source_id = source_id
        self._target_id = target_id
        self._on_over = on_over
        self._opened = trio.current_time()
        self._deadline: Alarm | None = None
        self._splice: Splice | None = None
        host.telemetry.circuits_opened += 1
        emit(_log, logging.INFO, "circuit_opened", source=source_id, target=target_id)

    def splice(
        self, source: NegotiatedStream, target: NegotiatedStream, limit: Limit, pacer: Pacer
    ) -> bool:
        """Join the streams and return at once; False if they are of a muxer that cannot."""
        left, right = source.inner, target.inner
        if not isinstance(left, MuxStream) or not isinstance(right, MuxStream):
            return False
        if limit.seconds:
            self._deadline = self._host.alarms.at(self._opened + limit.seconds, self._time_is_up)
        self._splice = Splice(
            left,
            right,
            self.counts,
            plane=self._host.plane,
            leftover=(source.take_buffered(), target.take_buffered()),
            limit=limit.data_bytes,
            pacer=pacer,
            on_end=self._ended,
        )
        return True

    async def pipe(self, source: NegotiatedStream, target: NegotiatedStream, limit: Limit) -> None:
        """The same for streams of any kind, until the end and at the cost of three tasks."""
        end: PipeEnd | None = None
        try:
            with trio.move_on_after(limit.seconds or math.inf) as duration:
                end = await pipe(source, target, self.counts, limit=limit.data_bytes)
        finally:
            self._over(_outcome(end, timed_out=duration.cancelled_caught))

    def _time_is_up(self) -> None:
        assert self._splice is not None
        self._splice.reset()
        self._over(Reason.CIRCUIT_TIME_LIMIT.value)

    def _ended(self, end: PipeEnd) -> None:
        if self._deadline is not None:
            self._deadline.call_off()
        self._over(_outcome(end, timed_out=False))

    def _over(self, outcome: str) -> None:
        telemetry = self._host.telemetry
        telemetry.relayed_bytes += self.counts.total
        telemetry.circuit_seconds += trio.current_time() - self._opened
        telemetry.circuits_closed[outcome] += 1
        self._on_over(self)
        emit(
            _log,
            logging.INFO,
            "circuit_closed",
            source=self._source_id,
            target=self._target_id,
            bytes=self.counts.total,
            reason=outcome,
        )


def _outcome(end: PipeEnd | None, *, timed_out: bool) -> str:
    if timed_out:
        return Reason.CIRCUIT_TIME_LIMIT.value
    if end is None:
        return Reason.CONNECTION_LOST.value
    if end.over_limit:
        return Reason.CIRCUIT_BYTE_LIMIT.value
    return "closed" if end.clean else Reason.PEER_RESET.value
