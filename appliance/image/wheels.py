"""The wheelhouse: every wheel that the machine's venv is made of, by hash, and nothing to compile.

    python -m appliance.image.wheels --arch arm64 --out build/wheels

The locked dependencies are downloaded as binary wheels for Debian 13's Python. The few that exist
only as source, and the appliance itself, are pure Python: they are built here, on whatever
processor, and their bytes depend on nothing but their sources. `requirements.txt` installs it all
without an index:

    pip install --no-index --find-links DIR --require-hashes --no-deps -r DIR/requirements.txt
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from packaging.markers import Marker
from packaging.utils import canonicalize_name, parse_wheel_filename

from appliance.errors import ApplianceError

PROJECT: Final = Path(__file__).resolve().parents[2]
PYTHON: Final = (3, 13)  # of Debian 13
GLIBC: Final = range(41, 4, -1)  # 2.41, Debian 13's, and the older ones whose wheels run on it
MACHINES: Final[Mapping[str, str]] = {"x86-64": "x86_64", "arm64": "aarch64"}

LEFT_OUT: Final[Mapping[str, str]] = {
    "fastecdsa": "libp2p pins it for curves that Kaspa does not use; nothing of ours imports it, "
    "and it alone would need a compiler",
}
SOURCE_ONLY: Final = frozenset({"python-baseconv", "varint"})
"""Pure Python, published without a wheel."""

BUNDLE: Final = "wheelhouse.tar"
EPOCH: Final = 315_532_800  # the first moment that a zip file can tell: a wheel has no build date


@dataclass(frozen=True, slots=True)
class Pin:
    """One requirement of a lock."""

    name: str
    version: str
    marker: Marker | None
    hashes: frozenset[str]

    def line(self) -> str:
        """As pip reads it, for whatever interpreter pip itself runs on."""
        return " ".join((f"{self.name}=={self.version}", *map(_hash_option, sorted(self.hashes))))


@dataclass(frozen=True, slots=True)
class Wheel:
    """One file of the wheelhouse; `sha256` is its own, the lock's for what was downloaded."""

    name: str
    version: str
    file: str
    sha256: str
    source: str
    """`locked`: downloaded by hash. `built`: from source that the lock's hash covers. `own`."""


def wheelhouse(
    arch: str, out: Path, *, cache: Path | None = None, project: Path = PROJECT
) -> tuple[Wheel, ...]:
    """Fill `out` with wheels for `arch`, `requirements.txt`, `wheels.json` and a tar of them all.

    What the lock names is kept in `cache`, and needs no network the second time. `out` is replaced
    if it is an older wheelhouse. Raises ApplianceError.
    """
    lock = project / "requirements.lock"
    if not lock.is_file():
        raise ApplianceError(
            f"{lock}: there is no such file", hint="run this from a clone of the project"
        )
    pins = wanted(parse_lock(lock.read_text(encoding="utf-8")), arch)
    cached = (cache or project / ".cache" / "wheels") / f"{arch}-{_digest_of_pins(pins)}"
    if not (cached / "wheels.json").is_file():
        _fill(cached, arch, pins)
    wheels = [Wheel(**row) for row in json.loads((cached / "wheels.json").read_text())]
    _replace(out)
    for wheel in wheels:
        shutil.copyfile(cached / wheel.file, out / wheel.file)
        if _sha256(out / wheel.file) != wheel.sha256:
            hint = f"remove {cached}, and it is downloaded anew"
            raise ApplianceError(f"{cached / wheel.file}: its hash is wrong", hint=hint)
    wheels.append(own_wheel(out, project))
    wheels.sort(key=lambda wheel: wheel.name)
    _describe(out, wheels)
    return tuple(wheels)


# --- what the lock says


def parse_lock(text: str) -> Iterator[Pin]:
    """The pins of a lock file made by `make lock`."""
    plain = re.sub(r"(?m)^\s*#.*\n", "", text).replace("\\\n", " ")
    for line in filter(str.strip, plain.splitlines()):
        requirement, *hashes = line.split("--hash=")
        name_version, _, marker = requirement.partition(";")
        name, _, version = name_version.strip().partition("==")
        yield Pin(
            canonicalize_name(name),
            version.strip(),
            Marker(marker.strip()) if marker.strip() else None,
            frozenset(each.strip().removeprefix("sha256:") for each in hashes),
        )


def wanted(pins: Iterable[Pin], arch: str) -> tuple[Pin, ...]:
    """Those that the machine's Python needs: pip would judge markers by the one that it runs on."""
    environment = {
        "implementation_name": "cpython",
        "os_name": "posix",
        "platform_machine": MACHINES[arch],
        "platform_python_implementation": "CPython",
        "platform_system": "Linux",
        "python_full_version": ".".join(map(str, (*PYTHON, 5))),
        "python_version": ".".join(map(str, PYTHON)),
        "sys_platform": "linux",
    }
    return tuple(
        pin
        for pin in pins
        if pin.name not in LEFT_OUT and (pin.marker is None or pin.marker.evaluate(environment))
    )


def _digest_of_pins(pins: Iterable[Pin]) -> str:
    return hashlib.sha256("\n".join(pin.line() for pin in pins).encode()).hexdigest()[:16]


# --- the wheels that the lock names


def _fill(cached: Path, arch: str, pins: Sequence[Pin]) -> None:
    """Download and build into `cached`, which appears whole or not at all."""
    cached.parent.mkdir(parents=True, exist_ok=True)
    locked = [pin for pin in pins if pin.name not in SOURCE_ONLY]
    sources = [pin for pin in pins if pin.name in SOURCE_ONLY]
    with tempfile.TemporaryDirectory(dir=cached.parent, prefix=".filling-") as name:
        place = Path(name, "wheels")
        place.mkdir()
        _say(f"downloading {len(locked)} wheels for {arch} into {cached}")
        platforms = [f"manylinux_2_{minor}_{MACHINES[arch]}" for minor in GLIBC]
        platforms += [f"manylinux2014_{MACHINES[arch]}"]
        _pip(
            *("download", "--only-binary=:all:", "--dest", str(place)),
            *("--implementation", "cp", "--python-version", ".".join(map(str, PYTHON))),
            *(word for platform in platforms for word in ("--platform", platform)),
            requirements=locked,
            names=True,
        )
        wheels = [_taken(place, pin) for pin in locked]
        _say(f"building {', '.join(pin.name for pin in sources)}")
        for pin in sources:
            _build(place, pin)
        wheels += [_built(place, pin) for pin in sources]
        rows = [dataclasses.asdict(wheel) for wheel in wheels]
        (place / "wheels.json").write_text(json.dumps(rows, indent=2) + "\n")
        shutil.rmtree(cached, ignore_errors=True)
        place.rename(cached)


def _taken(place: Path, pin: Pin) -> Wheel:
    path = _wheel_of(place, pin)
    digest = _sha256(path)
    if digest not in pin.hashes:  # pip has looked, too; this is what the manifest vouches for
        raise ApplianceError(f"{path.name}: requirements.lock knows no such hash: {digest}")
    return Wheel(pin.name, pin.version, path.name, digest, "locked")


def _build(place: Path, pin: Pin) -> None:
    """Pip checks the hash of the source; the build sees only what `make venv` has locked."""
    _pip(
        *("wheel", "--no-binary=:all:", "--no-build-isolation", "--wheel-dir", str(place)),
        requirements=[pin],
    )


def _built(place: Path, pin: Pin) -> Wheel:
    path = _wheel_of(place, pin)
    if not path.name.endswith("-none-any.whl"):
        raise ApplianceError(f"{path.name}: is no pure wheel, and serves this processor only")
    return Wheel(pin.name, pin.version, path.name, _sha256(path), "built")


def _wheel_of(place: Path, pin: Pin) -> Path:
    for path in sorted(place.glob("*.whl")):
        name, version, _, _ = parse_wheel_filename(path.name)
        if name == pin.name and str(version) == pin.version:
            return path
    raise ApplianceError(f"pip left no wheel of {pin.name} {pin.version}")


# --- our own


def own_wheel(out: Path, project: Path = PROJECT) -> Wheel:
    """Build the appliance itself into `out`, from a copy: a build leaves nothing in the clone, and
    what an earlier one left there does not get in."""
    _say("building the appliance")
    with tempfile.TemporaryDirectory(prefix="appliance-wheel-") as name:
        tree = Path(name, "tree")
        tree.mkdir()
        for file in ("pyproject.toml", "README.md"):
            shutil.copyfile(project / file, tree / file)
        shutil.copytree(
            project / "appliance", tree / "appliance", ignore=shutil.ignore_patterns("__pycache__")
        )
        for path in (tree, *tree.rglob("*")):  # whatever the umask of the clone was
            path.chmod(0o755 if path.is_dir() else 0o644)
        _pip("wheel", "--no-index", "--no-build-isolation", "--wheel-dir", str(out), str(tree))
    [path] = out.glob("kaspa_appliance-*.whl")
    own, version, _, _ = parse_wheel_filename(path.name)
    return Wheel(own, str(version), path.name, _sha256(path), "own")


# --- what stands beside the wheels


def _replace(out: Path) -> None:
    if out.exists() and any(out.iterdir()) and not (out / "wheels.json").is_file():
        raise ApplianceError(
            f"{out} holds something else than a wheelhouse", hint="name a new directory with --out"
        )
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)


def _describe(out: Path, wheels: Sequence[Wheel]) -> None:
    lines = [f"{wheel.name}=={wheel.version} {_hash_option(wheel.sha256)}\n" for wheel in wheels]
    (out / "requirements.txt").write_text("".join(lines))
    rows = [dataclasses.asdict(wheel) for wheel in wheels]
    (out / "wheels.json").write_text(json.dumps(rows, indent=2) + "\n")
    with tarfile.open(out / BUNDLE, "w", format=tarfile.PAX_FORMAT) as bundle:
        for name in ("requirements.txt", "wheels.json", *(wheel.file for wheel in wheels)):
            content = (out / name).read_bytes()
            member = tarfile.TarInfo(name)  # owner 0, mode 0644
            member.size, member.mtime = len(content), EPOCH
            bundle.addfile(member, io.BytesIO(content))


# --- programs


def _pip(
    command: str, *arguments: str, requirements: Sequence[Pin] = (), names: bool = False
) -> None:
    """Run pip of this interpreter. `names` says each file that it takes, on standard error."""
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(EPOCH), "PYTHONHASHSEED": "0"}
    with tempfile.TemporaryDirectory(prefix="appliance-pip-") as name:
        if requirements:
            listed = Path(name, "requirements.txt")
            listed.write_text("".join(pin.line() + "\n" for pin in requirements))
            arguments = (*arguments, "--require-hashes", "--requirement", str(listed))
        process = subprocess.Popen(
            [sys.executable, "-m", "pip", command, "--no-deps", "--no-input",
             "--disable-pip-version-check", *arguments],
            env=environment, umask=0o022, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        told: list[str] = []
        with process:
            assert process.stdout is not None
            for line in process.stdout:
                told.append(line.strip())
                if names and (saved := re.match(r"\s*Saved (.*)", line)):
                    _say(f"  {Path(saved[1]).name}")
    if process.returncode != 0:
        errors = [line for line in told if line.startswith("ERROR")] or told[-1:]
        why = " ".join(errors[:1]).removeprefix("ERROR: ")
        raise ApplianceError(f"pip {command} failed: {why}", hint=_pip_hint(told))


def _pip_hint(told: Sequence[str]) -> str:
    if any("setuptools" in line and "Cannot import" in line for line in told):
        return "`make venv` installs what wheels are built with"
    return "pip takes its index from its own configuration: see `pip config list`"


def _hash_option(digest: str) -> str:
    return f"--hash=sha256:{digest}"


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _say(text: str) -> None:
    sys.stderr.write(f"==> {text}\n")


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m appliance.image.wheels", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--arch", required=True, choices=tuple(MACHINES))
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="made or replaced")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="instead of .cache/wheels")
    options = parser.parse_args(arguments)
    try:
        wheels = wheelhouse(options.arch, options.out, cache=options.cache)
    except ApplianceError as error:
        hint = f"\n       hint: {error.hint}" if error.hint else ""
        sys.stderr.write(f"error: {error.message}{hint}\n")
        return 1
    size = sum((options.out / wheel.file).stat().st_size for wheel in wheels)
    _say(f"{options.out}: {len(wheels)} wheels, {size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
