"""`appliance image build`: a declaration becomes a disk image, with a manifest and an SBOM.

Steps keep what they can in the cache; the working directory beside it goes when the build ends.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import appliance
from appliance.declaration.checks import Problem
from appliance.declaration.load import loaded
from appliance.declaration.model import Declaration
from appliance.errors import ApplianceError
from appliance.image import bootstrap, disk, foreign, hosttools, initrd, mbr, native, rootfs
from appliance.image.bill import bill, components
from appliance.image.cache import Cache
from appliance.image.disk import MEBIBYTE, Parts
from appliance.image.manifest import Manifest, as_text, sha256
from appliance.image.native import Native
from appliance.image.provision import Ground, playbook_program, provision
from appliance.image.sources import image_sources
from appliance.image.steps import Steps
from appliance.image.targets import COMPONENTS, Target, choose
from appliance.units import human_bytes

PROJECT: Final = Path(appliance.__file__).resolve().parents[1]
_NEEDED: Final = ("images", "playbooks", "roles")
_ROOM: Final = 8 * 1024 * MEBIBYTE
"""What a build with an empty cache takes at most, measured: 5.6 GB."""
STATE: Final = Path("/var/lib/appliance")
"""Where the daemon of a machine may write: the StateDirectory= of its unit."""
_README: Final = """\
This partition is for your files. Write them here, then start the machine.

appliance.yaml    what the machine is to do; `appliance validate` checks it beforehand
authorized_keys   SSH public keys of the user `operator`, one a line
wifi-passphrase   the passphrase of the wireless network that appliance.yaml names

The machine writes here: state.txt (addresses, what runs) and faults.txt (what was wrong).
"""


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be built."""

    file: Path
    """The declaration."""
    out: Path
    cache: Path
    epoch: int
    """The sources' date, seconds since 1970: no file of the image is younger."""
    target: str | None = None
    """None: what the declaration's hardware profile says."""
    version: str = appliance.__version__
    sources: Path | None = None
    authorized_keys: Path | None = None
    keep_kernel: bool = False
    fresh: bool = False
    """Whether to fetch the packages anew."""
    install_missing: bool = False
    project: Path = PROJECT
    variables: Mapping[str, Any] = field(default_factory=dict)
    """Further variables of the roles."""


@dataclass(frozen=True, slots=True)
class Built:
    """The files that stand in the output directory, and what they weigh, in bytes."""

    image: Path
    manifest: Path
    bill: Path
    size: int
    compressed: int
    installed: int
    """The files of the root and of /var, unpacked."""
    seconds: Mapping[str, float]


def build(request: Request) -> Built:
    """Raises ApplianceError. Whatever happens, nothing stays mounted and no process runs on; an
    output file is whole or not there."""
    name, target = _ready(request)
    request.out.mkdir(parents=True, exist_ok=True)
    cache = Cache(request.cache)
    with (
        foreign.enabled(target),
        tempfile.TemporaryDirectory(prefix=".work-", dir=cache.directory) as directory,
    ):
        work = Path(directory)
        project = request.project
        steps = Steps(cache.directory / f"{name}.log", total=8)
        ground = _provisioned(request, cache, steps, target)
        root = work / "root"
        with steps.step("the read-only root"):
            steps.run(["cp", "--archive", "--reflink=auto", ground.system, root])
            release = rootfs.take_kernel(root, work)
            # The initrd needs the modules and programs of the root as they are.
            initrd.make(steps, project, root, work, target, release=release, epoch=request.epoch)
            rootfs.finish(steps, project, root, version=request.version, epoch=request.epoch)
        parts = Parts(
            work=work,
            tools=ground.tools,
            target=target,
            version=request.version,
            release=release,
            epoch=request.epoch,
            setup=_user_files(request),
        )
        with steps.step("file systems and partitions"):
            make = disk.gpt if target.efi else mbr.mbr
            image = make(steps, project, parts)
        with steps.step("manifest and bill of materials"):
            found = components(root, ground.wheels)
            manifest = Manifest(
                name=name,
                target=target.name,
                version=request.version,
                epoch=request.epoch,
                kernel=release,
                sources=ground.sources,
                declaration=sha256(request.file),
                components=found,
                installed=_weight(root),
                image_size=image.stat().st_size,
                image_sha256=sha256(image),
            )
        with steps.step("compressing"):
            return _deliver(request, steps, parts, manifest)


def provisioned(request: Request) -> Path:
    """The root that an image is made of, as the roles leave it: in the cache, not to be changed.

    The first half of `build`. Raises ApplianceError.
    """
    name, target = _ready(request)
    cache = Cache(request.cache)
    with foreign.enabled(target):
        steps = Steps(cache.directory / f"{name}.log", total=4)
        return _provisioned(request, cache, steps, target).system


@dataclass(frozen=True, slots=True)
class _Ground:
    """Entries of the cache."""

    sources: str
    """Of Debian's packages, deb822."""
    tools: Path
    wheels: Path
    system: Path


def _provisioned(request: Request, cache: Cache, steps: Steps, target: Target) -> _Ground:
    sources = image_sources(components=COMPONENTS, file=request.sources)
    project = request.project
    with steps.step("the tools"):
        tools = bootstrap.tools_root(cache, steps, project, sources, fresh=request.fresh)
    with steps.step(f"Debian for {target.name}"):
        helper = native.of(tools, target)
        base = bootstrap.target_root(
            cache, steps, project, target, sources, helper=helper, fresh=request.fresh
        )
    with steps.step("the appliance's wheels"):
        wheels = _wheels(steps, cache, target)
    with steps.step("the roles"):
        system = _system(request, cache, steps, target, base=base, wheels=wheels, helper=helper)
    return _Ground(sources, tools, wheels, system)


def _declared(request: Request) -> Declaration:
    """As the image's daemon will read it. Raises ApplianceError."""
    found = loaded(str(request.file), environ={"STATE_DIRECTORY": str(STATE)})
    state = found.declaration.state.dir
    if state != STATE and STATE not in state.parents:
        message = f"{state} is not for an image, which keeps its state in {STATE}: leave it out"
        raise found.refusal([Problem(("state.dir",), message)])
    return found.declaration


def _ready(request: Request) -> tuple[str, Target]:
    """The image's name and its target. Everything that can be known to be wrong or missing is told
    before the first step."""
    declaration = _declared(request)
    target = choose(declaration, request.target)
    if os.geteuid() != 0:
        raise ApplianceError(
            "an image is built as root: it makes file systems with other users' files",
            hint="sudo, with the same command",
        )
    absent = [name for name in _NEEDED if not (request.project / name).is_dir()]
    if absent:
        raise ApplianceError(
            f"{request.project} does not hold {', '.join(absent)}",
            hint="run the appliance from a checkout of its sources: `make venv` in it",
        )
    hosttools.ensure(target, install=request.install_missing)
    playbook_program()
    request.cache.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(request.cache).free
    if free < _ROOM:
        raise ApplianceError(
            f"{request.cache} has {human_bytes(free)} free, and a build takes up to "
            f"{human_bytes(_ROOM)}",
            hint="name another place with --cache DIR",
        )
    return f"{declaration.name}-{request.version}-{target.name}", target


def _wheels(steps: Steps, cache: Cache, target: Target) -> Path:
    """The wheelhouse of the target's architecture; its maker keeps it up to date itself."""
    architecture = "x86-64" if target.debian == "amd64" else "arm64"
    out = cache.directory / f"wheels-{architecture}"
    command = [sys.executable, "-m", "appliance.image.wheels"]
    steps.run([*command, "--arch", architecture, "--out", out], cwd=PROJECT)
    return out


def _system(
    request: Request,
    cache: Cache,
    steps: Steps,
    target: Target,
    *,
    base: Path,
    wheels: Path,
    helper: Native | None,
) -> Path:
    """The provisioned root, kept for the next build with the same roles and declaration."""
    project = request.project
    inputs = {
        "base": base.parent.name,
        "made": base.parent.stat().st_mtime_ns,
        "wheels": tree(wheels),
        "roles": tree(project / "roles"),
        "playbooks": tree(project / "playbooks"),
        "declaration": sha256(request.file),
        "epoch": request.epoch,
        "variables": dict(request.variables),
    }

    def make(directory: Path) -> None:
        root = directory / "root"
        steps.run(["cp", "--archive", "--reflink=auto", base, root])
        with tempfile.TemporaryDirectory(prefix="ansible-") as place:
            variables = {
                "appliance_wheelhouse": str(wheels),
                "appliance_declaration": str(request.file.absolute()),
                **request.variables,
            }
            ground = Ground(project, root, target, helper, work=Path(place))
            provision(steps, ground, variables, request.epoch)

    return cache.entry(f"system-{target.name}", inputs, make) / "root"


def _user_files(request: Request) -> dict[str, bytes]:
    files = {"README.txt": _README.encode(), "appliance.yaml": request.file.read_bytes()}
    if request.authorized_keys is not None:
        try:
            files["authorized_keys"] = request.authorized_keys.read_bytes()
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise ApplianceError(f"{request.authorized_keys}: {why}") from error
    return files


def _deliver(request: Request, steps: Steps, parts: Parts, manifest: Manifest) -> Built:
    out, work = request.out, parts.work
    names = [f"{manifest.name}.img.zst", "manifest.json", "sbom.cdx.json"]
    packed = work / names[0]
    parts.tool(
        steps,
        *("zstd", "-q", "-T0", "-9", "--no-progress"),
        *("/run/build/disk.img", "-o", f"/run/build/{names[0]}"),
    )
    digest = sha256(packed)
    (work / f"{names[0]}.sha256").write_text(f"{digest}  {names[0]}\n", encoding="utf-8")
    (work / names[1]).write_text(as_text(manifest, digest), encoding="utf-8")
    (work / names[2]).write_text(bill(manifest), encoding="utf-8")
    delivered = [*names, f"{names[0]}.sha256"]
    if request.keep_kernel:
        for part in ("vmlinuz", "initrd", "cmdline"):
            (work / part).rename(work / f"{manifest.name}.{part}")
            delivered.append(f"{manifest.name}.{part}")
    for name in delivered:
        temporary = out / f".{name}.partial"
        shutil.move(work / name, temporary)
        temporary.replace(out / name)
    return Built(
        image=out / names[0],
        manifest=out / names[1],
        bill=out / names[2],
        size=manifest.image_size,
        compressed=(out / names[0]).stat().st_size,
        installed=manifest.installed,
        seconds=steps.seconds,
    )


def tree(directory: Path) -> str:
    """A hash of every file below: names, contents, and whether they are executable."""
    digest = hashlib.sha256()
    for path in sorted(directory.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            mode = "x" if os.access(path, os.X_OK) else "-"
            digest.update(f"{path.relative_to(directory)}\0{mode}{sha256(path)}\n".encode())
    return digest.hexdigest()


def _weight(root: Path) -> int:
    """Bytes on a disk with blocks of 4 KiB; hard links count once."""
    seen: set[tuple[int, int]] = set()
    total = 0
    for directory, _, files in os.walk(root):
        for name in files:
            found = os.lstat(os.path.join(directory, name))  # noqa: PTH118  # many files
            if (found.st_dev, found.st_ino) not in seen:
                seen.add((found.st_dev, found.st_ino))
                total += -(-found.st_size // 4096) * 4096
    return total
