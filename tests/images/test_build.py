"""`appliance image build`, as far as it goes without building: what is refused, chosen, written."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from appliance.cli.image_build import _TARGETS
from appliance.cli.main import main
from appliance.declaration.load import loaded
from appliance.errors import ApplianceError
from appliance.image import build, hosttools, mbr
from appliance.image.bill import bill, components
from appliance.image.manifest import Manifest, as_text
from appliance.image.partitions import read_table
from appliance.image.rootfs import DPKG, clamp
from appliance.image.targets import TARGETS, X86_64, choose, packages

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "schemas/examples"


@pytest.mark.parametrize(
    ("example", "target"),
    [("public-relay", "x86-64"), ("router", "arm64"), ("home-pi", "raspberry-pi")],
)
def test_the_profile_says_what_is_built(example: str, target: str) -> None:
    assert choose(loaded(str(EXAMPLES / f"{example}.yaml")).declaration).name == target


def test_a_target_that_contradicts_the_profile_is_refused() -> None:
    declaration = loaded(str(EXAMPLES / "home-pi.yaml")).declaration
    assert choose(declaration, "arm64").name == "arm64"
    with pytest.raises(ApplianceError, match="raspberry-pi-4-4g is of aarch64"):
        choose(declaration, "x86-64")


def test_the_command_line_knows_every_target() -> None:
    assert tuple(TARGETS) == _TARGETS


def test_every_target_has_its_packages() -> None:
    for target in TARGETS.values():
        listed = packages(ROOT, target.packages + target.later)
        assert {"systemd-sysv", "openssh-server"} < set(listed)
        assert any(name.startswith("linux-image-") for name in listed)


def test_a_missing_program_is_named_with_what_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("unshare", "setpriv"):
        found = shutil.which(name)
        assert found is not None
        (tmp_path / name).symlink_to(found)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ApplianceError) as caught:
        hosttools.ensure(X86_64, install=False)
    assert caught.value.message == "mmdebstrap is needed and not installed"
    assert "apt-get install --yes --no-install-recommends mmdebstrap" in str(caught.value.hint)
    assert "--install-missing" in str(caught.value.hint)


def test_a_wrong_declaration_is_told_with_its_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text("apiVersion: appliance/v1\nkind: Appliance\nmetadata:\n  name: A B\n")
    assert main(["image", "build", str(file), "--out", str(tmp_path / "out"), "--date", "1"]) == 1
    assert capsys.readouterr().err.startswith(f"{file}:4:9: metadata.name: ")
    assert not (tmp_path / "out").exists()


def test_a_state_that_no_image_keeps_is_told_with_its_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The example for `make run` is for a user's own directory."""
    file = EXAMPLES / "minimal.yaml"
    assert main(["image", "build", str(file), "--out", str(tmp_path / "out"), "--date", "1"]) == 1
    line = next(n for n, row in enumerate(file.read_text().splitlines(), 1) if "  dir:" in row)
    said = capsys.readouterr().err
    assert said.startswith(f"{file}:{line}:8: state.dir: .state/minimal is not for an image")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("date", ["yesterday", "2026-13-01"])
def test_a_wrong_date_is_wrong_usage(date: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["image", "build", "x.yaml", "--out", "out", "--date", date])
    assert caught.value.code == 2


def test_the_pi_has_two_slots_of_one_size_behind_its_firmware(tmp_path: Path) -> None:
    disk = tmp_path / "disk.img"
    with disk.open("wb") as file:
        file.truncate(4 * 1024**3)
    table = mbr.table("00c0ffee")
    subprocess.run(["sfdisk", "--quiet", disk], input=table.encode(), check=True)
    found = read_table(disk)
    firmware, first, second, data = sorted(found.partitions, key=lambda one: one.start)
    assert found.scheme == "dos"
    assert found.setup == firmware
    assert first.size == second.size
    assert found.data == data
    assert found.identifier == "0x00c0ffee"  # of which the command line names PARTUUID …-02


def test_both_gpt_slots_have_one_size() -> None:
    sizes = {
        name: [line for line in text.splitlines() if line.startswith("Size")]
        for name in ("30-root.conf", "40-empty.conf")
        for text in [(ROOT / "images/repart.d" / name).read_text()]
    }
    assert sizes["30-root.conf"] == sizes["40-empty.conf"]
    assert len(sizes["30-root.conf"]) == 2


# --- what stands beside the image


@pytest.fixture
def small_root(tmp_path: Path) -> Path:
    """A dpkg database of two packages, one of them removed; a venv with one distribution."""
    root = tmp_path / "root"
    status = root / DPKG / "status"
    status.parent.mkdir(parents=True)
    status.write_text(
        "Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nSource: glibc\n"
        "Version: 2.41-12+deb13u4\nDescription: C library\n more of it\n\n"
        "Package: gone\nStatus: deinstall ok config-files\nArchitecture: all\nVersion: 1\n\n"
    )
    info = root / "opt/appliance/venv/lib/python3.13/site-packages/Some_Thing-1.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: Some.Thing\nVersion: 1.2\n\n")
    return root


def manifest_of(root: Path, wheels: Path) -> Manifest:
    return Manifest(
        name="relay-1-x86-64",
        target="x86-64",
        version="1",
        epoch=1_700_000_000,
        kernel="6.12",
        sources="",
        declaration="d" * 64,
        components=components(root, wheels),
        installed=1,
        image_size=2,
        image_sha256="e" * 64,
    )


def test_the_inputs_are_named_by_version_and_hash(small_root: Path, tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    (wheels / "some_thing-1.2-py3-none-any.whl").write_bytes(b"wheel")
    said = json.loads(as_text(manifest_of(small_root, wheels), "f" * 64))
    assert said["packages"] == {"libc6:amd64": "2.41-12+deb13u4"}
    assert said["wheels"]["some-thing"]["version"] == "1.2"
    assert len(said["wheels"]["some-thing"]["sha256"]) == 64
    assert said["source_date"] == "2023-11-14T22:13:20Z"


def test_the_bill_of_materials_is_cyclonedx(small_root: Path, tmp_path: Path) -> None:
    manifest = manifest_of(small_root, tmp_path)
    said = json.loads(bill(manifest))
    assert (said["bomFormat"], said["specVersion"]) == ("CycloneDX", "1.6")
    assert said["serialNumber"].startswith("urn:uuid:")
    urls = [one["purl"] for one in said["components"]]
    assert urls == ["pkg:deb/debian/libc6@2.41-12%2Bdeb13u4?arch=amd64", "pkg:pypi/some-thing@1.2"]
    references = [one["bom-ref"] for one in said["components"]]
    assert len(set(references)) == len(references)
    assert bill(manifest) == bill(manifest)


# --- what makes two builds the same


def test_nothing_is_younger_than_the_sources(tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir/new").write_text("x")
    (tmp_path / "dir/link").symlink_to("nowhere")
    clamp(tmp_path, 1000)
    places = (tmp_path, *tmp_path.rglob("*"))
    assert {path.lstat().st_mtime for path in places} == {1000}


def test_the_hash_of_the_roles_notices_a_mode_and_a_name(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_text("x")
    seen = {build.tree(tmp_path)}
    file.chmod(0o755)
    seen.add(build.tree(tmp_path))
    file.rename(tmp_path / "b")
    seen.add(build.tree(tmp_path))
    assert len(seen) == 3
