"""The image takes its package sources from the host: what is Debian's, turned to the release."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from appliance.errors import ApplianceError
from appliance.image.sources import KEYRING, host_sources, image_sources, read, turned

BOOKWORM = """\
Types: deb deb-src
# a comment
URIs: http://mirror.test/debian
Suites: bookworm bookworm-updates bookworm-backports
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.test/debian-security
Suites: bookworm-security
Components: main
"""


def apt(root: Path, **files: str) -> Path:
    parts = root / "etc/apt/sources.list.d"
    parts.mkdir(parents=True)
    for name, text in files.items():
        (parts / name.replace("_", ".")).write_text(text)
    return root


def test_a_bookworm_host_gives_trixie_without_backports(tmp_path: Path) -> None:
    [archive, security] = turned(host_sources(apt(tmp_path, debian_sources=BOOKWORM)), "trixie")
    assert archive.uris == ("http://mirror.test/debian",)
    assert archive.suites == ("trixie", "trixie-updates")
    assert security.suites == ("trixie-security",)
    assert f"Signed-By: {KEYRING}\n" in str(security)


def test_lines_of_the_older_format_are_joined(tmp_path: Path) -> None:
    lines = (
        "deb [arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] "
        "http://mirror.test/debian stable main\n"
        "deb-src http://mirror.test/debian stable main\n"
        "# deb http://mirror.test/other stable main\n"
        "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] "
        "http://mirror.test/debian stable-updates main # comment\n"
    )
    (tmp_path / "etc/apt").mkdir(parents=True)
    (tmp_path / "etc/apt/sources.list").write_text(lines)
    [source] = turned(host_sources(tmp_path), "trixie")
    assert source.suites == ("trixie", "trixie-updates")
    assert "Arch" not in str(source)


def test_other_vendors_and_disabled_sources_stay_out(tmp_path: Path) -> None:
    vendor = "Types: deb\nURIs: http://vendor.test/\nSuites: {}\nComponents: {}\n{}"
    root = apt(
        tmp_path,
        a_sources=vendor.format("bookworm", "main", "Signed-By: /usr/share/keyrings/vendor.gpg\n"),
        b_sources=vendor.format("bookworm-pgdg", "main", ""),
        c_sources=vendor.format("bookworm", "stable", ""),
        d_sources=vendor.format("bookworm", "main", "Enabled: no\n"),
        e_disabled=vendor.format("bookworm", "main", ""),
    )
    assert turned(host_sources(root), "trixie") == []


def test_a_given_file_is_used_as_it_stands(tmp_path: Path) -> None:
    file = tmp_path / "mine.sources"
    file.write_text(
        "Types: deb\nURIs: file:/srv/debian\nSuites: trixie\nComponents: main\nTrusted: yes\n"
    )
    text = image_sources(file=file, components=("main", "non-free-firmware"))
    assert "URIs: file:/srv/debian\n" in text
    assert "Components: main\n" in text
    assert "Trusted: yes\n" in text


def test_a_key_may_stand_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.sources"
    key = "\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mQ==\n -----END PGP PUBLIC KEY BLOCK-----"
    file.write_text(f"Types: deb\nURIs: http://m.test\nSuites: trixie\nSigned-By:{key}\n")
    [source] = read(file)
    assert source.signed_by.count("\n") == 3
    assert " mQ==\n" in str(source)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no package source"),
        ("Types: deb\nSuites: trixie\n", "lacks URIs or Suites"),
        (
            "Types: deb\nURIs: https://me:secret@m.test/\nSuites: trixie\n",
            "the package source at m.test holds a user name or password",
        ),
    ],
)
def test_what_cannot_serve_is_named(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "mine.sources"
    file.write_text(text)
    with pytest.raises(ApplianceError) as caught:
        image_sources(file=file)
    assert said in caught.value.message
    assert "secret" not in caught.value.message


def test_the_command_prints_what_it_was_given(tmp_path: Path) -> None:
    file = tmp_path / "mine.sources"
    file.write_text(BOOKWORM)
    command = [sys.executable, "-m", "appliance.image.sources", "--from", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Types: deb\nURIs: http://mirror.test/debian\n")
    wrong = subprocess.run([*command, "-missing"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
    file.unlink()
    gone = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (gone.returncode, gone.stdout) == (1, "")
    assert gone.stderr == f"{file}: no such file or directory\n"
