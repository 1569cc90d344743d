"""Booted images: what `image test` says of a good one, and machines whose owner, disk or network
fails them: they come up, say what is wrong, and recover when it is mended.

    make test ARGS="-m slow tests/images/test_boot.py"

The image is built first, unless APPLIANCE_X86_IMAGE names one.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from appliance.cli.main import main
from appliance.image import netlab
from tests.images.disks import make_image
from tests.judges import booted


def played(name: str, image: Path, scratch: Path) -> dict[str, Any]:
    """What the machine showed in a story of `stories.py`."""
    words = netlab.alone("tests.images.stories", name, str(image), str(scratch))
    done = subprocess.run(words, stdout=subprocess.PIPE, check=True)
    shown: dict[str, Any] = json.loads(done.stdout)
    return shown


@pytest.mark.parametrize("direct", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.timeout(5400)
def test_a_good_image_passes(
    x86_image: Path, capfd: pytest.CaptureFixture[str], direct: bool
) -> None:
    before = x86_image.stat()
    assert main(["image", "test", str(x86_image), "--json", *(["--direct"] if direct else [])]) == 0
    report = json.loads(capfd.readouterr().out)
    assert report["passed"]
    names = {"boot", "login", "units", "status", "limits", "metrics"}
    assert {one["name"] for one in report["checks"]} >= names | {"tcp ports", "root", "data", "off"}
    assert x86_image.stat().st_mtime_ns == before.st_mtime_ns


@pytest.mark.slow
@pytest.mark.timeout(5400)
def test_a_wrong_declaration_is_told_and_mended_while_it_runs(
    x86_image: Path, tmp_path: Path
) -> None:
    shown = played("wrong_declaration", x86_image, tmp_path)
    sentence = "appliance.yaml:5:10: network: 'simnett' is not one of"
    assert sentence in shown["faults"]
    assert sentence in shown["console"]
    assert shown["status_before"] == 1
    assert shown["name"] == "at-home"


@pytest.mark.slow
@pytest.mark.timeout(5400)
def test_a_missing_declaration_is_told_and_mended(x86_image: Path, tmp_path: Path) -> None:
    shown = played("no_declaration", x86_image, tmp_path)
    assert "kind: Appliance" in shown["faults"]
    assert "TO MEND" in shown["console"]
    assert shown["name"] == "at-home"


@pytest.mark.slow
@pytest.mark.timeout(5400)
def test_a_card_can_be_mended_on_another_computer(x86_image: Path, tmp_path: Path) -> None:
    shown = played("mended_on_another_computer", x86_image, tmp_path)
    assert "network: 'simnett' is not one of" in shown["faults"]
    assert netlab.GUEST in shown["state"]
    assert shown["faults_after"] == ""


@pytest.mark.slow
@pytest.mark.timeout(5400)
def test_a_full_disk_is_told_and_the_new_declaration_holds(x86_image: Path, tmp_path: Path) -> None:
    shown = played("full_disk", x86_image, tmp_path)
    assert "the disk is full" in shown["faults"]
    assert shown["name"] == "elsewhere"


@pytest.mark.slow
@pytest.mark.timeout(5400)
def test_a_dead_network_is_told_and_used_when_it_lives(x86_image: Path, tmp_path: Path) -> None:
    shown = played("dead_network", x86_image, tmp_path)
    assert "none: no network yet" in shown["console"]
    assert shown["name"] == "at-home"
    assert f"ssh operator@{netlab.GUEST}" in shown["state"]


@pytest.mark.slow
@pytest.mark.judges
@pytest.mark.timeout(9000)
def test_lynis_wishes_nothing_that_is_not_registered(x86_image: Path) -> None:
    """Of the image's own kernel, too, which the judges' bench does not have."""
    assert not booted.shortcomings(booted.verdict(x86_image))


def test_an_image_without_a_loader_is_told_at_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    image = make_image(tmp_path / "toy.img")
    assert main(["image", "test", str(image), "--json"]) == 1
    shown = capfd.readouterr()
    assert json.loads(shown.out)["checks"] == [
        {"name": "boot", "passed": False, "said": "it has no UEFI boot loader"}
    ]
    assert "toy.img is not as it must be: boot: it has no UEFI boot loader" in shown.err


def test_an_image_that_is_not_there_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["image", "test", str(tmp_path / "none.img")]) == 1
    assert "none.img: there is no such image" in capsys.readouterr().err


def test_a_kernel_beside_the_image_must_be_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = make_image(tmp_path / "toy.img")
    assert main(["image", "test", str(image), "--direct"]) == 1
    shown = capsys.readouterr().err
    assert "there is no toy.vmlinuz beside the image" in shown
    assert "--keep-kernel" in shown
