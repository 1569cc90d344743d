"""Telling systemd how we are: sd_notify(3), without its library."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from types import TracebackType
from typing import Self

import trio

from appliance.operate.safetext import one_line


class Notifier:
    """Speaks to the service manager named by `NOTIFY_SOCKET`; silent where there is none.

    Messages are datagrams that are sent or dropped at once: never blocks, never raises OSError.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        env = os.environ if environment is None else environment
        name = env.get("NOTIFY_SOCKET", "")
        self._socket: socket.socket | None = None
        self._address = "\0" + name[1:] if name.startswith("@") else name
        if name.startswith(("/", "@")):  # sd_notify(3): anything else is not for us
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)
        self._interval = _watchdog_interval(env) if self._socket else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._socket:
            self._socket.close()
            self._socket = None

    @property
    def watchdog_interval(self) -> float | None:
        """Seconds between two signs of life: half of what the unit allows; None if it asks none."""
        return self._interval

    def ready(self, status: str = "") -> None:
        """The service has started; with `Type=notify`, systemd now starts what waits for us."""
        self._send("READY=1", status)

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._send("", text)

    def stopping(self) -> None:
        """A shutdown began."""
        self._send("STOPPING=1", "")

    async def watchdog(self) -> None:
        """Give signs of life until cancelled; returns at once if the unit asks for none.

        Run it in the nursery of what it vouches for: it stops as soon as the event loop hangs.
        """
        if self._interval is None:
            return
        while True:
            self._send("WATCHDOG=1", "")
            await trio.sleep(self._interval)

    def _send(self, assignment: str, status: str) -> None:
        if self._socket is None:
            return
        lines = [assignment] if assignment else []
        if status:
            lines.append(f"STATUS={one_line(status)}")
        try:
            self._socket.sendto("\n".join(lines).encode(), self._address)
        except OSError:
            return  # the manager is gone or its queue is full; nothing of ours depends on it


def _watchdog_interval(env: Mapping[str, str]) -> float | None:
    """Seconds; None without a valid WATCHDOG_USEC, or if it is meant for another process."""
    pid, usec = env.get("WATCHDOG_PID"), env.get("WATCHDOG_USEC", "")
    if not (usec.isascii() and usec.isdigit()) or int(usec) == 0:
        return None
    if pid is not None and pid != str(os.getpid()):
        return None
    return int(usec) / 1e6 / 2
