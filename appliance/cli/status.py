"""`appliance status`: asks a running appliance over its control socket."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from appliance.errors import ApplianceError
from appliance.operate import control, status
from appliance.operate.status_text import render

HELP = "Role, reach, relays, punches, caps in use, node and faults of a running appliance."

REFRESH: Final = 2.0  # seconds between two looks of --watch
_CLEAR: Final = "\x1b[H\x1b[J"  # home, and erase from there: less flicker than erasing all first


def add_arguments(parser: argparse.ArgumentParser) -> None:
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON document")
    form.add_argument("--watch", action="store_true", help="look again every 2 s, until Ctrl-C")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--socket", type=Path, metavar="PATH", help="the control socket")
    where.add_argument("file", nargs="?", metavar="FILE", help="the declaration it runs from")


def run(args: argparse.Namespace) -> int:
    path = find_socket(args.socket, args.file, os.environ)
    if args.json:
        print(json.dumps(_ask(path), indent=2))
    elif args.watch:
        _watch(path)
    else:
        print(_shown(path))
    return 0


def find_socket(socket: Path | None, file: str | None, environ: Mapping[str, str]) -> Path:
    """Where to ask: what was named, else $APPLIANCE_SOCKET, else the only appliance that answers.

    Raises ApplianceError if none or several answer in the default places, or the file is wrong.
    """
    if socket is not None:
        return socket
    if file is not None:
        from appliance.declaration import load  # not needed, and slow, without a file

        return load(file).control.socket
    if named := environ.get("APPLIANCE_SOCKET"):
        return Path(named)
    found = list(dict.fromkeys(_candidates(environ)))
    alive = [path for path in found if control.answers(path)]
    if len(alive) == 1:
        return alive[0]
    if alive:
        names = ", ".join(map(str, alive))
        raise ApplianceError(
            f"several appliances are running here: {names}", hint="name one with --socket PATH"
        )
    if refused := [path for path in found if not os.access(path, os.R_OK | os.W_OK)]:
        return refused[0]  # asking there gives the sentence about permission
    raise ApplianceError(
        "no appliance is running here",
        hint="start one with `appliance run FILE`, or name its declaration or its --socket PATH",
    )


def _candidates(environ: Mapping[str, str]) -> Iterator[Path]:
    if state := environ.get("STATE_DIRECTORY", "").split(":")[0]:
        yield from _sockets(Path(state), "control.sock")
    if home := environ.get("HOME"):
        yield from _sockets(Path(home, ".local/state/appliance"), "*/control.sock")
    yield from _sockets(Path(".state"), "*/control.sock")
    yield from _sockets(Path("/run/appliance"), "*.sock")


def _sockets(directory: Path, pattern: str) -> Iterable[Path]:
    try:
        return sorted(path for path in directory.glob(pattern) if path.is_socket())
    except OSError:
        return ()  # not ours to look into


def _ask(path: Path) -> dict[str, object]:
    document = control.query(path, "status")
    if not isinstance(document, dict):
        raise ApplianceError(f"what listens at {path} gave no answer that we understand")
    return document


def _shown(path: Path) -> str:
    try:
        return render(status.parse(_ask(path)))
    except ValueError as error:
        raise ApplianceError(
            f"the appliance at {path} speaks another version: {error}",
            hint="use the `appliance` command of its version, or --json",
        ) from None


def _watch(path: Path) -> None:
    on_terminal = sys.stdout.isatty()
    # Held back and waited for: an interrupt in the middle of anything else could get lost.
    ending = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, ending)
    try:
        while True:
            try:
                text = _shown(path)
            except ApplianceError as error:
                if not on_terminal:
                    raise
                text = error.message  # it may come back: that is what one watches for
            print(f"{_CLEAR}{text}" if on_terminal else f"{text}\n", flush=True)
            if signal.sigtimedwait(ending, REFRESH) is not None:
                return
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ending)
