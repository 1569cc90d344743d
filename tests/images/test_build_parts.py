"""The cache, the steps, and the comparison of two builds."""

from __future__ import annotations

import io
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from appliance.errors import ApplianceError
from appliance.image.cache import Cache
from appliance.image.compare import allowances, compare, told
from appliance.image.compare import main as compare_main
from appliance.image.rootfs import drop_idle_profiles
from appliance.image.steps import Steps

TABLE = "label: gpt\nsize=1MiB, name=setup\nsize=1MiB, name=data\n"


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


# --- comparing


def disk(path: Path, name: str) -> Path:
    image = path / name
    with image.open("wb") as file:
        file.truncate(8 * 1024 * 1024)
    text = TABLE.replace("gpt\n", "gpt\nlabel-id: 11111111-1111-1111-1111-111111111111\n")
    text = text.replace("name=setup", "name=setup, uuid=22222222-2222-2222-2222-222222222222")
    text = text.replace("name=data", "name=data, uuid=33333333-3333-3333-3333-333333333333")
    subprocess.run(["sfdisk", "--quiet", image], input=text.encode(), check=True)
    return image


def test_two_same_images_are_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = disk(tmp_path, "a.img"), disk(tmp_path, "b.img")
    assert compare_main([str(first), str(second)]) == 0
    assert capsys.readouterr().out == "the two images are the same, byte for byte\n"


def test_a_difference_is_named_and_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = disk(tmp_path, "a.img"), disk(tmp_path, "b.img")
    with second.open("r+b") as file:
        file.seek(2 * 1024 * 1024 + 512)  # in `data`, which begins at 2 MiB
        file.write(b"x")
    assert compare_main([str(first), str(second)]) == 1
    assert "data differs" in capsys.readouterr().out
    [allowed] = compare(first, second, {"data": "holds a clock"})
    assert [line.endswith("may: holds a clock") for line in told([allowed])] == [True]


def test_an_allowed_difference_needs_a_reason(tmp_path: Path) -> None:
    register = tmp_path / "register.yaml"
    register.write_text("differences:\n- area: esp\n")
    with pytest.raises(ApplianceError, match="esp has no reason"):
        allowances(register)
    assert all(allowances().values())


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
