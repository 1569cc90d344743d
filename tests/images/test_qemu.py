"""The QEMU driver, with guests that have nothing but the UEFI: it needs no image, and talks."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from appliance.errors import ApplianceError
from appliance.image import netlab
from appliance.image.qemu import ARCHITECTURES, Guest, Kernel, Wire, command
from appliance.image.qemu_machine import Console, GuestFailed, running

X86 = ARCHITECTURES["x86-64"]
# Written by the firmware to the serial line when it finds nothing to start.
NOTHING_TO_START = "BdsDxe"


def blank(tmp_path: Path) -> Guest:
    """A machine with an empty disk, and a network card that nobody uses."""
    disk = tmp_path / "blank, with a comma.img"
    disk.write_bytes(bytes(1024 * 1024))
    return Guest(X86, disk, Wire("none"), memory_mib=256)


def runs(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def logged(log: Path) -> bytes:
    return log.read_bytes()


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Taps need a namespace of their own; what is judged here does not."""
    monkeypatch.setattr("appliance.image.qemu._network", lambda *_: [])


async def test_the_console_is_heard_and_nothing_stays(tmp_path: Path, no_network: None) -> None:
    log = tmp_path / "console.log"
    async with running(blank(tmp_path), tmp_path, log=log) as machine:
        with trio.fail_after(100):
            await machine.console.wait_for(NOTHING_TO_START)
        pid = machine._process.pid
        machine.check()
    assert NOTHING_TO_START.encode() in logged(log)
    assert not runs(pid)


async def test_the_guest_goes_when_its_scope_is_cancelled(tmp_path: Path, no_network: None) -> None:
    with trio.CancelScope() as scope:
        async with running(blank(tmp_path), tmp_path) as machine:
            pid = machine._process.pid
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert not runs(pid)


async def test_an_error_of_the_block_comes_out_as_it_is(tmp_path: Path, no_network: None) -> None:
    with pytest.raises(GuestFailed, match="nobody at home"):
        async with running(blank(tmp_path), tmp_path):
            raise GuestFailed("nobody at home")


async def test_a_guest_that_ignores_its_power_button_is_told(
    tmp_path: Path, no_network: None
) -> None:
    async with running(blank(tmp_path), tmp_path) as machine:
        with pytest.raises(GuestFailed, match=r"was not off within 0\.5 s"):
            await machine.power_down(0.5)


async def test_qemus_own_complaint_is_told(tmp_path: Path, no_network: None) -> None:
    guest = replace(blank(tmp_path), disk=tmp_path / "missing.img")
    async with running(guest, tmp_path) as machine:
        with trio.fail_after(60):
            await machine.wait_ended()
        with pytest.raises(GuestFailed, match=r"missing\.img"):
            machine.check()


def test_a_console_that_floods_is_bounded() -> None:
    console = Console(None)
    for number in range(20_000):
        console.take(b"line %d\r\n" % number)
    console.take(b"x" * 100_000)
    assert len(console.text()) < 100_000
    assert console.last().startswith("x")
    assert "line 19999" in console.text() and "line 100\n" not in console.text()


def test_a_missing_program_is_told_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    from appliance.image.programs import require

    monkeypatch.setattr("appliance.image.programs.shutil.which", lambda *_, **__: None)
    with pytest.raises(ApplianceError) as caught:
        require(["qemu-system-aarch64", "mcopy"])
    assert caught.value.message == "qemu-system-aarch64, mcopy are needed and not installed"
    assert caught.value.hint == "sudo apt install mtools qemu-system-arm"


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_direct_kernel_needs_no_firmware(tmp_path: Path, name: str) -> None:
    kernel = Kernel(Path("vmlinuz"), Path("initrd"), "root=LABEL=x")
    guest = Guest(ARCHITECTURES[name], tmp_path / "disk", Wire("tap0"), kernel)
    words = command(guest, program="qemu", monitor=3, scratch=tmp_path)
    assert "if=pflash" not in " ".join(words)
    arguments = words[words.index("-append") + 1].split()
    assert arguments[0] == "root=LABEL=x"
    # The kernel's last console is the one that the system's messages go to: our serial line.
    consoles = [one for one in arguments if one.startswith("console=")]
    assert consoles[-1] == f"console={ARCHITECTURES[name].console}"


_LISTENER = """
import socket, sys, trio
from appliance.image import netlab, scan
netlab.make_tap()
held = []
for port in map(int, sys.argv[1:]):
    one = socket.create_server(("0.0.0.0", port))
    held.append(one)
answering = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
answering.bind(("0.0.0.0", 123))

async def judge():
    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        print(sorted(await scan.open_tcp("10.0.2.100")), await scan.answering_udp("10.0.2.100"))
        nursery.cancel_scope.cancel()

async def answer():
    stream = trio.socket.from_stdlib_socket(answering)
    while True:
        data, who = await stream.recvfrom(2048)
        await stream.sendto(data, who)

trio.run(judge)
"""


def test_a_scan_finds_every_open_port(tmp_path: Path) -> None:
    """In a namespace of its own, where nobody else listens."""
    (tmp_path / "listener.py").write_text(_LISTENER)
    words = netlab.alone("listener", "1", "22", "16112", "65535")
    done = subprocess.run(
        words,
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": f"{tmp_path}:{Path.cwd()}", "PATH": "/usr/sbin:/usr/bin"},
    )
    assert done.stderr == ""
    assert done.stdout.strip() == "[1, 22, 16112, 65535] {123}"


_GRANDCHILD = "import pathlib, time; pathlib.Path({ready!r}).touch(); time.sleep(1000)"


def test_what_runs_alone_dies_with_us(tmp_path: Path) -> None:
    """Also when we are killed without a word: no guest may run on unseen."""
    ready = tmp_path / "ready"
    (tmp_path / "lasting.py").write_text(_GRANDCHILD.format(ready=str(ready)))
    script = (
        "import subprocess\nfrom appliance.image import netlab\n"
        "print(subprocess.run(netlab.alone('lasting')).returncode)\n"
    )
    environment = {"PYTHONPATH": f"{tmp_path}:{Path.cwd()}", "PATH": "/usr/sbin:/usr/bin"}
    ours = subprocess.Popen([sys.executable, "-c", script], env=environment)
    _wait(ready.exists)
    assert _alive("lasting")
    ours.kill()
    ours.wait()
    _wait(lambda: not _alive("lasting"))


def _wait(condition: Callable[[], bool]) -> None:
    import time

    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _alive(module: str) -> bool:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().endswith(f"-m\0{module}\0".encode()):
                return True
        except OSError:
            continue  # it ended this moment
    return False
