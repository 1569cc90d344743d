"""DCUtR in trio: the exchange over the relayed connection, then dials until one side has it.

Each SYNC opens a window in which refused dials are repeated with random gaps (`wire.redial`);
meanwhile the listener may get the connection instead, in the agreed security role.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final, Literal

import trio

from appliance.bridge.connection import Connection, peer_deadline
from appliance.bridge.guard import guarded
from appliance.bridge.host import Host
from appliance.bridge.messages import decode_dcutr, encode_dcutr
from appliance.bridge.negotiate import NegotiatedStream
from appliance.errors import Fault, StreamReset
from appliance.events import emit
from appliance.network import Endpoint
from appliance.policy.reach import dialable
from appliance.reasons import Reason
from appliance.wire.dcutr import ATTEMPTS, PROTOCOL, Answerer, Connect, DialPlan, Starter
from appliance.wire.redial import LISTENER_GRACE, RedialWindow

EXCHANGE_DEADLINE: Final = 10.0
"""Seconds for one round of CONNECT, CONNECT, SYNC."""
PUNCH_DEADLINE: Final = 6.0
"""Seconds from SYNC to a connection: TCP's SYNs at 0, 1 and 3 s, plus the handshake."""
RELAYED_GRACE: Final = 5.0
"""Seconds that the relayed connection outlives the direct one (spec: "a grace period")."""
_HOPELESS: Final = (Reason.UNSUPPORTED_PROTOCOL, Reason.PUNCH_NO_ADDRESSES)
"""Another round would fail alike."""
_WRONG_ADDRESS: Final = (Reason.WRONG_PEER, Reason.SELF_DIAL)
"""Somebody else answers there, now and later."""
_log = logging.getLogger("appliance.bridge.puncher")

Side = Literal["initiator", "receiver"]
"""Who dialled through the relay, who received that (go-libp2p's words in its metric)."""


class Puncher:
    """Upgrades relayed connections, so many at once as the host's limits say; more wait their
    turn. `run` owns the tasks."""

    def __init__(self, host: Host, rng: random.Random) -> None:
        self._host = host
        self._rng = rng
        self._slots = trio.CapacityLimiter(host.limits.punches)
        self._nursery: trio.Nursery | None = None
        # By connection number: how the last round that we answered failed, or will have if the
        # connection ends now. The starter may begin another one, or give up without a word.
        self._unsettled: dict[int, Fault] = {}
        self._answering: dict[int, trio.CancelScope] = {}
        host.handle(PROTOCOL, self._answer)
        host.on_connected.append(self._connected)
        host.on_closed.append(self._closed)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                task_status.started()
                await trio.sleep_forever()
        finally:
            # The host outlives us at a shutdown and still tells us of connections.
            self._nursery = None

    def _connected(self, conn: Connection) -> None:
        # The spec lets the side that received the relayed connection start.
        if conn.relayed and conn.direction == "inbound" and self._nursery is not None:
            self._nursery.start_soon(self._start, conn)

    def _closed(self, conn: Connection) -> None:
        fault = self._unsettled.pop(conn.number, None)
        if fault is not None:
            self._failed(conn, "initiator", fault)

    async def _start(self, conn: Connection) -> None:
        async def upgrade() -> None:
            async with self._slots:
                if self._host.direct_to(conn.peer_id) is None:
                    await self._attempts(conn)
            await self._retire(conn)

        await guarded(self._host.telemetry, "punch", conn.peer_id, upgrade)

    async def _attempts(self, conn: Connection) -> None:
        """Up to three rounds, until one succeeds or the peer cannot be punched at all."""
        fault = Fault(Reason.PUNCH_TIMEOUT)
        while conn.punch_attempts < ATTEMPTS and not conn.closed:
            attempt = self._begin(conn)
            try:
                await self._round(conn)
            except Fault as error:
                fault = error
                self._attempt_failed(conn, attempt, fault)
                if fault.reason in _HOPELESS:
                    break
                continue
            self._succeeded(conn, "receiver")
            return
        self._failed(conn, "receiver", fault)

    async def _round(self, conn: Connection) -> None:
        """One round as its starter. Raises Fault."""
        with ExitStack() as expecting:
            # Before the exchange: after it, time is short.
            await self._host.dialling.ready()
            plan, targets = await self._exchange(conn, expecting)
            await self._punch(conn, plan, targets)

    async def _exchange(
        self, conn: Connection, expecting: ExitStack
    ) -> tuple[DialPlan, tuple[Endpoint, ...]]:
        machine = Starter(self._host.announced())
        stream: NegotiatedStream | None = None
        try:
            with peer_deadline(EXCHANGE_DEADLINE, Reason.PUNCH_PROTOCOL):
                stream = conn.open(PROTOCOL)
                await stream.send_message(encode_dcutr(machine.begin(trio.current_time())))
                reply = decode_dcutr(await stream.receive_message())
                sync, plan = machine.receive(reply, trio.current_time())
                targets = expecting.enter_context(
                    self._expecting(conn, plan.addresses, client=plan.client)
                )
                await stream.send_message(encode_dcutr(sync))
                await stream.aclose()
            return plan, targets
        except StreamReset as error:
            await self._expect_support(conn)
            raise _reset(conn, error) from error
        except BaseException:  # Cancelled too: the peer must not wait for the rest
            if stream is not None:
                stream.reset()
            raise

    async def _expect_support(self, conn: Connection) -> None:
        """Raises Fault if the peer does not know DCUtR at all.

        Its refusal may show as a mere reset where CONNECT came right behind the proposal.
        """
        try:
            with peer_deadline(EXCHANGE_DEADLINE, Reason.PUNCH_PROTOCOL):
                stream = conn.open(PROTOCOL)
                try:
                    await stream.confirmed()
                finally:
                    stream.reset()
        except StreamReset as error:
            raise _reset(conn, error) from error

    async def _answer(self, stream: NegotiatedStream, conn: Connection) -> None:
        """The dialler's side of one round: answer CONNECT, dial at SYNC."""
        if not conn.relayed:
            raise Fault(Reason.PUNCH_PROTOCOL, "DCUtR on a direct connection")
        if conn.direction == "inbound":
            # Else both sides would start, and each address be expected in two roles.
            raise Fault(Reason.PUNCH_PROTOCOL, "DCUtR from the side that dialled")
        if conn.punch_attempts >= ATTEMPTS:
            raise Fault(Reason.PUNCH_PROTOCOL, f"more than {ATTEMPTS} rounds")
        attempt = self._begin(conn)
        if (previous := self._answering.get(conn.number)) is not None:
            # The starter is sooner through with a round than we; that one it has given up.
            previous.cancel()
        current = self._answering[conn.number] = trio.CancelScope()
        self._unsettled[conn.number] = Fault(Reason.CONNECTION_LOST, "it ended during the round")
        try:
            with current:
                await self._answer_round(stream, conn)
        except (Fault, StreamReset) as error:
            stream.reset()
            fault = _reset(conn, error) if isinstance(error, StreamReset) else error
            self._attempt_failed(conn, attempt, fault)
            if attempt >= ATTEMPTS or fault.reason in _HOPELESS:
                self._unsettled.pop(conn.number, None)
                self._failed(conn, "initiator", fault)
            else:
                self._unsettled[conn.number] = fault
            return
        finally:
            if self._answering.get(conn.number) is current:
                del self._answering[conn.number]
        if current.cancelled_caught:
            stream.reset()
            return
        self._unsettled.pop(conn.number, None)
        self._succeeded(conn, "initiator")
        await self._retire(conn)

    async def _answer_round(self, stream: NegotiatedStream, conn: Connection) -> None:
        machine = Answerer(self._host.announced())
        with ExitStack() as expecting:
            with peer_deadline(EXCHANGE_DEADLINE, Reason.PUNCH_PROTOCOL):
                connect = decode_dcutr(await stream.receive_message())
                reply = machine.receive(connect)
                assert isinstance(connect, Connect)
                assert isinstance(reply, Connect)
                # The starter may be faster with its dial than the relay with its SYNC.
                targets = expecting.enter_context(
                    self._expecting(conn, connect.addresses, client=True)
                )
                await stream.send_message(encode_dcutr(reply))
                plan = machine.receive(decode_dcutr(await stream.receive_message()))
            assert isinstance(plan, DialPlan)
            await stream.aclose()
            await self._punch(conn, plan, targets)

    @contextmanager
    def _expecting(
        self, conn: Connection, addresses: tuple[Endpoint, ...], *, client: bool
    ) -> Iterator[tuple[Endpoint, ...]]:
        """The addresses worth a dial. What comes in from there keeps the agreed role meanwhile."""
        targets = dialable(
            addresses, allow_private=self._host.allow_private, own=self._host.announced()
        )
        with self._host.expecting(
            conn.peer_id, targets, client=client, introduced_by=conn.introduced_by
        ):
            yield targets

    async def _punch(self, conn: Connection, plan: DialPlan, targets: tuple[Endpoint, ...]) -> None:
        """Until a direct connection stands, whoever got it. Raises Fault."""
        nowhere = Fault(Reason.PUNCH_NO_ADDRESSES, f"{len(plan.addresses)} announced, none usable")
        if not targets and (plan.client or not self._host.announced()):
            # The server could still be dialled; the client would not know whom it accepts.
            raise nowhere
        # Repetitions meet the entry that the first dial made in the router's table.
        self._host.dialling.spend(len(targets))
        starts = trio.current_time() + plan.after
        window = RedialWindow(starts)
        faults: list[Fault] = []
        with trio.move_on_at(starts + PUNCH_DEADLINE):
            async with trio.open_nursery() as nursery:
                # The other side may be through before it is our turn to dial.
                nursery.start_soon(self._wait_direct, conn.peer_id, nursery.cancel_scope)
                await trio.sleep_until(starts)
                async with trio.open_nursery() as dials:
                    for target in targets:
                        dials.start_soon(
                            self._dial_repeatedly, conn, target, plan.client, window, faults
                        )
                await trio.sleep(LISTENER_GRACE)
                nursery.cancel_scope.cancel()
        if self._host.direct_to(conn.peer_id) is None:
            if not targets:
                raise nowhere
            raise faults[-1] if faults else Fault(Reason.PUNCH_TIMEOUT, "no answer to any SYN")

    async def _wait_direct(self, peer_id: str, scope: trio.CancelScope) -> None:
        await self._host.wait_direct(peer_id)
        scope.cancel()

    async def _dial_repeatedly(
        self,
        conn: Connection,
        target: Endpoint,
        client: bool,
        window: RedialWindow,
        faults: list[Fault],
    ) -> None:
        while True:
            dialled = trio.current_time()
            try:
                await self._host.dial(
                    target,
                    conn.peer_id,
                    client=client,
                    punched=True,
                    introduced_by=conn.introduced_by,
                )
                return
            except Fault as fault:
                if fault.reason is Reason.DIAL_FAILED:
                    fault = Fault(Reason.PUNCH_REFUSED, fault.detail)
                faults[:] = [fault]
                if fault.reason in _WRONG_ADDRESS:
                    return
            now = trio.current_time()
            gap = window.gap(now, now - dialled, self._rng)
            if gap is None:
                return
            await trio.sleep(gap)

    def _begin(self, conn: Connection) -> int:
        conn.punch_attempts += 1
        self._host.telemetry.punch.attempts += 1
        emit(_log, logging.INFO, "punch_started", peer=conn.peer_id, attempt=conn.punch_attempts)
        return conn.punch_attempts

    def _attempt_failed(self, conn: Connection, attempt: int, fault: Fault) -> None:
        emit(
            _log,
            logging.INFO,
            "punch_attempt_failed",
            peer=conn.peer_id,
            attempt=attempt,
            reason=fault.reason.value,
            detail=fault.detail,
        )

    def _succeeded(self, conn: Connection, side: Side) -> None:
        counts = self._host.telemetry.punch
        counts.succeeded += 1
        counts.outcomes[side, conn.punch_attempts, "success"] += 1
        took = trio.current_time() - conn.opened_at
        emit(
            _log,
            logging.INFO,
            "punch_succeeded",
            peer=conn.peer_id,
            attempt=conn.punch_attempts,
            took_ms=round(took * 1000, 1),
        )

    def _failed(self, conn: Connection, side: Side, fault: Fault) -> None:
        counts = self._host.telemetry.punch
        counts.failed[fault.reason] += 1
        hopeless = fault.reason is Reason.PUNCH_NO_ADDRESSES
        outcome = "no_suitable_address" if hopeless else "failed"
        counts.outcomes[side, conn.punch_attempts, outcome] += 1
        emit(
            _log,
            logging.WARNING,
            "punch_failed",
            peer=conn.peer_id,
            reason=fault.reason.value,
            detail=fault.detail,
        )

    async def _retire(self, conn: Connection) -> None:
        """Close the relayed connection once the direct one has taken over and it is unused."""
        while not conn.closed and self._host.direct_to(conn.peer_id) is not None:
            with trio.move_on_after(RELAYED_GRACE):
                await conn.session.closed.wait()
            # A stream that lives on it ends in its own time.
            if not conn.holds and self._host.direct_to(conn.peer_id) is not None:
                await conn.session.close(Reason.IDLE)


def _reset(conn: Connection, error: StreamReset) -> Fault:
    """What a reset of the exchange means."""
    return Fault(Reason.CONNECTION_LOST if conn.closed else Reason.PUNCH_PROTOCOL, str(error))
