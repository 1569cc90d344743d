"""The rules that OpenSCAP judges by: the SCAP content for Debian 13, out of a Debian package.

Trixie's own `ssg-debian` ends at Debian 12, so that it is taken from sid; only its data stream is
unpacked, on this side. Nothing of sid gets into a machine.
"""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Final

from appliance.errors import ApplianceError

PROJECT: Final = Path(__file__).resolve().parents[2]
CACHE: Final = PROJECT / ".cache/judges"
PACKAGE: Final = "ssg-debian"
SUITE: Final = "sid"
STREAM: Final = "usr/share/xml/scap/ssg/content/ssg-debian13-ds.xml"


def data_stream() -> Path:
    """The data stream's file; its name carries the package's version.

    Errors: ApplianceError when the package cannot be had.
    """
    if kept := sorted(CACHE.glob("ssg-debian13-*.xml")):
        return kept[-1]
    CACHE.mkdir(parents=True, exist_ok=True)
    package = _download()
    listed = subprocess.run(
        ["dpkg-deb", "--fsys-tarfile", package], capture_output=True, check=True
    ).stdout
    with tarfile.open(fileobj=io.BytesIO(listed)) as archive:
        found = archive.extractfile(f"./{STREAM}")
        if found is None:
            raise ApplianceError(f"{package.name} has no {STREAM}")
        content = found.read()
    version = package.name.split("_")[1]
    place = CACHE / f"ssg-debian13-{version}.xml"
    place.write_bytes(content)
    package.unlink()
    return place


def _download() -> Path:
    sources = subprocess.run(
        [sys.executable, "-m", "appliance.image.sources", "--suite", SUITE],
        cwd=PROJECT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    # sid has neither updates nor a security archive.
    archive = re.sub(r"(?m)^Suites: .*$", f"Suites: {SUITE}", sources.split("\n\n")[0])
    state = CACHE / "apt"
    (state / "lists/partial").mkdir(parents=True, exist_ok=True)
    (state / "archives/partial").mkdir(parents=True, exist_ok=True)
    (state / "sid.sources").write_text(archive + "\n")
    options = [
        f"Dir::State={state}",
        f"Dir::State::Lists={state}/lists",
        "Dir::State::status=/dev/null",
        f"Dir::Cache={state}",
        f"Dir::Etc::SourceList={state}/sid.sources",
        "Dir::Etc::SourceParts=/dev/null",
        "APT::Sandbox::User=root",
    ]
    apt = ["apt-get", "-qq", *(word for option in options for word in ("-o", option))]
    for command in (["update"], ["download", PACKAGE]):
        done = subprocess.run(
            [*apt, *command], cwd=CACHE, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise ApplianceError(f"{PACKAGE} cannot be had: {done.stderr.strip()[-500:]}")
    return next(CACHE.glob(f"{PACKAGE}_*.deb"))


if __name__ == "__main__":
    print(data_stream())
