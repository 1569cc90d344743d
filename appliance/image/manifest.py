"""What an image was made from: enough to make it again, nothing that is secret."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

SCHEMA: Final = "appliance.image/v1"


@dataclass(frozen=True, slots=True, order=True)
class Component:
    """One Debian package or one Python distribution."""

    kind: Literal["deb", "wheel"]
    name: str
    version: str
    architecture: str = ""
    source: str = ""
    """The source package, of a Debian package."""
    sha256: str = ""
    """The wheel's."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """Sizes in bytes; hashes as hexadecimal SHA-256."""

    name: str
    target: str
    version: str
    epoch: int
    kernel: str
    sources: str
    """Package sources, deb822."""
    declaration: str
    """The hash of the file: its content is the user's."""
    components: Sequence[Component]
    installed: int
    image_size: int
    image_sha256: str


def as_text(manifest: Manifest, compressed_sha256: str) -> str:
    packages = [one for one in manifest.components if one.kind == "deb"]
    wheels = [one for one in manifest.components if one.kind == "wheel"]
    document = {
        "schema": SCHEMA,
        "name": manifest.name,
        "target": manifest.target,
        "version": manifest.version,
        "source_date": date(manifest.epoch),
        "source_date_epoch": manifest.epoch,
        "kernel": manifest.kernel,
        "declaration": {"sha256": manifest.declaration},
        "sources": manifest.sources,
        "packages": {f"{one.name}:{one.architecture}": one.version for one in sorted(packages)},
        "wheels": {
            one.name: {"version": one.version, "sha256": one.sha256} for one in sorted(wheels)
        },
        "installed_bytes": manifest.installed,
        "image": {
            "bytes": manifest.image_size,
            "sha256": manifest.image_sha256,
            "compressed_sha256": compressed_sha256,
        },
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def date(epoch: int) -> str:
    return datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
