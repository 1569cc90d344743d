"""sd_notify against a real datagram socket, as systemd holds one."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from appliance.operate.notify import Notifier


@pytest.fixture(params=["file", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        if request.param == "file":
            name = str(tmp_path / "notify")
            sock.bind(name)
        else:
            name = f"@appliance-test-{os.getpid()}-{tmp_path.name}"
            sock.bind("\0" + name[1:])
        sock.setblocking(False)
        yield sock, name


def test_the_life_of_a_service(manager: tuple[socket.socket, str]) -> None:
    sock, name = manager
    with Notifier({"NOTIFY_SOCKET": name}) as notifier:
        notifier.ready("relaying for 3 peers")
        notifier.status("two\nlines\nWATCHDOG=trigger")
        notifier.stopping()
    assert sock.recv(4096) == b"READY=1\nSTATUS=relaying for 3 peers"
    assert sock.recv(4096) == rb"STATUS=two\nlines\nWATCHDOG=trigger"
    assert sock.recv(4096) == b"STOPPING=1"


async def test_signs_of_life_at_half_the_allowed_time(
    manager: tuple[socket.socket, str], autojump_clock: MockClock
) -> None:
    sock, name = manager
    env = {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}
    with Notifier(env) as notifier:
        assert notifier.watchdog_interval == 15.0
        with trio.move_on_after(100):
            await notifier.watchdog()
    signs = [sock.recv(4096) for _ in range(7)]  # at 0, 15, … 90
    assert signs == [b"WATCHDOG=1"] * 7
    with pytest.raises(BlockingIOError):
        sock.recv(4096)


@pytest.mark.parametrize(
    "extra", [{}, {"WATCHDOG_USEC": "x"}, {"WATCHDOG_USEC": "0"},
              {"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}]
)  # fmt: skip
async def test_no_watchdog_asked_none_given(tmp_path: Path, extra: dict[str, str]) -> None:
    with Notifier({"NOTIFY_SOCKET": str(tmp_path / "n"), **extra}) as notifier:
        await notifier.watchdog()


@pytest.mark.parametrize("env", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1"},
                                 {"NOTIFY_SOCKET": "/nonexistent/notify"}])  # fmt: skip
def test_without_a_manager_nothing_happens(env: dict[str, str]) -> None:
    with Notifier(env) as notifier:
        notifier.ready()
        notifier.stopping()


def test_a_manager_that_does_not_read_never_blocks_us(manager: tuple[socket.socket, str]) -> None:
    _, name = manager
    with Notifier({"NOTIFY_SOCKET": name}) as notifier:
        for number in range(10_000):
            notifier.status(f"{number} " + "x" * 400)
