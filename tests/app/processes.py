"""Appliances as a user starts them: `python -m appliance run FILE`, each a process of its own."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import yaml

from appliance.bridge.identity import KEY_FILE, load_or_create

START: Final = 30.0
"""Seconds that a start may take on a machine that is busy with other tests; usually two."""


def environment(home: Path, **more: str) -> dict[str, str]:
    """A shell's, without what would lead the appliance to somebody else's state."""
    hidden = ("STATE_DIRECTORY", "APPLIANCE_SOCKET", "NOTIFY_SOCKET", "WATCHDOG_USEC")
    env = {name: value for name, value in os.environ.items() if name not in hidden}
    return {**env, "HOME": str(home), "PYTHONPATH": str(Path(__file__).parents[2]), **more}


def free_port() -> int:
    """A port of which nobody knew a moment ago, for what must be written into a file."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


def declaration(directory: Path, name: str, **sections: Mapping[str, Any]) -> dict[str, Any]:
    """A small declaration that takes no fixed port; `sections` are merged into it."""
    document: dict[str, Any] = {
        "apiVersion": "appliance/v1",
        "kind": "Appliance",
        "metadata": {"name": name},
        "network": "simnet",
        "node": {"kind": "embedded", "p2p": "127.0.0.1:0"},
        "bridge": {"listen": ["127.0.0.1:0"], "dial_private": True},
        "state": {"dir": str(directory / f"{name}.state")},
        "metrics": {"listen": "off"},
        "log": {"level": "info", "format": "json"},
    }
    for section, fields in sections.items():
        document[section] = {**document.get(section, {}), **fields}
    return document


def written(directory: Path, document: Mapping[str, Any]) -> Path:
    """The declaration as a file."""
    path = directory / f"{document['metadata']['name']}.yaml"
    path.write_text(yaml.safe_dump(dict(document), sort_keys=False))
    return path


def peer_id(document: Mapping[str, Any]) -> str:
    """Who this declaration's appliance is, or will be."""
    state = Path(document["state"]["dir"])
    state.mkdir(mode=0o700, exist_ok=True)
    return load_or_create(state / KEY_FILE).peer_id


def contents(directory: Path) -> dict[str, str]:
    """Every file below with a digest of what is in it."""
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def typed(home: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """`appliance ARGUMENTS`, to its end."""
    return subprocess.run(
        [sys.executable, "-m", "appliance", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=home,
        env=environment(home, **env),
    )


class Running:
    """A process of `appliance run`; made by `running`."""

    def __init__(self, file: Path, *flags: str, **env: str) -> None:
        self.file = file
        self.home = file.parent
        self._stdout = file.with_suffix(".out")
        self._stderr = file.with_suffix(".err")
        with self._stdout.open("wb") as out, self._stderr.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "appliance", "run", str(file), *flags],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=self.home,
                env=environment(self.home, **env),
            )

    @property
    def output(self) -> str:
        return self._stdout.read_text()

    @property
    def errors(self) -> str:
        return self._stderr.read_text()

    def events(self, name: str, **fields: object) -> list[dict[str, Any]]:
        """The log events of that name so far that have these fields."""
        whole = [line for line in self.errors.splitlines() if line.endswith("}")]
        found = [json.loads(line) for line in whole]
        return [
            entry for entry in found if entry["event"] == name and fields.items() <= entry.items()
        ]

    def until(self, what: Callable[[], Any], within: float = START) -> Any:
        """The first truthy result; fails if the process ends before, or the time is over."""
        deadline = time.monotonic() + within
        while not (result := what()):
            assert self.process.poll() is None, self.errors
            assert time.monotonic() < deadline, self.errors
            time.sleep(0.01)
        return result

    def wait(self, name: str, within: float = START, **fields: object) -> dict[str, Any]:
        """The first such event, as soon as it is there."""
        entry: dict[str, Any] = self.until(lambda: self.events(name, **fields), within)[0]
        return entry

    def status(self) -> dict[str, Any]:
        """`appliance status --json`, as typed by a user."""
        done = typed(self.home, "status", str(self.file), "--json")
        assert done.returncode == 0, done.stderr
        document: dict[str, Any] = json.loads(done.stdout)
        return document

    def end(self, number: signal.Signals = signal.SIGINT, within: float = 5.0) -> int:
        """Its exit code after a signal; fails unless it ends in time."""
        self.process.send_signal(number)
        return self.process.wait(within)

    def kill(self) -> None:
        """End it if it is still there."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


@contextmanager
def running(file: Path, *flags: str, **env: str) -> Iterator[Running]:
    """`appliance run FILE`, ready; killed at the end if the test did not end it."""
    process = Running(file, *flags, **env)
    try:
        process.wait("ready")
        yield process
    finally:
        process.kill()
