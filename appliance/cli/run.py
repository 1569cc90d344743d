"""`appliance run FILE`: the daemon in the foreground."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.declaration.flags import add_run_flags, apply_run_flags

if TYPE_CHECKING:
    from appliance.composition import Appliance

HELP = "Run the appliance in the foreground until Ctrl-C, ready for systemd."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="the declaration")
    add_run_flags(parser)


def run(args: argparse.Namespace) -> int:
    from appliance import startup
    from appliance.cli.declared import opened
    from appliance.cli.plan import choose_profile
    from appliance.declaration.wishes import wishes
    from appliance.sizing import plan

    # The declaration, the plan and the machine first: a fault is told before the slow imports.
    file = opened(args.file)
    declaration = apply_run_flags(file.declaration, args)
    found = plan(choose_profile(declaration)[0], wishes(declaration))
    if problems := startup.check(declaration, found):
        raise file.refusal(problems)
    startup.raise_nofile(found.unit["LimitNOFILE"])

    with _leaving_at_once():
        import trio

        from appliance import app
        from appliance.operate import logs

    logs.configure(declaration.log.level, declaration.log.format)
    os.umask(0o077)
    trio.run(lambda: app.serve(declaration, found, on_ready=lambda up: _introduce(up, args.file)))
    return 0


@contextlib.contextmanager
def _leaving_at_once() -> Iterator[None]:
    """While imports run, a signal ends the process: nothing was started, nothing is to be undone,
    and a KeyboardInterrupt in the middle of somebody's import may be swallowed."""
    before = {
        number: signal.signal(number, lambda *_: os._exit(130))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ourselves() -> str:
    """What to type to call us again, in the shell from which we were called."""
    program = Path(sys.argv[0])
    if program.name == "__main__.py":
        return f"{shlex.quote(sys.executable)} -m appliance"
    found = shutil.which(program.name)
    if found is not None and Path(found).resolve() == program.resolve():
        return program.name
    return shlex.quote(os.path.relpath(program))


def _slots_of_the_book(appliance: Appliance) -> Iterator[str]:
    places = [str(slot.listening) for slot in appliance.slots if slot.origin == "book"]
    if places:
        until = f" to {places[-1]}" if len(places) > 1 else ""
        yield f"  slots     {places[0]}{until}: private peers that are found"


def _introduce(appliance: Appliance, file: str) -> None:
    """Who we are and how to look at us, in a few lines on standard output."""
    declaration, role = appliance.declaration, appliance.role
    listening = ", ".join(str(endpoint) for endpoint in appliance.host.listening)
    node = f"{declaration.node.kind} at {appliance.streams.node}"
    lines = [
        f"{declaration.name} is running on {declaration.network.value}.",
        f"  peer id   {appliance.identity.peer_id}",
        f"  role      {role.effective}: {role.evidence}",
        f"  listens   {listening}",
        f"  node      {node}",
        *(f"  slot      {s.listening} reaches {s.peer_id}" for s in appliance.slots if s.peer_id),
        *_slots_of_the_book(appliance),
        f"  look      {_ourselves()} status {shlex.quote(file)}",
    ]
    if appliance.plan.kaspad is not None:
        slots = (f"--addpeer={slot.listening}" for slot in appliance.slots)
        lines.append(f"  kaspad    {' '.join((*appliance.plan.kaspad.flags, *slots))}")
    if appliance.metrics is not None:
        lines.append(f"  metrics   http://{appliance.metrics}/metrics")
    lines.append("Ctrl-C stops it.")
    # Nobody may be reading (any more): no reason to stop.
    with contextlib.suppress(BrokenPipeError):
        print("\n".join(lines), flush=True)
