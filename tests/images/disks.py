"""A toy image with the layout of a real one, and disks to write it to."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MIB = 1024 * 1024
SIZE = 24 * MIB

DECLARATION = """\
apiVersion: appliance/v1
kind: Appliance
metadata:
  name: at-home
network: simnet
node:
  kind: embedded
"""

# Like a real one: a GPT with the user's FAT partition among others.
_LAYOUT = """\
label: gpt
start=1MiB, size=4MiB, type=uefi, name=esp
start=5MiB, size=8MiB, type=EBD0A0A2-B9E5-4433-87C0-68B6B72699C7, name=setup
start=13MiB, size=8MiB, type=linux, name=appliance_1
"""


def make_image(path: Path, layout: str = _LAYOUT, *, setup_at: int = 5 * MIB) -> Path:
    """Write a toy image; its root partition holds bytes that zeros cannot pass for."""
    path.write_bytes(bytes(SIZE))
    subprocess.run(["/usr/sbin/sfdisk", "--quiet", path], input=layout.encode(), check=True)
    offset, blocks = str(setup_at // 512), str(8 * 1024)
    command = ["/usr/sbin/mkfs.vfat", "-n", "APPLIANCE", "--offset", offset, str(path), blocks]
    subprocess.run(command, check=True, capture_output=True)
    noise = hashlib.shake_256(b"root").digest(8 * MIB - 7)
    with path.open("r+b") as disk:
        disk.seek(13 * MIB)
        disk.write(noise)
    return path


def pack(image: Path) -> Path:
    """`IMAGE.zst` with its `.sha256`, as `image build` leaves them."""
    packed = image.with_name(image.name + ".zst")
    subprocess.run(["zstd", "--quiet", "--force", image, "-o", packed], check=True)
    digest = hashlib.sha256(packed.read_bytes()).hexdigest()
    packed.with_name(packed.name + ".sha256").write_text(f"{digest}  {packed.name}\n")
    return packed


@contextmanager
def loop_device(backing: Path, size: int) -> Iterator[Path]:
    """A disk of the kernel's over a sparse file. Raises CalledProcessError where that is not to be
    had."""
    backing.touch()
    with backing.open("r+b") as file:
        file.truncate(size)
    command = ["/usr/sbin/losetup", "--find", "--show", str(backing)]
    done = subprocess.run(command, capture_output=True, check=True, text=True)
    device = Path(done.stdout.strip())
    try:
        yield device
    finally:
        subprocess.run(["/usr/sbin/losetup", "--detach", device], check=True)
