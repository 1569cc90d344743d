"""The control socket over real Unix sockets, files and processes."""

from __future__ import annotations

import grp
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from appliance.errors import ApplianceError
from appliance.operate import control


async def answer(command: str, arguments: Mapping[str, object]) -> object:
    match command:
        case "status":
            return {"schema": "appliance.status/v1", **arguments}
        case "refuse":
            raise ApplianceError("no relay is known", hint="add one")
        case "crash":
            raise KeyError("private detail")
        case "unspeakable":
            return object()
        case "hang":
            await trio.sleep_forever()
    raise ApplianceError(f"no such command: {command}")


@asynccontextmanager
async def serving(path: Path, group: str | None = None) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        await nursery.start(control.serve, path, group, answer)
        yield
        nursery.cancel_scope.cancel()


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


async def ask(path: Path, command: str, **arguments: object) -> object:
    return await trio.to_thread.run_sync(partial(control.query, path, command, arguments))


async def refusal(path: Path, command: str = "status") -> ApplianceError:
    with pytest.raises(ApplianceError) as caught:
        await ask(path, command)
    return caught.value


async def test_a_question_gets_its_answer(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    async with serving(path):
        assert await ask(path, "status", a=[1]) == {"schema": "appliance.status/v1", "a": [1]}
        error = await refusal(path, "refuse")
        assert (error.message, error.hint) == ("no relay is known", "add one")


async def test_a_fault_in_a_command_ends_that_request_only_and_tells_no_detail(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "control.sock"
    async with serving(path):
        for command in ("crash", "unspeakable"):
            error = await refusal(path, command)
            assert error.message == "the appliance failed to answer"
            assert "private detail" not in str(error.hint)
        assert await ask(path, "status")
    assert [r.message for r in caplog.records if r.levelname == "ERROR"] == ["control_fault"] * 2


async def test_the_file_is_for_the_owner_only_and_gone_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    async with serving(path):
        found = path.lstat()
        assert stat.S_ISSOCK(found.st_mode)
        assert stat.S_IMODE(found.st_mode) == 0o600
    assert names(tmp_path) == []


async def test_a_group_may_open_it_when_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    group = grp.getgrgid(os.getgid()).gr_name
    async with serving(path, group):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert path.stat().st_gid == os.getgid()


async def test_several_requests_on_one_connection(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    async with serving(path), await trio.open_unix_socket(str(path)) as stream:
        await stream.send_all(b'{"command":"status"}\n{"command":"refuse"}\n{"comm')
        await stream.send_all(b'and":"status"}\n')
        await stream.send_eof()
        text = b"".join([chunk async for chunk in stream])
    assert [json.loads(line)["ok"] for line in text.splitlines()] == [True, False, True]


@pytest.mark.parametrize(
    "request_line",
    [
        b"\n",
        b"hello\n",
        b"[]\n",
        b'{"command": 3}\n',
        b'{"command": "status", "arguments": []}\n',
        b"\xff\xfe\n",
        b"[" * 60000 + b"\n",
        b"x" * 200_000,
        b"x" * 200_000 + b"\n",
    ],
)
async def test_nonsense_gets_a_sentence_and_does_no_harm(
    tmp_path: Path, request_line: bytes
) -> None:
    path = tmp_path / "control.sock"
    async with serving(path):
        async with await trio.open_unix_socket(str(path)) as stream:
            await stream.send_all(request_line)
            reply = json.loads(await stream.receive_some(65536))
            assert reply["ok"] is False
            assert len(reply["error"]) < 200
        assert await ask(path, "status")


async def test_a_client_that_says_nothing_is_dropped(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    path = tmp_path / "control.sock"
    async with serving(path), await trio.open_unix_socket(str(path)) as stream:
        await stream.send_all(b'{"comm')
        before = trio.current_time()
        assert await stream.receive_some() == b""
        assert trio.current_time() - before == pytest.approx(control.REQUEST_DEADLINE)


async def test_a_command_that_hangs_is_answered_for(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    path = tmp_path / "control.sock"
    async with serving(path), await trio.open_unix_socket(str(path)) as stream:
        await stream.send_all(b'{"command":"hang"}\n')
        assert "took longer" in json.loads(await stream.receive_some())["error"]


async def test_clients_are_bounded(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    async with serving(path):
        idle = [await trio.open_unix_socket(str(path)) for _ in range(control.MAX_CLIENTS)]
        await wait_all_tasks_blocked()
        assert "busy" in (await refusal(path)).message
        for stream in idle:
            await stream.aclose()
        await wait_all_tasks_blocked()
        assert await ask(path, "status")


async def test_a_refusal_is_heard_though_the_request_did_not_get_through(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)

        def refuse() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b'{"ok": false, "error": "the appliance is busy"}\n')

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, refuse)
            # More than a socket holds: sending cannot be over before the other side hangs up.
            with pytest.raises(ApplianceError, match="busy"):
                await ask(path, "status", padding="x" * 4_000_000)


async def test_two_appliances_cannot_share_a_socket(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    async with serving(path):
        with pytest.raises(ApplianceError, match="another appliance is running"):
            await control.serve(path, None, answer)
        assert await ask(path, "status")


async def test_a_foreign_listener_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen(1)
        with pytest.raises(ApplianceError, match="another appliance is running"):
            await control.serve(path, None, answer)
        assert path.exists()


CHILD = textwrap.dedent(
    """
    import sys, trio
    from pathlib import Path
    from appliance.operate import control
    async def answer(command, arguments):
        return "child"
    async def main():
        async with trio.open_nursery() as nursery:
            await nursery.start(control.serve, Path(sys.argv[1]), None, answer)
            print("up", flush=True)
    trio.run(main)
    """
)


def start_child(path: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", CHILD, str(path)], stdout=subprocess.PIPE)


async def test_the_socket_of_a_killed_process_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with start_child(path) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"up\n"
        assert await ask(path, "x") == "child"
        with pytest.raises(ApplianceError, match="another appliance is running"):
            await control.serve(path, None, answer)
        child.send_signal(signal.SIGKILL)
    assert path.exists()
    assert (await refusal(path)).message == f"no appliance is running at {path}"
    async with serving(path):
        assert await ask(path, "status") == {"schema": "appliance.status/v1"}
    assert names(tmp_path) == []


async def test_a_path_longer_than_a_socket_address_works(tmp_path: Path) -> None:
    path = tmp_path / ("d" * 100) / ("e" * 100) / "control.sock"
    path.parent.mkdir(parents=True)
    async with serving(path):
        assert await ask(path, "status")
        with pytest.raises(ApplianceError, match="another appliance is running"):
            await control.serve(path, None, answer)


async def test_places_that_are_no_good_are_refused_untouched(tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("precious")
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    for path, sentence in (
        (in_the_way, "is not a socket"),
        (open_to_all / "s", "everybody may write"),
        (tmp_path / "missing" / "s", "No such file or directory"),
    ):
        with pytest.raises(ApplianceError, match=sentence):
            await control.serve(path, None, answer)
    assert in_the_way.read_text() == "precious"
    assert names(tmp_path) == ["file", "open"]
    assert names(open_to_all) == []


async def test_an_unknown_group_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ApplianceError, match="no group 'no-such-group'"):
        await control.serve(tmp_path / "s", "no-such-group", answer)
    assert names(tmp_path) == []


async def test_nobody_there_is_one_sentence_with_a_hint(tmp_path: Path) -> None:
    for path in (tmp_path / "none.sock", tmp_path / ("x" * 90) / "deep" / ("y" * 90)):
        error = await refusal(path)
        assert error.message == f"no appliance is running at {path}"
        assert "appliance run" in str(error.hint)


@pytest.mark.parametrize("reply", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"[]\n", b'{"ok"'])
async def test_a_listener_that_is_no_appliance_is_one_sentence(
    tmp_path: Path, reply: bytes
) -> None:
    path = tmp_path / "s"
    with trio.socket.socket(socket.AF_UNIX) as other:
        await other.bind(str(path))
        other.listen(1)
        async with trio.open_nursery() as nursery:

            async def impostor() -> None:
                connection, _ = await other.accept()
                with connection:
                    await connection.recv(4096)
                    await connection.send(reply)

            nursery.start_soon(impostor)
            assert "no answer that we understand" in (await refusal(path)).message


async def test_a_silent_listener_does_not_hold_the_client(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen(1)
        with pytest.raises(ApplianceError, match=r"did not answer within 0\.2 s"):
            await trio.to_thread.run_sync(partial(control.query, path, "status", timeout=0.2))
