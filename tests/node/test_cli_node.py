"""`appliance node` as its user sees it: a process, its lines, its exit code."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import Any

import pytest

COMMAND = [sys.executable, "-m", "appliance", "node", "--network", "simnet"]


def start(*options: str) -> subprocess.Popen[str]:
    command = [*COMMAND, "--listen", "127.0.0.1:0", "--log-format", "json", *options]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def wait_for(process: subprocess.Popen[str], event: str) -> dict[str, Any]:
    assert process.stderr is not None
    for line in process.stderr:
        entry: dict[str, Any] = json.loads(line)
        if entry["event"] == event:
            return entry
    raise AssertionError(f"ended before {event}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_two_processes_pass_a_payload_and_stop_cleanly(number: signal.Signals) -> None:
    size = ["--lab-payload", "1048576"]
    with start(*size) as server:
        listening = wait_for(server, "kaspa_listening")
        assert {"t", "level", "logger"} <= set(listening)
        with start("--addpeer", listening["address"], *size) as client:
            assert wait_for(client, "kaspa_handshake")["remote"] == listening["address"]
            assert wait_for(client, "lab_payload")["intact"] is True
            for process in (client, server):
                process.send_signal(number)
                assert process.wait(timeout=10) == 0
            assert client.stderr is not None
            assert "Traceback" not in client.stderr.read()


def test_a_taken_port_is_one_sentence_and_exit_code_1() -> None:
    with start() as server:
        taken = wait_for(server, "kaspa_listening")["address"]
        again = subprocess.run(
            [*COMMAND, "--listen", taken], capture_output=True, text=True, check=False, timeout=30
        )
        server.terminate()
    assert again.returncode == 1
    assert f"cannot listen on {taken}" in again.stderr
    assert "Traceback" not in again.stderr


@pytest.mark.parametrize(
    "options",
    [
        ["--listen", "nowhere"],
        ["--addpeer", "example.org:1"],
        ["--network", "moonnet"],
        ["--retry", "0"],
        ["--lab-payload", "-1"],
    ],
)
def test_wrong_usage_is_exit_code_2(options: list[str]) -> None:
    done = subprocess.run([*COMMAND, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_the_process_stays_small() -> None:
    code = (
        "import sys, appliance.cli.node\n"
        "assert not {'libp2p', 'grpc', 'rocksdict'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
