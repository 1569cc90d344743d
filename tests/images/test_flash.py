"""`appliance image flash`: what arrives on the disk, and what is refused before it is touched."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.cli.main import main
from appliance.image.blockdev import inspect
from appliance.image.partitions import FatFiles, read_table
from tests.images.disks import DECLARATION, MIB, SIZE, loop_device, make_image, pack

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMWm2tKMl1uK0ckPMcjGBOkSfVnRgnXrE4rv9VUjlq7k me\n"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return pack(make_image(tmp_path / "toy.img"))


@pytest.fixture
def raw(image: Path) -> bytes:
    return image.with_suffix("").read_bytes()


@pytest.fixture
def files(tmp_path: Path) -> Path:
    directory = tmp_path / "mine"
    directory.mkdir()
    (directory / "appliance.yaml").write_text(DECLARATION)
    (directory / "authorized_keys").write_text(KEY)
    return directory


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with loop_device(tmp_path / "disk", SIZE + 8 * MIB) as device:
        yield device


def flash(*arguments: object) -> int:
    return main(["image", "flash", *map(str, arguments)])


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert flash(*arguments) == 1
    return capsys.readouterr().err


def test_a_disk_holds_the_image_and_the_files(
    image: Path, raw: bytes, files: Path, disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert flash(image, disk, "--files", files, "--yes") == 0
    setup = read_table(disk).setup
    written = disk.read_bytes()
    assert written[: setup.start] == raw[: setup.start]
    behind = setup.start + setup.size
    assert written[behind:SIZE] == raw[behind:]
    assert FatFiles(disk, setup).read("appliance.yaml") == DECLARATION.encode()
    assert FatFiles(disk, setup).read("authorized_keys") == KEY.encode()
    said = capsys.readouterr().out
    assert "reading back: 100 % of 24 MiB" in said
    assert "with appliance.yaml, authorized_keys; read back and compared" in said


def test_files_replace_those_of_the_image(image: Path, files: Path, tmp_path: Path) -> None:
    target = tmp_path / "card.img"
    plain = image.with_suffix("")
    FatFiles(plain, read_table(plain).setup).write({"appliance.yaml": b"an older one"})
    assert flash(plain, target, "--files", files, "--force") == 0
    setup = FatFiles(target, read_table(target).setup)
    assert setup.read("appliance.yaml") == DECLARATION.encode()
    assert set(setup.names()) == {"appliance.yaml", "authorized_keys"}


def test_a_pi_image_takes_the_files_on_its_firmware_partition(files: Path, tmp_path: Path) -> None:
    layout = "label: dos\nstart=5MiB, size=8MiB, type=c\nstart=13MiB, size=8MiB, type=83\n"
    image, target = make_image(tmp_path / "pi.img", layout), tmp_path / "card.img"
    assert flash(image, target, "--files", files, "--force") == 0
    setup = FatFiles(target, read_table(target).setup)
    assert setup.read("appliance.yaml") == DECLARATION.encode()


def test_a_damaged_image_never_reaches_the_disk(
    image: Path, disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = disk.read_bytes()
    with image.open("r+b") as file:
        file.seek(-100, os.SEEK_END)
        file.write(b"x" * 50)
    assert "toy.img.zst" in refused(capsys, image, disk, "--yes")
    image.with_suffix("").rename(image)  # unpacks well, and is not what was built
    assert "cannot be unpacked" in refused(capsys, image, disk, "--yes")
    assert disk.read_bytes() == before


def test_an_image_of_another_build_is_refused(
    image: Path, disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    beside = image.with_name("toy.img.sha256")
    beside.write_text(f"{'0' * 64}  toy.img\n")
    said = refused(capsys, image.with_suffix(""), disk, "--yes")
    assert "toy.img is not what toy.img.sha256 says" in said


def test_a_small_disk_is_refused(
    image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with loop_device(tmp_path / "small", SIZE - MIB) as device:
        said = refused(capsys, image, device, "--yes", "--force")
    assert f"{device} is too small: it has 23 MiB, the image needs 24 MiB" in said


def test_the_running_system_is_refused(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever this machine's root is on; nothing is written in any case."""
    root = next(
        Path("/dev") / line.split()[-1]
        for line in Path("/proc/partitions").read_text().splitlines()[2:]
        if any(use.system for use in inspect(Path("/dev") / line.split()[-1]).uses)
    )
    assert f"{root} holds the system that is running here" in refused(capsys, image, root)


def test_a_mounted_disk_is_refused_and_a_forced_one_written(
    image: Path, raw: bytes, disk: Path, tmp_path: Path
) -> None:
    """In a mount namespace of its own, which ends with its process."""
    subprocess.run(["/usr/sbin/mkfs.ext4", "-q", disk], check=True)
    before = disk.read_bytes()
    point = tmp_path / "mounted"
    point.mkdir()

    def flash_mounted(*options: str) -> subprocess.CompletedProcess[str]:
        # Read-only: so no byte changes by the mount itself.
        script = 'mount -o ro,noload "$1" "$2" && shift 2 && exec "$@"'
        words = (sys.executable, "-m", "appliance", "image", "flash", image, disk, "--yes")
        command = [str(word) for word in words]
        return subprocess.run(
            ["unshare", "--mount", "sh", "-c", script, "sh", disk, point, *command, *options],
            capture_output=True,
            text=True,
            check=False,
        )

    refusal = flash_mounted()
    assert refusal.returncode == 1
    assert f"{disk} is in use: {disk.name} is mounted at {point}" in refusal.stderr
    assert disk.read_bytes() == before
    assert flash_mounted("--force").returncode == 0
    assert disk.read_bytes()[:SIZE] == raw


def test_a_partition_is_refused(
    image: Path, raw: bytes, disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    disk.write_bytes(raw)
    subprocess.run(["/usr/bin/partx", "--add", disk], check=True)
    try:
        part = Path(f"{disk}p2")
        assert f"{part} is a partition" in refused(capsys, image, part, "--yes", "--force")
    finally:
        subprocess.run(["/usr/bin/partx", "--delete", disk], check=True)


def test_a_file_is_written_only_when_forced(
    image: Path, raw: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "card.img"
    assert "is no disk, but a file" in refused(capsys, image, target)
    assert not target.exists()
    assert flash(image, target, "--force") == 0
    assert target.read_bytes() == raw


def test_a_mistyped_device_makes_no_file(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, image, "/dev/sdzz", "--yes", "--force")
    assert "there is no device /dev/sdzz" in said
    assert not Path("/dev/sdzz").exists()


def test_nobody_is_asked_without_a_terminal(
    image: Path, disk: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Path(os.devnull).open() as nobody:
        monkeypatch.setattr(sys, "stdin", nobody)
        said = refused(capsys, image, disk)
    assert f"all that is on {disk} would be lost" in said
    assert not any(disk.read_bytes())


def test_what_would_be_lost_is_named(
    image: Path, raw: bytes, disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    disk.write_bytes(raw)
    subprocess.run(["/usr/bin/partx", "--add", disk], check=True)
    try:
        assert flash(image, disk, "--yes") == 0
    finally:
        subprocess.run(["/usr/bin/partx", "--delete", disk], check=False)
    said = capsys.readouterr().out
    assert f"{disk}, a disk, 32 MiB" in said
    assert f"{disk.name}p2  8 MiB" in said


def test_a_wrong_declaration_is_told_as_validate_does(
    image: Path, files: Path, disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = files / "appliance.yaml"
    path.write_text(DECLARATION.replace("embedded", "imaginary"))
    assert main(["validate", str(path)]) == 1
    expected = capsys.readouterr().err
    assert refused(capsys, image, disk, "--yes", "--files", files) == expected
    assert not any(disk.read_bytes())


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "authorized_keys",
            "-----BEGIN OPENSSH PRIVATE KEY-----\n",
            "this is a private key, and whoever could read this file knows it",
        ),
        ("authorized_keys", f"{KEY}my key\n", "authorized_keys:2: is not an SSH public key"),
        ("authorized_keys", "# none\n", "holds no SSH public key"),
        ("wifi-passphrase", "short\n", "is no Wi-Fi passphrase"),
        ("keys.txt", KEY, "takes no file of this name"),
    ],
)
def test_a_wrong_file_is_told(
    image: Path,
    files: Path,
    disk: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    content: str,
    said: str,
) -> None:
    (files / name).write_text(content)
    assert said in refused(capsys, image, disk, "--yes", "--files", files)
    assert not any(disk.read_bytes())


def test_a_disk_that_forgets_is_told(
    image: Path, disk: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a counterfeit card does, which takes everything and keeps the first part."""
    write = os.write

    def forgetful(disk: int, data: memoryview) -> int:
        offset = os.lseek(disk, 0, os.SEEK_CUR)
        return write(disk, bytes(len(data)) if offset >= 12 * MIB else data)

    monkeypatch.setattr("appliance.image.flash.os.write", forgetful)
    assert "gives back something else than was written" in refused(capsys, image, disk, "--yes")


def test_ctrl_c_says_what_state_the_disk_is_in(image: Path, tmp_path: Path) -> None:
    """Interrupted at a moment that is certain: when the bytes are to go from cache to medium."""
    target = tmp_path / "slow.img"
    script = (
        "import os, signal, sys\n"
        # Whoever started us in the background may have had it ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from appliance.cli.main import main\n"
        "os.fsync = lambda disk: os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "image", "flash", image, target, "--force"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 128 + signal.SIGINT
    assert f"interrupted: {target} is not usable; flash it again" in done.stderr
    assert "Traceback" not in done.stderr
