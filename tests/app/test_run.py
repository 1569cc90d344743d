"""`appliance run`: what a user and a service manager see of it, from start to stop."""

from __future__ import annotations

import base64
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.bridge.identity import KEY_FILE, load_or_create
from tests.app.processes import (
    Running,
    contents,
    declaration,
    environment,
    free_port,
    running,
    typed,
    written,
)

STATUS_KEYS = {
    "schema", "name", "version", "network", "uptime_s", "peer_id", "role", "listen", "external",
    "relay", "reservations", "inbound", "outbound", "punch", "fds", "node", "faults",
}  # fmt: skip


@pytest.fixture(scope="module")
def appliance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One that runs while the tests look at it, with all that can be said in its log."""
    directory = tmp_path_factory.mktemp("run")
    document = declaration(
        directory, "one", metrics={"listen": "127.0.0.1:0"}, log={"level": "debug"}
    )
    with running(written(directory, document)) as process:
        yield process


def state_of(process: Running) -> Path:
    return process.home / "one.state"


def metrics_url(process: Running) -> str:
    return next(word for word in process.output.split() if word.startswith("http://"))


def endpoint(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


def test_it_says_in_a_few_lines_who_it_is_and_how_to_look(appliance: Running) -> None:
    appliance.until(lambda: "Ctrl-C" in appliance.output)
    lines = appliance.output.splitlines()
    assert len(lines) <= 10
    assert load_or_create(state_of(appliance) / KEY_FILE).peer_id in appliance.output
    assert "private" in appliance.output
    look = next(line for line in lines if line.startswith("  look")).split(maxsplit=1)[1]
    # Typed as it is printed, it must work.
    seen = subprocess.run(
        look,
        shell=True,
        cwd=appliance.home,
        env=environment(appliance.home),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert seen.returncode == 0, seen.stderr
    assert "private" in seen.stdout
    # Ports that the kernel chose are named, not echoed as 0.
    assert ":0" not in appliance.output
    bridge = next(line.split()[1] for line in lines if line.startswith("  listens"))
    node = next(line.split()[-1] for line in lines if line.startswith("  node"))
    for where in (bridge, node):
        socket.create_connection(endpoint(where), timeout=5).close()


def test_status_has_every_promised_key(appliance: Running) -> None:
    status = appliance.status()
    assert set(status) >= STATUS_KEYS
    assert status["schema"] == "appliance.status/v1"
    assert (status["name"], status["network"]) == ("one", "simnet")
    assert (status["role"]["mode"], status["role"]["effective"]) == ("auto", "private")
    assert status["role"]["evidence"]
    assert status["relay"]["running"] is False
    assert set(status["inbound"]) >= {"direct", "private", "per_relay"}
    assert status["fds"]["used"] < status["fds"]["limit"]
    assert status["outbound"] == status["reservations"] == status["faults"] == []
    assert status["node"]["kind"] == "embedded"
    assert status["node"]["reachable"] is True
    socket.create_connection(endpoint(status["node"]["p2p"]), timeout=5).close()


def test_status_for_people_names_it(appliance: Running) -> None:
    done = typed(appliance.home, "status", str(appliance.file))
    assert done.returncode == 0
    assert "one" in done.stdout and "private" in done.stdout


def test_metrics_can_be_scraped(appliance: Running) -> None:
    with urllib.request.urlopen(metrics_url(appliance), timeout=5) as answer:
        text = answer.read().decode()
    assert "kaspa_appliance_" in text
    assert "libp2p_relaysvc_status 0" in text


def test_the_log_never_holds_the_private_key(appliance: Running) -> None:
    bridge = appliance.wait("ready")["listen"][0]
    for junk in (b"GET / HTTP/1.1\r\n\r\n", b"\x13/multistream/1.0.0\n\x07/noise\n" + bytes(64)):
        with socket.create_connection(endpoint(bridge), timeout=5) as stranger:
            stranger.sendall(junk)
            stranger.settimeout(1)
            try:
                while stranger.recv(4096):
                    pass
            except (TimeoutError, ConnectionResetError):
                pass
    stored = (state_of(appliance) / KEY_FILE).read_bytes()
    secret = load_or_create(state_of(appliance) / KEY_FILE).keys.private_key.to_bytes()
    said = appliance.output + appliance.errors
    for form in (secret, stored):
        assert form.hex() not in said.lower()
        assert base64.b64encode(form).decode().rstrip("=") not in said
        assert repr(form)[2:-1] not in said


def test_a_second_one_with_the_same_state_is_refused(appliance: Running) -> None:
    other = declaration(appliance.home, "one")
    file = appliance.home / "twin.yaml"
    written(appliance.home, {**other, "metadata": {"name": "twin"}})
    before = contents(state_of(appliance))
    done = typed(appliance.home, "run", str(file))
    assert done.returncode == 1
    assert "state.dir: an appliance is running with " in done.stderr
    assert len(done.stderr.splitlines()) == 1
    # The first one does not notice.
    assert contents(state_of(appliance)) == before
    assert appliance.status()["name"] == "one"


# --- stopping


@pytest.fixture
def notify(tmp_path: Path) -> Iterator[socket.socket]:
    """The service manager's end of sd_notify(3)."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(5)
        yield manager


def test_the_service_manager_is_told_and_sigint_stops_it(
    tmp_path: Path, notify: socket.socket
) -> None:
    document = declaration(tmp_path, "unit", bridge={"relay_mode": "on"})
    flags = "--libp2p-relay-mode=off"
    with running(written(tmp_path, document), flags, NOTIFY_SOCKET=notify.getsockname()) as unit:
        assert b"READY=1" in notify.recv(4096)
        # A flag overrides the declaration, and shows.
        status = unit.status()
        assert (status["role"]["mode"], status["role"]["effective"]) == ("off", "private")
        assert status["relay"]["running"] is False
        control = tmp_path / "unit.state" / "control.sock"
        assert control.is_socket()
        started = time.monotonic()
        assert unit.end(signal.SIGINT) == 0
        assert time.monotonic() - started < 5
        assert b"STOPPING=1" in notify.recv(4096)
        assert unit.events("stopped")
        assert "Traceback" not in unit.errors
    left = {path.name for path in (tmp_path / "unit.state").iterdir()}
    assert left == {"identity.key", "addresses"}


def test_sigterm_during_the_start_leaves_nothing(tmp_path: Path) -> None:
    document = declaration(tmp_path, "early")
    file = written(tmp_path, document)
    key = tmp_path / "early.state" / KEY_FILE
    process = Running(file)
    try:
        # From here on it opens its book and its ports.
        process.until(key.exists)
        assert process.end(signal.SIGTERM) == 0
    finally:
        process.kill()
    assert "Traceback" not in process.errors
    assert {path.name for path in key.parent.iterdir()} <= {"identity.key", "addresses"}
    with running(file) as again:
        assert again.end(signal.SIGTERM) == 0


def test_ctrl_c_before_it_began_is_quiet(tmp_path: Path) -> None:
    process = Running(written(tmp_path, declaration(tmp_path, "hasty")))
    try:
        # In the middle of the slow imports; before them it would be Python that speaks.
        maps = Path(f"/proc/{process.process.pid}/maps")
        process.until(lambda: "cryptography" in maps.read_text())
        assert process.end(signal.SIGINT) in (0, 130)
    finally:
        process.kill()
    assert "Traceback" not in process.errors
    assert not (tmp_path / "hasty.state" / "control.sock").exists()


def test_nobody_reading_its_output_does_not_stop_it(tmp_path: Path) -> None:
    """`appliance run FILE | head -1`."""
    file = written(tmp_path, declaration(tmp_path, "piped"))
    log = tmp_path / "log"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "appliance", "run", str(file)],
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=tmp_path,
            env=environment(tmp_path),
        )
        assert process.stdout is not None
        process.stdout.close()
        try:
            deadline = time.monotonic() + 30
            while '"ready"' not in log.read_text() and time.monotonic() < deadline:
                time.sleep(0.02)
            time.sleep(0.2)
            assert process.poll() is None
            process.send_signal(signal.SIGINT)
            assert process.wait(5) == 0
        finally:
            process.kill()
            process.wait()
    assert "Traceback" not in log.read_text()
    assert "BrokenPipe" not in log.read_text()


def test_a_kaspad_that_is_down_does_not_stop_the_bridge(tmp_path: Path) -> None:
    nobody = f"127.0.0.1:{free_port()}"
    document = declaration(tmp_path, "beside", node={"kind": "kaspad", "p2p": nobody})
    with running(written(tmp_path, document)) as process:
        status = process.status()
        assert status["node"] == {"kind": "kaspad", "p2p": nobody, "reachable": False}
        assert process.end() == 0
