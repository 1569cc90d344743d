"""The control socket: requests and answers as JSON lines over a Unix stream socket.

    → {"command": "status", "arguments": {}}
    ← {"ok": true, "result": {…}}
    ← {"ok": false, "error": "one sentence", "hint": "what to do" or null}

Who may open the socket's file may ask; there is no other authentication.
"""

from __future__ import annotations

import json
import logging
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import trio

from appliance.errors import ApplianceError
from appliance.events import FIELDS
from appliance.operate.socketfile import SocketFile, reachable_name

_log = logging.getLogger(__name__)

Handler = Callable[[str, Mapping[str, object]], Awaitable[object]]

MAX_REQUEST: Final = 64 * 1024  # bytes of one line
MAX_ANSWER: Final = 16 * 1024 * 1024  # bytes that a client reads
MAX_CLIENTS: Final = 16  # where no plan says
REQUEST_DEADLINE: Final = 10.0  # seconds from the connection, or the last answer, to a whole line
ANSWER_DEADLINE: Final = 10.0  # seconds for the client to take an answer
HANDLER_DEADLINE: Final = 60.0  # seconds for us to find one


async def serve(
    path: Path,
    group: str | None,
    handler: Handler,
    *,
    clients: int = MAX_CLIENTS,
    task_status: trio.TaskStatus[Path] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled; started once clients can connect. Cancelled or not, the file is gone.

    `clients` are served at once; one more is told that we are busy.

    The file has mode 0660 and group `group`, or 0600 without one, from its first moment. A socket
    that a dead process left is replaced. `handler(command, arguments)` returns what JSON can say;
    an ApplianceError of it is the client's answer, any other exception is logged and ends only
    that request. Raises ApplianceError if another appliance serves there, or the place is no good.
    """
    with SocketFile(path, group) as listening:
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(listening))
        server = _Server(handler, clients)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, server.client, [listener])
            task_status.started(path)


class _Server:
    def __init__(self, handler: Handler, most: int) -> None:
        self._handler = handler
        self._most = most
        self._clients = 0

    async def client(self, stream: trio.SocketStream) -> None:
        """One connection, from accept to close. Raises nothing but Cancelled."""
        self._clients += 1
        try:
            async with stream:
                if self._clients > self._most:
                    await _send(stream, _failure("the appliance is busy with other clients"))
                    return
                await self._requests(stream)
        except (trio.BrokenResourceError, trio.TooSlowError):
            pass  # the client went away or sleeps: its own affair
        finally:
            self._clients -= 1

    async def _requests(self, stream: trio.SocketStream) -> None:
        buffer = bytearray()
        while True:
            with trio.fail_after(REQUEST_DEADLINE):
                while (end := buffer.find(b"\n")) < 0:
                    if len(buffer) > MAX_REQUEST:
                        break
                    received = await stream.receive_some(MAX_REQUEST)
                    if not received:
                        return
                    buffer += received
            if end < 0 or end > MAX_REQUEST:
                await _send(stream, _failure(f"the request is longer than {MAX_REQUEST} bytes"))
                return
            line = bytes(buffer[:end])
            del buffer[: end + 1]
            await _send(stream, await self._answer(line))

    async def _answer(self, line: bytes) -> bytes:
        try:
            command, arguments = _request(line)
        except ValueError as error:
            return _failure(f"not a request: {error}")
        try:
            with trio.fail_after(HANDLER_DEADLINE):
                result = await self._handler(command, arguments)
            return _line({"ok": True, "result": result})
        except ApplianceError as error:
            return _failure(error.message, error.hint)
        except trio.TooSlowError:
            return _failure(f"{command!r} took longer than {HANDLER_DEADLINE:.0f} s")
        except Exception:  # noqa: BLE001 - logged with all it knows
            # The one place where a fault of a command is stopped: it must not end the daemon.
            _log.exception("control_fault", extra={FIELDS: {"command": command}})
            return _failure("the appliance failed to answer", "its log says why (control_fault)")


def _request(line: bytes) -> tuple[str, Mapping[str, object]]:
    try:
        document = json.loads(line)
    except RecursionError:
        raise ValueError("nested too deep") from None
    if not isinstance(document, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 - the client's fault, not ours
    command, arguments = document.get("command"), document.get("arguments", {})
    if not isinstance(command, str) or not isinstance(arguments, dict):
        raise ValueError('wants "command", a string, and "arguments", an object')  # noqa: TRY004
    return command, arguments


def _line(document: Mapping[str, object]) -> bytes:
    return json.dumps(document).encode("ascii") + b"\n"


def _failure(error: str, hint: str | None = None) -> bytes:
    return _line({"ok": False, "error": error, "hint": hint})


async def _send(stream: trio.SocketStream, data: bytes) -> None:
    with trio.fail_after(ANSWER_DEADLINE):
        await stream.send_all(data)


def query(
    path: Path,
    command: str,
    arguments: Mapping[str, object] | None = None,
    *,
    timeout: float = 5.0,
) -> object:
    """Ask the appliance at `path`; blocks for at most `timeout` seconds in all.

    Returns the result. Raises ApplianceError with one sentence, the daemon's own if it refused.
    """
    deadline = time.monotonic() + timeout
    request = _line({"command": command, "arguments": dict(arguments or {})})
    try:
        with (
            reachable_name(path) as name,
            socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection,
        ):
            connection.settimeout(timeout)
            connection.connect(name)
            with suppress(BrokenPipeError, ConnectionResetError):
                # Whoever is busy says so and hangs up before it hears what we want.
                connection.sendall(request)
            answer = _receive_line(connection, deadline)
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
        raise ApplianceError(
            f"no appliance is running at {path}",
            hint="start it with `appliance run FILE`, or name its socket with --socket PATH",
        ) from None
    except PermissionError:
        raise ApplianceError(
            f"no permission to talk to the appliance at {path}",
            hint="become a member of its control group, or its user (sudo)",
        ) from None
    except (TimeoutError, BlockingIOError):
        raise ApplianceError(
            f"the appliance at {path} did not answer within {timeout:g} s",
            hint="its log says what it is busy with",
        ) from None
    except OSError as error:
        raise ApplianceError(f"cannot talk to the appliance at {path}: {error.strerror}") from None
    return _result(path, answer)


def answers(path: Path) -> bool:
    """Whether somebody listens at `path` and lets us in. Never blocks for long, never raises."""
    try:
        with (
            reachable_name(path) as name,
            socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection,
        ):
            connection.settimeout(1.0)
            connection.connect(name)
    except OSError:
        return False
    return True


def _receive_line(connection: socket.socket, deadline: float) -> bytes:
    buffer = bytearray()
    while not buffer.endswith(b"\n") and len(buffer) <= MAX_ANSWER:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        connection.settimeout(left)
        received = connection.recv(65536)
        if not received:
            break
        buffer += received
    return bytes(buffer)


def _result(path: Path, answer: bytes) -> object:
    try:
        document = json.loads(answer) if answer.endswith(b"\n") else None
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict) or "ok" not in document:
        raise ApplianceError(f"what listens at {path} gave no answer that we understand")
    if document["ok"]:
        return document.get("result")
    hint = document.get("hint")
    raise ApplianceError(str(document.get("error")), hint=hint if isinstance(hint, str) else None)
