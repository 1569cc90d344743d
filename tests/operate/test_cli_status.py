"""`appliance status` as a user types it, against a real control socket."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from appliance.operate import control, status

PEER = "12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5"
STATUS = status.Status(
    "home-pi",
    "0.1.0",
    "simnet",
    5.0,
    PEER,
    status.RoleStatus("auto", "private", 1000.0),
    status.NodeStatus("embedded", "127.0.0.1:16511", True),
)


async def answer(command: str, arguments: Mapping[str, object]) -> object:
    assert command == "status"
    return STATUS.as_dict()


@asynccontextmanager
async def appliance(path: Path) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        await trio.Path(path.parent).mkdir(parents=True, exist_ok=True)
        await nursery.start(control.serve, path, None, answer)
        yield
        nursery.cancel_scope.cancel()


def environment(home: Path, **more: str) -> dict[str, str]:
    env = {k: v for k, v in os.environ.items() if k not in ("STATE_DIRECTORY", "APPLIANCE_SOCKET")}
    return {**env, "HOME": str(home), **more}


async def typed(home: Path, *arguments: str, **env: str) -> tuple[int, str, str]:
    done = await trio.run_process(
        [sys.executable, "-m", "appliance", "status", *arguments],
        capture_stdout=True,
        capture_stderr=True,
        check=False,
        cwd=home,
        env=environment(home, PYTHONPATH=os.pathsep.join(filter(None, sys.path)), **env),
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


async def test_people_and_scripts_get_theirs(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    async with appliance(path):
        code, out, err = await typed(tmp_path, "--socket", str(path))
        assert (code, err) == (0, "")
        assert "home-pi on simnet" in out
        assert PEER in out
        code, out, err = await typed(tmp_path, "--json", "--socket", str(path))
        assert (code, err) == (0, "")
        assert json.loads(out) == STATUS.as_dict()


async def test_the_declaration_says_where_the_socket_is(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    text = (
        "apiVersion: appliance/v1\nkind: Appliance\nmetadata: {name: a}\nnetwork: simnet\n"
        f"node: {{kind: embedded}}\nstate: {{dir: {tmp_path}/s}}\n"
    )
    await trio.Path(file).write_text(text)
    async with appliance(tmp_path / "s" / "control.sock"):
        code, out, err = await typed(tmp_path, str(file))
        assert (code, err) == (0, "")
        assert "home-pi" in out
    code, out, err = await typed(tmp_path, str(file))
    assert (code, out) == (1, "")
    assert err.startswith(f"appliance: no appliance is running at {tmp_path}/s/control.sock\nhint:")


@pytest.mark.parametrize("place", ["home", "cwd", "state", "variable"])
async def test_the_only_appliance_is_found(tmp_path: Path, place: str) -> None:
    path, env = {
        "home": (tmp_path / ".local/state/appliance/a/control.sock", {}),
        "cwd": (tmp_path / ".state/a/control.sock", {}),
        "state": (tmp_path / "var/control.sock", {"STATE_DIRECTORY": f"{tmp_path}/var:/other"}),
        "variable": (tmp_path / "x.sock", {"APPLIANCE_SOCKET": str(tmp_path / "x.sock")}),
    }[place]
    async with appliance(path):
        # One that died beside it does not count.
        dead = trio.Path(tmp_path, ".state/dead")
        await dead.mkdir(parents=True)
        with socket.socket(socket.AF_UNIX) as left_over:
            left_over.bind(str(dead / "control.sock"))
        code, out, err = await typed(tmp_path, **env)
    assert (code, err) == (0, "")
    assert "home-pi" in out


async def test_several_are_named(tmp_path: Path) -> None:
    one, two = (tmp_path / f".local/state/appliance/{name}/control.sock" for name in ("a", "b"))
    async with appliance(one), appliance(two):
        code, out, err = await typed(tmp_path)
    assert (code, out) == (1, "")
    assert f"several appliances are running here: {one}, {two}\nhint: name one" in err


async def test_none_is_one_sentence_with_a_hint(tmp_path: Path) -> None:
    code, out, err = await typed(tmp_path)
    assert (code, out) == (1, "")
    assert err.startswith("appliance: no appliance is running here\nhint: start one with")
    assert len(err.splitlines()) == 2


async def test_wrong_usage(tmp_path: Path) -> None:
    assert (await typed(tmp_path, "--json", "--watch"))[0] == 2
    assert (await typed(tmp_path, "--socket", "x", "file"))[0] == 2


async def test_another_version_is_said_plainly(tmp_path: Path) -> None:
    async def tomorrow(command: str, arguments: Mapping[str, object]) -> object:
        return {"schema": "appliance.status/v2"}

    path = tmp_path / "s"
    async with trio.open_nursery() as nursery:
        await nursery.start(control.serve, path, None, tomorrow)
        code, _, err = await typed(tmp_path, "--socket", str(path))
        assert code == 1
        assert "speaks another version" in err
        code, out, _ = await typed(tmp_path, "--json", "--socket", str(path))
        assert code == 0
        assert json.loads(out) == {"schema": "appliance.status/v2"}
        nursery.cancel_scope.cancel()


async def test_watch_refreshes_on_a_terminal_through_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    leader, follower = pty.openpty()
    process: trio.Process | None = None

    async def until(text: str) -> None:
        seen = ""
        with trio.fail_after(15):
            while text not in seen:
                await trio.lowlevel.wait_readable(leader)
                seen += os.read(leader, 65536).decode()

    try:
        async with appliance(path):
            process = await trio.lowlevel.open_process(
                [sys.executable, "-m", "appliance", "status", "--watch", "--socket", str(path)],
                stdout=follower,
                stderr=subprocess.DEVNULL,
            )
            await until("home-pi on simnet")
        await until("no appliance is running at")
        async with appliance(path):
            await until("home-pi on simnet")
            process.send_signal(signal.SIGINT)
            with trio.fail_after(5):
                assert await process.wait() == 0
    finally:
        if process is not None and process.returncode is None:
            process.kill()
        os.close(follower)
        os.close(leader)
