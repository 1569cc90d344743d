"""An image file as `flash` and `test` read it: `.img`, or `.img.zst` unpacked on the way."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from appliance.errors import ApplianceError
from appliance.image.partitions import Table, read_table
from appliance.image.programs import find

CHUNK: Final = 4 * 1024 * 1024
_HEAD: Final = 1024 * 1024
"""Holds the partition table: a GPT takes 34 sectors, an MBR one."""

Told = Callable[[int, int], None]
"""Progress: done so far, and the whole, in the same unit."""


def untold(_done: int, _whole: int) -> None:
    """For work whose progress nobody follows."""


@dataclass(frozen=True, slots=True)
class Image:
    """An image that was read once from end to end."""

    path: Path
    size: int
    """Bytes, unpacked."""
    sha256: str
    """Of those."""
    checksum: Path | None
    """The file that named its hash; None: there was none to compare with."""
    table: Table


def checked(path: Path, told: Told) -> Image:
    """Read the whole image, so that a damaged one is found before a disk is touched.

    Raises ApplianceError: not there, damaged, not what its `.sha256` says, no partition table.
    """
    beside = path.with_name(path.name + ".sha256")
    named = _named_hash(beside, path.name) if beside.is_file() else None
    content, size, head = hashlib.sha256(), 0, bytearray()
    with closing(chunks(path, told)) as pieces:
        for piece in pieces:
            content.update(piece)
            size += len(piece)
            head += piece[: max(0, _HEAD - len(head))]
    packed = content if path.suffix != ".zst" else _hash_of_file(path)
    if named is not None and named != packed.hexdigest():
        raise ApplianceError(
            f"{path} is not what {beside.name} says: it is damaged, or of another build",
            hint="copy or build it again",
        )
    if size == 0:
        raise ApplianceError(f"{path} is empty")
    return Image(
        path=path,
        size=size,
        sha256=content.hexdigest(),
        checksum=beside if named else None,
        table=_table(path, bytes(head), size),
    )


def chunks(path: Path, told: Told = untold) -> Generator[bytes, None, None]:
    """The unpacked content in pieces of at most `CHUNK` bytes. Raises ApplianceError.

    Close it when it is not read to its end: it owns a process.
    """
    try:
        stream = path.open("rb", buffering=0)
    except OSError as error:
        raise ApplianceError(f"{path} cannot be read: {(error.strerror or '').lower()}") from error
    with stream:
        whole = os.fstat(stream.fileno()).st_size
        if path.suffix != ".zst":
            while piece := stream.read(CHUNK):
                yield piece
                told(stream.tell(), whole)
            return
        command = [find("zstd"), "--decompress", "--stdout", "--quiet"]
        with subprocess.Popen(
            command, stdin=stream, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as unpacker:
            assert unpacker.stdout is not None
            assert unpacker.stderr is not None
            try:
                while piece := unpacker.stdout.read(CHUNK):
                    yield piece
                    # The offset of an open file is shared with the process that reads it.
                    told(os.lseek(stream.fileno(), 0, os.SEEK_CUR), whole)
                said = unpacker.stderr.read().decode(errors="replace").strip()
                if unpacker.wait() != 0:
                    raise ApplianceError(f"{path} cannot be unpacked: {said or 'zstd failed'}")
            finally:
                unpacker.kill()


def _named_hash(beside: Path, name: str) -> str:
    """The hash in a file as sha256sum writes it: `HASH  NAME`."""
    for line in beside.read_text(encoding="utf-8", errors="replace").splitlines():
        words = line.split()
        if words and len(words[0]) == 64 and (len(words) == 1 or words[1].lstrip("*") == name):
            return words[0].lower()
    raise ApplianceError(f"{beside} holds no SHA-256 of {name}")


def _hash_of_file(path: Path) -> hashlib._Hash:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256")


def _table(path: Path, head: bytes, size: int) -> Table:
    with tempfile.NamedTemporaryFile(prefix="appliance-table-") as stand_in:
        stand_in.write(head)
        stand_in.truncate(size)
        stand_in.flush()
        try:
            return read_table(Path(stand_in.name))
        except ApplianceError:
            raise ApplianceError(f"{path} is no disk image: it has no partition table") from None


@contextmanager
def unpacked(path: Path, directory: Path, *, grow_by: int = 0) -> Iterator[Path]:
    """A raw, sparse copy of the image in `directory`, `grow_by` bytes larger; gone afterwards.

    Raises ApplianceError.
    """
    copy = directory / "disk.img"
    try:
        with copy.open("wb") as disk, closing(chunks(path)) as pieces:
            for piece in pieces:
                if piece.count(0) == len(piece):
                    disk.seek(len(piece), os.SEEK_CUR)
                else:
                    disk.write(piece)
            disk.truncate(disk.tell() + grow_by)
        yield copy
    finally:
        copy.unlink(missing_ok=True)
