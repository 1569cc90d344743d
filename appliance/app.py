"""The composition root: what exists, who owns it, in which order it starts and stops.

Start: identity and address book (nothing else is touched if they fail), every listener, the
embedded node; only then do we speak to anybody. Stop: no new work, the node's streams end or are
cut after the drain time, peers get a goodbye, the book is closed last.
"""

from __future__ import annotations

import logging
import os
import random
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from typing import Final

import trio

from appliance import __version__, reporting
from appliance.addresses.compiled import SYSTEMS_CACHE, compiled_systems
from appliance.addresses.options import StoreOptions
from appliance.addresses.store import AddressBook
from appliance.bridge.guard import supervised
from appliance.bridge.identity import load_or_create
from appliance.clock import TrioClock
from appliance.composition import Appliance, compose
from appliance.declaration import Declaration
from appliance.discovery.upkeep import Upkeep
from appliance.errors import ApplianceError
from appliance.events import emit
from appliance.network import Endpoint
from appliance.node.embedded import EmbeddedNode
from appliance.operate import control, logs, metrics_http
from appliance.operate.notify import Notifier
from appliance.sizing.model import Plan
from appliance.wire.kaspa import LIBP2P_TIMEOUTS

BOOK_DIR: Final = "addresses"
NODE_RETRY: Final = 5.0
"""Seconds after which the embedded node dials a slot again (kaspad: 30 s): it is on loopback."""
_log = logging.getLogger("appliance.app")


async def serve(
    declaration: Declaration, plan: Plan, *, on_ready: Callable[[Appliance], None]
) -> None:
    """Run until SIGINT or SIGTERM, then stop cleanly (a second signal stops at once).

    Raises ApplianceError if something cannot be had at start; nothing is left running then.
    """
    stop = _Stop()
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(stop.watch, nursery.cancel_scope)
            async with _parts(declaration, plan) as appliance:
                await _live(appliance, on_ready, stop)
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        # A nursery wraps what its start-up raised; the operator gets the sentence itself.
        raise _sentence(group) from None


class _Stop:
    """SIGINT and SIGTERM: before we are ready they cancel, then the first one asks for a clean
    stop, and a second one cuts that short."""

    def __init__(self) -> None:
        self.asked = trio.Event()
        self.ready = False

    async def watch(
        self,
        everything: trio.CancelScope,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            task_status.started()
            async for number in signals:
                emit(_log, logging.INFO, "stopping", signal=signal.Signals(number).name)
                if self.asked.is_set() or not self.ready:
                    everything.cancel()
                    return
                self.asked.set()


def _sentence(group: BaseExceptionGroup[BaseException]) -> BaseException:
    for kind in (ApplianceError, KeyboardInterrupt):
        error: BaseException | None = group.split(kind)[0]
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if error is not None:
            return error
    return group


def _open_book(declaration: Declaration, plan: Plan) -> AddressBook:
    """Blocks on the disk. Raises ApplianceError."""
    table, state = declaration.discovery.as_table, declaration.state.dir
    return AddressBook.open(
        state / BOOK_DIR,
        declaration.network,
        StoreOptions(**plan.store),
        allow_private=declaration.bridge.dial_private,
        systems=None if table is None else compiled_systems(table, state / SYSTEMS_CACHE),
    )


@asynccontextmanager
async def _parts(declaration: Declaration, plan: Plan) -> AsyncIterator[Appliance]:
    identity = load_or_create(declaration.identity.key.path)
    logs.protect(identity.keys.private_key.to_bytes())
    book = await trio.to_thread.run_sync(_open_book, declaration, plan)
    try:
        yield compose(declaration, plan, identity, book)
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(book.close)


def _embedded(appliance: Appliance, rng: random.Random) -> EmbeddedNode | None:
    declaration, node = appliance.declaration, appliance.declaration.node
    caps = appliance.plan.caps
    if node.kind != "embedded":
        return None
    slots = [slot.listening for slot in appliance.slots]
    dials = node.connect or (*slots, *node.addpeer)
    return EmbeddedNode(
        declaration.network,
        node.p2p,
        dials,
        retry=NODE_RETRY,
        most_doublings=1,  # a vacant slot hangs up at once, and may have somebody ten seconds later
        timeouts=LIBP2P_TIMEOUTS,
        rng=rng,
        inbound_limit=caps.inbound_direct + caps.inbound_private,
        claim=(lambda: None) if appliance.discovery is None else appliance.discovery.claim,
    )


async def _live(appliance: Appliance, on_ready: Callable[[Appliance], None], stop: _Stop) -> None:
    with Notifier() as notifier, ExitStack() as ports:
        for slot in appliance.slots:
            ports.callback(slot.close)
        async with trio.open_nursery() as outer:
            # Listeners and control live here until the very end.
            await _start_listeners(appliance, outer)
            async with trio.open_nursery() as work:
                node_scope = await _start_node(appliance, work)
                await work.start(appliance.puncher.run)
                if appliance.role.is_public:
                    appliance.relay.start()
                else:
                    run = appliance.relays.run
                    work.start_soon(supervised, appliance.telemetry, "relays", run)
                if appliance.discovery is not None:
                    await work.start(appliance.discovery.run)
                for slot in appliance.slots:
                    await work.start(slot.run)
                upkeep = Upkeep(appliance.book, random.Random(), TrioClock())
                work.start_soon(supervised, appliance.telemetry, "book", upkeep.run)
                work.start_soon(notifier.watchdog)
                work.start_soon(
                    supervised, appliance.telemetry, "node", appliance.streams.watch_node
                )
                _say_ready(appliance, notifier)
                stop.ready = True
                on_ready(appliance)
                await stop.asked.wait()
                notifier.stopping()
                await _drain(appliance, node_scope)
                work.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await appliance.host.close_connections()
            outer.cancel_scope.cancel()
    emit(_log, logging.INFO, "stopped")


async def _start_listeners(appliance: Appliance, nursery: trio.Nursery) -> None:
    declaration = appliance.declaration
    await nursery.start(appliance.host.run, declaration.bridge.listen)

    async def answer(command: str, _: Mapping[str, object]) -> object:
        if command != "status":
            raise ApplianceError(f"unknown command {command!r}", hint="commands: status")
        return reporting.status(appliance).as_dict()

    spec, caps = declaration.control, appliance.plan.caps
    serve_control = partial(control.serve, clients=caps.operators)
    await nursery.start(serve_control, spec.socket, spec.group, answer)
    if declaration.metrics.listen is not None:
        serve_metrics = partial(metrics_http.serve, clients=caps.scrapers)
        appliance.metrics = await nursery.start(
            serve_metrics, declaration.metrics.listen, lambda: reporting.snapshot(appliance)
        )
    for slot in list(appliance.slots):
        try:
            await slot.listen()
        except ApplianceError as error:
            if slot.origin == "declared":
                raise
            # Nobody asked for it by name: what ran before must not fail for its sake.
            emit(_log, logging.WARNING, "slot_unavailable", error=error.message)
            appliance.slots.remove(slot)


async def _start_node(appliance: Appliance, nursery: trio.Nursery) -> trio.CancelScope:
    """Start the embedded node, if there is one; cancel the scope to stop it alone."""
    scope = trio.CancelScope()
    node = appliance.node = _embedded(appliance, random.Random(os.urandom(16)))
    if node is not None:

        async def run(*, task_status: trio.TaskStatus[Endpoint] = trio.TASK_STATUS_IGNORED) -> None:
            with scope:
                await node.run(task_status=task_status)

        bound: Endpoint = await nursery.start(run)
        streams = appliance.streams
        streams.node = Endpoint(streams.node.host, bound.port)
        streams.node_reachable = True
    return scope


def _say_ready(appliance: Appliance, notifier: Notifier) -> None:
    role = appliance.role
    emit(_log, logging.INFO, "role", effective=role.effective, evidence=role.evidence)
    emit(
        _log,
        logging.INFO,
        "ready",
        name=appliance.declaration.name,
        version=__version__,
        peer_id=appliance.identity.peer_id,
        listen=[str(endpoint) for endpoint in appliance.host.listening],
        role=role.effective,
    )
    notifier.ready(f"{role.effective}, {appliance.identity.peer_id}")


async def _drain(appliance: Appliance, node_scope: trio.CancelScope) -> None:
    """Take nothing new; let streams end by themselves within `bridge.drain` seconds."""
    appliance.streams.draining = True
    appliance.relay.table.draining = True
    node_scope.cancel()
    with trio.move_on_after(appliance.declaration.bridge.drain) as deadline:
        async with trio.open_nursery() as nursery:
            if appliance.discovery is not None:
                nursery.start_soon(appliance.discovery.withdraw)
            nursery.start_soon(appliance.streams.drained)
    if deadline.cancelled_caught:
        emit(_log, logging.WARNING, "drain_deadline", streams=len(appliance.streams.open))
