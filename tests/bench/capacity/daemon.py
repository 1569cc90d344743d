"""`appliance run FILE` as a process of its own, under a limit of open files and of memory."""

from __future__ import annotations

import json
import re
import resource
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import trio
import yaml

from appliance.network import Endpoint
from tests.bench.capacity.cgroup import Group, group
from tests.bench.capacity.limited import environment, limited
from tests.bench.capacity.nets import LAN
from tests.bench.capacity.outside import Places, Reading, read
from tests.bench.capacity.watchers import status

Sections = Mapping[str, Mapping[str, Any]]
"""Of a declaration, by name."""
NOTHING: Final[Sections] = {}

START: Final = 60.0
"""Seconds that a start may take on a machine that is busy with other work; usually two."""
STOP: Final = 60.0
SLOTS: Final = 20_000
"""Port of the first slot."""
PLAIN: Final = ("appliance",)
"""The module to run: what a user's `python -m appliance` runs."""
WATCHED: Final = ("tests.bench.capacity.watched",)
"""The same program, which also tells of its tasks when asked."""


def declaration(
    directory: Path, name: str, node: Endpoint, sections: Sections = NOTHING
) -> dict[str, Any]:
    """A public relay of a remote node; `sections` are merged into it.

    Circuits live for ever: what is measured is how many there can be.
    """
    document: dict[str, Any] = {
        "apiVersion": "appliance/v1",
        "kind": "Appliance",
        "metadata": {"name": name},
        "network": "simnet",
        "node": {"kind": "remote", "p2p": str(node)},
        "bridge": {
            "listen": ["127.0.0.1:0"],
            "slots": f"{LAN}:{SLOTS}",
            "relay_mode": "on",
            "dial_private": True,
            "relay": {"circuit_duration": 0, "circuit_bytes": 0},
        },
        "state": {"dir": str(directory / "state")},
        "metrics": {"listen": "127.0.0.1:0"},
        "log": {"level": "info", "format": "json"},
    }
    for section, fields in sections.items():
        document[section] = {**document.get(section, {}), **fields}
    return document


def write(directory: Path, document: Mapping[str, Any]) -> Path:
    path = directory / f"{document['metadata']['name']}.yaml"
    path.write_text(yaml.safe_dump(dict(document), sort_keys=False))
    return path


async def asked(*arguments: str) -> dict[str, Any]:
    """`appliance ARGUMENTS --json`. Raises RuntimeError with its words if it fails."""
    done = await trio.run_process(
        [sys.executable, "-m", "appliance", *arguments, "--json"],
        capture_stdout=True,
        capture_stderr=True,
        check=False,
        env=environment(),
    )
    if done.returncode:
        raise RuntimeError(done.stderr.decode().strip())
    document: dict[str, Any] = json.loads(done.stdout)
    return document


@dataclass(slots=True)
class Daemon:
    """A running one; made by `running`."""

    file: Path
    process: trio.Process
    group: Group | str
    """Or why there is none, in words."""
    nofile: int
    """RLIMIT_NOFILE as it was set."""
    places: Places
    peer_id: str
    slots: list[Endpoint]
    """In the order of the declaration's peers."""
    notes: list[str] = field(default_factory=list)

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def port(self) -> int:
        [port] = self.places.bridge
        return port

    def read(self) -> Reading:
        return read(self.pid, self.places)

    async def status(self) -> dict[str, Any]:
        return await status(self.places.control)

    async def slots_open(self) -> None:
        """Once every slot has found its peer: they ask again ever more rarely."""
        while any(slot["state"] != "open" for slot in (await self.status())["slots"]):  # noqa: ASYNC110 - another process opens them
            await trio.sleep(0.2)

    async def tasks(self) -> int:
        """Tasks alive, after a collection of garbage; only of one that is `WATCHED`."""
        told = self.file.with_suffix(".tasks")
        told.unlink(missing_ok=True)
        self.process.send_signal(signal.SIGUSR1)
        with trio.fail_after(START):
            while not told.exists():  # noqa: ASYNC110 - another process makes it
                await trio.sleep(0.01)
        return int(told.read_text())

    async def stop(self) -> int:
        """Its exit code after Ctrl-C."""
        self.process.send_signal(signal.SIGINT)
        with trio.fail_after(STOP):
            return await self.process.wait()


def _nofile(wanted: int | None, notes: list[str]) -> int:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if wanted is not None and wanted > hard:
        notes.append(f"LimitNOFILE {wanted} is above the hard limit here, {hard} was set")
    return hard if wanted is None else min(wanted, hard)


@asynccontextmanager
async def running(
    file: Path,
    node: int,
    *,
    memory: int | None = None,
    nofile: int | None = None,
    module: Sequence[str] = PLAIN,
) -> AsyncIterator[Daemon]:
    """The daemon of `file`, ready; `node` is the port where its node listens.

    Raises RuntimeError with its last words if it ends before it is ready. Process and control
    group are gone at the end, whatever happened.
    """
    notes: list[str] = []
    control = file.parent / "state" / "control.sock"
    limit = _nofile(nofile, notes)
    errors = file.with_suffix(".log")
    command = [sys.executable, "-m", *module, "run", str(file)]
    with group("appliance-capacity", memory) as made, errors.open("wb") as log:
        if isinstance(made, str):
            notes.append(f"{made}: the memory limit is not enforced here")
        async with limited(command, made, nofile=limit, stderr=log) as process:
            with trio.fail_after(START):
                metrics = _metrics_port(await _ready(process, errors))
                told = await status(control)
            yield Daemon(
                file=file,
                process=process,
                group=made,
                nofile=limit,
                places=Places(
                    bridge=frozenset(_endpoint(text).port for text in told["listen"]),
                    slots=frozenset(_endpoint(slot["slot"]).port for slot in told["slots"]),
                    metrics=metrics,
                    node=node,
                    book=file.parent / "state" / "addresses",
                    control=control,
                ),
                peer_id=told["peer_id"],
                slots=[_endpoint(slot["slot"]) for slot in told["slots"]],
                notes=notes,
            )


async def _ready(process: trio.Process, errors: Path) -> str:
    """What it says on standard output once it runs."""
    assert process.stdout is not None
    seen = b""
    async for chunk in process.stdout:
        seen += chunk
        if b"Ctrl-C stops it." in seen:
            return seen.decode()
    lines = (await trio.Path(errors).read_text()).splitlines()
    raise RuntimeError("the appliance did not start: " + "; ".join(lines[-3:]))


def _endpoint(text: str) -> Endpoint:
    host, _, port = text.rpartition(":")
    return Endpoint(host, int(port))


def _metrics_port(introduction: str) -> int:
    [url] = re.findall(r"http://\S+:(\d+)/metrics", introduction)
    return int(url)
