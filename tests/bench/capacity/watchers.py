"""Who looks at the daemon: operators on the control socket, scrapers of the metrics."""

from __future__ import annotations

import json
import re
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any, Final

import trio

ANSWER: Final = 60.0
"""Seconds for the daemon to answer one of many who ask at once."""
_REFUSALS: Final = re.compile(r"^kaspa_appliance_refusals_total\{(.*)\} ([0-9.e+]+)$", re.MULTILINE)


class Operator:
    """A client of the control socket, connected for as long as it asks every few seconds."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream

    @classmethod
    async def connect(cls, control: Path, stack: AsyncExitStack) -> Operator:
        stream = await trio.open_unix_socket(control)
        return cls(await stack.enter_async_context(stream))

    async def status(self) -> dict[str, Any]:
        with trio.fail_after(ANSWER):
            # A daemon with too many clients says so at once, and hangs up.
            with suppress(trio.BrokenResourceError):
                await self._stream.send_all(b'{"command": "status", "arguments": {}}\n')
            answer = b""
            while not answer.endswith(b"\n"):
                data = await self._stream.receive_some()
                if not data:
                    raise ConnectionResetError("the control socket hung up")
                answer += data
        told = json.loads(answer)
        if not told["ok"]:
            raise ConnectionRefusedError(told["error"])
        status: dict[str, Any] = told["result"]
        return status


class Scraper:
    """A client of the metrics port that has said half of its request: served, and unanswered."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream

    @classmethod
    async def connect(cls, port: int, stack: AsyncExitStack) -> Scraper:
        """Raises ConnectionResetError if the daemon hangs up at once."""
        try:
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            await stack.enter_async_context(stream)
            await stream.send_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n")
        except (OSError, trio.BrokenResourceError) as error:
            raise ConnectionResetError("the metrics port hung up") from error
        return cls(stream)

    async def answered(self) -> str:
        """The rest of the request, and its answer; empty if the daemon hangs up instead."""
        with trio.fail_after(ANSWER):
            try:
                await self._stream.send_all(b"\r\n")
                return b"".join([data async for data in self._stream]).decode()
            except trio.BrokenResourceError:
                return ""


async def refusals(port: int) -> dict[tuple[str, str], int]:
    """The counters of the daemon whose metrics are at `port`, by subject and reason."""
    answer = ""
    with trio.fail_after(ANSWER):
        while not answer:
            # It may not have noticed yet that those who watched have left.
            with suppress(ConnectionResetError):
                async with AsyncExitStack() as stack:
                    answer = await (await Scraper.connect(port, stack)).answered()
    found = {}
    for labels, value in _REFUSALS.findall(answer):
        named = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        found[named["subject"], named["reason"]] = round(float(value))
    return found


async def status(control: Path) -> dict[str, Any]:
    """The status document of the daemon whose control socket is there."""
    async with AsyncExitStack() as stack:
        return await (await Operator.connect(control, stack)).status()
