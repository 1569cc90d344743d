"""The software bill of materials: CycloneDX 1.6, from dpkg's database and the wheels' metadata.

Only what that format requires and what finds a vulnerability: names, versions, package URLs and
hashes.
"""

from __future__ import annotations

import email.parser
import json
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from appliance import __version__
from appliance.image.manifest import Component, Manifest, date, sha256
from appliance.image.rootfs import DPKG

_NAMESPACE: Final = uuid.UUID("c8a9d9b2-4a3f-4f57-9a58-2a30dd0cbe0c")
_VENV: Final = "opt/appliance/venv/lib"


def components(root: Path, wheels: Path) -> list[Component]:
    """Every installed Debian package of a finished root, and every distribution of its venv."""
    return sorted([*_packages(root / DPKG / "status"), *_distributions(root / _VENV, wheels)])


def bill(manifest: Manifest) -> str:
    """The document as text; the same manifest gives the same bytes."""
    serial = uuid.uuid5(_NAMESPACE, f"{manifest.name}/{manifest.image_sha256}")
    document = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": {
            "timestamp": date(manifest.epoch),
            "tools": {
                "components": [
                    {"type": "application", "name": "kaspa-appliance", "version": __version__}
                ]
            },
            "component": {
                "type": "operating-system",
                "bom-ref": "image",
                "name": manifest.name,
                "version": manifest.version,
                "hashes": [{"alg": "SHA-256", "content": manifest.image_sha256}],
            },
        },
        "components": [_entry(one) for one in manifest.components],
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _entry(one: Component) -> dict[str, Any]:
    name, version = quote(one.name, safe=""), quote(one.version, safe="")
    if one.kind == "deb":
        url = f"pkg:deb/debian/{name}@{version}?arch={one.architecture}"
        extra = [{"name": "debian:source", "value": one.source}]
        entry: dict[str, Any] = {"properties": extra}
    else:
        url = f"pkg:pypi/{name}@{version}"
        hashes = [{"alg": "SHA-256", "content": one.sha256}] if one.sha256 else []
        entry = {"hashes": hashes} if hashes else {}
    base = {"type": "library", "bom-ref": url, "name": one.name, "version": one.version}
    return {**base, "purl": url, **entry}


def _packages(status: Path) -> Iterator[Component]:
    parser = email.parser.HeaderParser()
    for stanza in status.read_text(encoding="utf-8").split("\n\n"):
        if not stanza.strip():
            continue
        row = parser.parsestr(stanza)
        if row["Status"] != "install ok installed":
            continue
        source = row["Source"] or row["Package"]
        if "(" not in source:
            source = f"{source} ({row['Version']})"
        yield Component("deb", row["Package"], row["Version"], row["Architecture"], source)


def _distributions(venv: Path, wheels: Path) -> Iterator[Component]:
    hashes = {_key(*wheel.name.split("-")[:2]): sha256(wheel) for wheel in wheels.rglob("*.whl")}
    for metadata in sorted(venv.glob("python3*/site-packages/*.dist-info/METADATA")):
        row = email.parser.HeaderParser().parsestr(metadata.read_text(encoding="utf-8"))
        name, version = _normal(row["Name"]), row["Version"]
        yield Component("wheel", name, version, sha256=hashes.get(_key(name, version), ""))


def _key(name: str, version: str) -> tuple[str, str]:
    return _normal(name), version


def _normal(name: str) -> str:
    """PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()
