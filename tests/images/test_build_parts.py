"""The cache, the steps, and what becomes of the root."""

from __future__ import annotations

import io
import os
import select
import signal
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from appliance.errors import ApplianceError
from appliance.image.bootstrap import tools_root
from appliance.image.cache import Cache
from appliance.image.rootfs import drop_idle_profiles, overlay
from appliance.image.sources import SUITE
from appliance.image.steps import Steps
from appliance.image.targets import packages
from tests.images.conftest import PROJECT


def test_an_entry_is_made_once_and_replaces_the_older(tmp_path: Path) -> None:
    cache = Cache(tmp_path)

    def make(directory: Path) -> None:
        (directory / "file").write_text("made")

    def never(directory: Path) -> None:
        raise AssertionError(directory)

    first = cache.entry("root-a", ["v1"], make)
    assert cache.entry("root-a", ["v1"], never) == first
    other = cache.entry("root-b", ["v1"], make)
    second = cache.entry("root-a", ["v2"], make)
    assert not first.exists()
    assert (second / "file").read_text() == "made"
    assert other.exists()


def test_packages_of_last_week_are_fetched_anew(tmp_path: Path) -> None:
    """What was kept stays until the new is whole, which it never is where nothing can be had."""
    cache, steps = Cache(tmp_path), Steps(tmp_path / "log", total=1, stream=io.StringIO())
    nowhere, week = "Types: none\n", 7 * 86_400
    inputs = [SUITE, nowhere, packages(PROJECT, ("tools",))]
    kept = cache.entry("tools", inputs, lambda directory: (directory / "root").mkdir())
    os.utime(kept, (time.time() - week + 60,) * 2)
    assert tools_root(cache, steps, PROJECT, nowhere, fresh=False) == kept / "root"
    os.utime(kept, (time.time() - week - 60,) * 2)
    with pytest.raises(ApplianceError, match="mmdebstrap"):
        tools_root(cache, steps, PROJECT, nowhere, fresh=False)
    assert (kept / "root").is_dir()


def test_an_entry_is_whole_or_not_there(tmp_path: Path) -> None:
    cache = Cache(tmp_path)

    def fail(directory: Path) -> None:
        (directory / "half").write_text("")
        raise ApplianceError("no network")

    def make(directory: Path) -> None:
        assert list(directory.iterdir()) == []

    with pytest.raises(ApplianceError, match="no network"):
        cache.entry("root", [], fail)
    assert list(tmp_path.glob("root-*")) == []
    cache.entry("root", [], make)


def test_a_failed_program_is_named_and_its_last_lines_are_shown(tmp_path: Path) -> None:
    stream = io.StringIO()
    steps = Steps(tmp_path / "log", total=1, stream=stream)
    with pytest.raises(ApplianceError) as caught, steps.step("the tools"):
        steps.run(["sh", "-c", "echo why; exit 3"])
    assert caught.value.message == "sh failed with exit code 3"
    assert str(tmp_path / "log") in str(caught.value.hint)
    assert stream.getvalue() == "[1/1] the tools …\n  | why\n"


def test_a_program_that_is_not_here_is_named(tmp_path: Path) -> None:
    steps = Steps(tmp_path / "log", total=1, stream=io.StringIO())
    with pytest.raises(ApplianceError, match="no program surely-not-here"):
        steps.run(["surely-not-here"])


def test_what_a_program_says_is_in_the_log_while_it_runs(tmp_path: Path) -> None:
    """Whoever waits for a playbook of a quarter of an hour sees what it does."""
    log, fifo = tmp_path / "log", tmp_path / "fifo"
    os.mkfifo(fifo)
    steps = Steps(log, total=1, stream=io.StringIO())
    with ThreadPoolExecutor() as pool:
        running = pool.submit(steps.run, ["sh", "-c", 'echo begun; read -r _ <"$0"', fifo])
        while "\nbegun\n" not in log.read_text():
            assert not running.done()
        fifo.write_text("go on\n")
        assert running.result() == "begun\n"


def test_an_interrupted_build_leaves_no_process(tmp_path: Path) -> None:
    script = (
        "import io, pathlib, signal, sys\n"
        # Whoever started us in the background may have had it ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from appliance.image.steps import Steps\n"
        "steps = Steps(pathlib.Path(sys.argv[1]), 1, io.StringIO())\n"
        "print('ready', flush=True)\n"
        "steps.run(['sh', '-c', 'echo $$ >\"$0\"; exec tail -f /dev/null', sys.argv[2]])\n"
    )
    pid = tmp_path / "pid"
    with subprocess.Popen(
        [sys.executable, "-c", script, tmp_path / "log", pid],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        while not (pid.exists() and pid.read_text().strip()):
            assert process.poll() is None
        grandchild = os.pidfd_open(int(pid.read_text()))
        process.send_signal(signal.SIGINT)
        process.wait()
    try:
        # Readable once it ended; the kernel signals it as its parent goes, and a moment later.
        assert select.select([grandchild], [], [], 20)[0]
    finally:
        os.close(grandchild)


def test_a_build_asks_for_no_certain_umask(tmp_path: Path) -> None:
    steps = Steps(tmp_path / "log", total=1, stream=io.StringIO())
    before = os.umask(0o077)
    try:
        assert steps.run(["sh", "-c", "umask"]).strip() == "0022"
    finally:
        os.umask(before)


def test_the_modes_of_a_checkout_do_not_get_into_the_image(tmp_path: Path) -> None:
    """With umask 002 the root itself became 0775, and sshd trusts no key below it."""
    checkout, root = tmp_path / "checkout", tmp_path / "root"
    (checkout / "etc/systemd").mkdir(parents=True)
    (checkout / "etc/systemd/grow.service").write_text("[Service]\n")
    (checkout / "etc/systemd/apt.timer").symlink_to("/dev/null")
    (checkout / "etc/grow").write_text("#!/bin/sh\n")
    for path in (checkout, *checkout.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o664 if path.suffix else 0o775)
    (root / "etc").mkdir(parents=True)
    (root / "etc").chmod(0o751)
    root.chmod(0o755)
    overlay(checkout, root)
    modes = {
        str(path.relative_to(root)): stat.S_IMODE(path.lstat().st_mode)
        for path in (root, *root.rglob("*"))
        if not path.is_symlink()
    }
    made = {"etc/systemd": 0o755, "etc/systemd/grow.service": 0o644, "etc/grow": 0o755}
    assert modes == {".": 0o755, "etc": 0o751, **made}
    assert (root / "etc/systemd/apt.timer").readlink() == Path("/dev/null")


def test_only_profiles_that_confine_something_stay(tmp_path: Path) -> None:
    profiles = tmp_path / "etc/apparmor.d"
    (profiles / "abi").mkdir(parents=True)
    rules = "  include <abstractions/base>\n}\n"
    (profiles / "browser").write_text(
        f"abi <abi/4.0>,\n\nprofile browser /opt/browser flags=(unconfined) {{\n{rules}"
    )
    (profiles / "ping").write_text(f"profile ping /{{usr/,}}bin/ping {{\n{rules}")
    (profiles / "learning").write_text(f"profile x /bin/x flags=(complain) {{\n{rules}")
    drop_idle_profiles(tmp_path)
    assert {path.name for path in profiles.iterdir()} == {"abi", "ping", "learning"}


def test_the_setup_partition_is_waited_for_as_long_as_any_device() -> None:
    # A time of its own there outlives what the boot test grants an emulated machine.
    tasks = Path(__file__).parents[2] / "roles/appliance/tasks/image.yaml"
    [setup] = [line for line in tasks.read_text().splitlines() if "LABEL=APPLIANCE" in line]
    assert "device-timeout" not in setup
