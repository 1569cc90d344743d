"""Documents of an older version: they keep working, and `migrate` says the same in the current one.

The golden files are pairs in `versions/`: `NAME.v1alpha1.yaml` becomes `NAME.v1.yaml`.
"""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from appliance.cli.main import main
from appliance.declaration import DeclarationErrors, load, loads
from appliance.declaration.load import loaded
from appliance.declaration.migrate import migrate
from appliance.declaration.replace import replace
from appliance.declaration.versions import STEPS
from appliance.errors import ApplianceError
from tests.declaration.test_faults import HEAD

VERSIONS = Path(__file__).parent / "versions"
OLD = sorted(VERSIONS.glob("*.v1alpha1.yaml"))
SMALL = "apiVersion: appliance/v1alpha1\nkind: Appliance\nname: box\n"


def golden(old: Path) -> Path:
    return old.with_name(old.name.replace(".v1alpha1.", ".v1."))


def moved(text: str) -> str:
    return migrate(text.encode(), file="f.yaml").text


@pytest.fixture
def old_file(tmp_path: Path) -> Path:
    path = tmp_path / "home-pi.yaml"
    path.write_bytes((VERSIONS / "home-pi.v1alpha1.yaml").read_bytes())
    return path


# --- what it means


@pytest.mark.parametrize("old", OLD, ids=lambda path: path.name)
def test_the_golden_files(old: Path) -> None:
    migration = migrate(old.read_bytes(), file=old.name)
    assert migration.text == golden(old).read_text()
    assert migration.older == ("appliance/v1alpha1",)


@pytest.mark.parametrize("old", OLD, ids=lambda path: path.name)
def test_an_old_file_means_what_the_new_one_means(old: Path) -> None:
    assert load(old) == load(golden(old))
    assert loaded(old).older == "appliance/v1alpha1"
    assert loaded(golden(old)).older is None


@pytest.mark.parametrize("old", OLD, ids=lambda path: path.name)
def test_what_was_migrated_is_left_alone(old: Path) -> None:
    new = golden(old).read_bytes()
    again = migrate(new, file=old.name)
    assert (again.text.encode(), again.older, again.changes) == (new, (), ())


def test_the_golden_files_use_every_older_field() -> None:
    everything = "".join(f"\n{path.read_text()}" for path in OLD)
    for step in STEPS.values():
        assert not [move.old for move in step.moves if f"\n{move.old}:" not in everything]


# --- its text


@pytest.mark.parametrize("old", OLD, ids=lambda path: path.name)
def test_no_comment_is_lost(old: Path) -> None:
    migration = migrate(old.read_bytes(), file=old.name)
    for line in old.read_text().splitlines():
        comment = line.partition("# ")[2]
        assert comment in migration.text or not migration.comments_kept
    assert migration.comments_kept or old.name == "flow.v1alpha1.yaml"


def test_windows_line_ends_and_the_byte_order_mark_stay() -> None:
    text = SMALL.replace("\n", "\r\n")
    new = migrate(b"\xef\xbb\xbf" + text.encode(), file="f.yaml").text
    assert new == "\ufeff" + moved(SMALL).replace("\n", "\r\n")


def test_values_that_go_over_several_lines_move_whole() -> None:
    text = (
        SMALL
        + 'state-dir: "/srv/\n  club"\n'
        + "libp2p-relays: [\n  # none\n  ]\nlog-level: >-\n  info\n# end"
    )
    new = moved(text)
    assert loads(new) == loads(text)
    assert 'state:\n  dir: "/srv/\n    club"\n' in new
    assert "  relays: [\n    # none\n    ]\n" in new
    assert new.endswith("log:\n  level: >-\n    info\n# end")


def test_an_indented_document_stays_indented() -> None:
    text = "".join(f"  {line}\n" for line in SMALL.splitlines())
    assert moved(text) == (
        "  apiVersion: appliance/v1\n  kind: Appliance\n  metadata:\n    name: box\n"
    )


def test_what_cannot_be_edited_is_written_anew() -> None:
    for text in ("{" + ", ".join(SMALL.split("\n")[:3]) + "}", SMALL.replace("name:", "? name\n:")):
        migration = migrate(text.encode(), file="f.yaml")
        assert migration.text == moved(SMALL)
        assert not migration.comments_kept


# --- what is wrong with it


WRONG = {
    "an unknown field": ("nam: x", ["f.yaml:4:1: nam: unknown field; did you mean 'name'?"]),
    "a current field": (
        "bridge: {}",
        ["f.yaml:4:1: bridge: is a field of appliance/v1, and this document says "
         "appliance/v1alpha1"],
    ),
    "a wrong value": (
        "libp2p-relay-mode: sometimes",
        ["f.yaml:4:20: libp2p-relay-mode: 'sometimes' is not one of auto, on, off"],
    ),
    "a wrong value in a list": (
        "libp2p-relays:\n  - nonsense",
        ["f.yaml:5:5: libp2p-relays[0]: 'nonsense' is not a multiaddr: it does not begin with '/'"],
    ),
    "a wrong value for a list": (
        "addpeer: nonsense",
        ["f.yaml:4:10: addpeer: 'nonsense' is not an IP address"],
    ),
    "a port that is none": (
        "libp2p-relay-port: 70000",
        ["f.yaml:4:20: libp2p-relay-port: '70000' is not a port (1 to 65535)"],
    ),
    "a written profile with a hole": (
        "profile: {cores: 4, architecture: aarch64, memory_bytes: 4294967296}",
        ["f.yaml:4:10: profile.link_bytes_per_second: is missing"],
    ),
    "two nodes": (
        "kaspad: 127.0.0.1:16111\nembedded: 127.0.0.1:0",
        ["f.yaml:5:1: embedded: says again what 'kaspad' says on line 4; keep one"],
    ),
    "two ports": (
        "libp2p-relay-port: 4001\nlisten: 0.0.0.0:4002",
        ["f.yaml:5:1: listen: says again what 'libp2p-relay-port' says on line 4; keep one"],
    ),
    "a field twice": ("name: y", ["f.yaml:4:1: name: is already given on line 3"]),
    "what cannot work together": (
        "libp2p-relay-mode: on\nlisten: 127.0.0.1:4001",
        ["f.yaml:4:20: libp2p-relay-mode: 'on' is impossible while listen is loopback only "
         "(127.0.0.1:4001); libp2p-dial-private allows it for a laboratory"],
    ),
    "sockets that collide": (
        "kaspad: 127.0.0.1:4001\nmetrics: 127.0.0.1:4001",
        ["f.yaml:5:10: metrics: metrics on 127.0.0.1:4001 (metrics) and the node on "
         "127.0.0.1:4001 (kaspad) collide"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_faults_are_told_in_the_file_s_own_words(name: str) -> None:
    body, expected = WRONG[name]
    with pytest.raises(DeclarationErrors) as caught:
        loads(SMALL + body + "\n", file="f.yaml")
    assert caught.value.message.splitlines() == expected


def test_without_a_name_the_name_is_missing() -> None:
    with pytest.raises(DeclarationErrors) as caught:
        loads(SMALL.replace("name: box\n", ""), file="f.yaml")
    assert caught.value.message == "f.yaml:1:1: name: is missing"


def test_versions_that_we_do_not_know_are_told_apart_from_words() -> None:
    for version, why in {
        "appliance/v2": "is not known here; this program reads appliance/v1 and the older "
        "appliance/v1alpha1",
        "appliance/v1beta3": "is not known here; this program reads appliance/v1 and the older "
        "appliance/v1alpha1",
        "applience/v1": "is not appliance/v1",
    }.items():
        with pytest.raises(DeclarationErrors) as caught:
            loads(HEAD.replace("appliance/v1", version), file="f.yaml")
        assert caught.value.message == f"f.yaml:1:13: apiVersion: {version!r} {why}"


def test_a_kind_that_came_later_is_no_older_document() -> None:
    text = (
        "apiVersion: appliance/v1alpha1\nkind: HardwareProfile\nmetadata: {name: shed}\n"
        "architecture: riscv64\ncores: 2\nmemory_bytes: 1073741824\n"
        "link_bytes_per_second: 1000000\n---\n"
    )
    with pytest.raises(DeclarationErrors) as caught:
        loads(text + HEAD, file="f.yaml")
    assert caught.value.message == (
        "f.yaml:2:7: HardwareProfile/shed.kind: there is no HardwareProfile in "
        "appliance/v1alpha1; write 'apiVersion: appliance/v1'"
    )


# --- the verb


def test_the_file_is_rewritten_and_the_old_text_kept(
    old_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old_file.chmod(0o640)
    owner = (1, 2) if os.geteuid() == 0 else (os.getuid(), os.getgid())
    os.chown(old_file, *owner)
    before = old_file.read_bytes()
    assert main(["migrate", str(old_file)]) == 0
    assert old_file.read_text() == (VERSIONS / "home-pi.v1.yaml").read_text()
    backup = old_file.with_name("home-pi.yaml.v1alpha1")
    assert backup.read_bytes() == before
    for path in (old_file, backup):
        found = path.stat()
        assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o640, *owner)
    assert {path.name for path in old_file.parent.iterdir()} == {old_file.name, backup.name}
    shown = capsys.readouterr()
    first, *changes = shown.out.splitlines()
    assert first == f"{old_file}: is appliance/v1 now; {backup} keeps the old text"
    assert [line.split() for line in changes] == [
        ["line", "2", "appliance/v1alpha1", "appliance/v1"],
        ["line", "5", "name", "metadata.name"],
        ["line", "6", "profile", "hardware.profile"],
        ["line", "8", "kaspad", "node.kind,", "node.p2p"],
        ["line", "10", "libp2p-relay-mode", "bridge.relay_mode"],
        ["line", "11", "libp2p-relays", "bridge.relays"],
        ["line", "13", "libp2p-peers", "bridge.peers"],
        ["line", "15", "log-level", "log.level"],
    ]
    assert not shown.err


def test_through_a_link_the_file_itself_is_rewritten(old_file: Path) -> None:
    link = old_file.parent / "link.yaml"
    link.symlink_to(old_file.name)
    assert main(["migrate", str(link)]) == 0
    assert link.is_symlink()
    assert loaded(old_file).older is None
    assert old_file.with_name("home-pi.yaml.v1alpha1").is_file()


def test_a_second_time_there_is_nothing_to_do(
    old_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["migrate", str(old_file)]) == 0
    before = {path: path.stat().st_mtime_ns for path in old_file.parent.iterdir()}
    capsys.readouterr()
    assert main(["migrate", str(old_file)]) == 0
    assert capsys.readouterr().out == (
        f"{old_file}: is appliance/v1 already; nothing was written\n"
    )
    assert {path: path.stat().st_mtime_ns for path in old_file.parent.iterdir()} == before


def test_stdout_touches_nothing(old_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = old_file.read_bytes()
    assert main(["migrate", "--stdout", str(old_file)]) == 0
    assert capsys.readouterr().out == (VERSIONS / "home-pi.v1.yaml").read_text()
    assert [path.read_bytes() for path in old_file.parent.iterdir()] == [before]


def test_a_wrong_file_is_not_migrated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "f.yaml"
    path.write_text(SMALL + "log-level: loud\nmetrics: here\n")
    assert main(["migrate", str(path)]) == 1
    assert [line.split(": ")[1] for line in capsys.readouterr().err.splitlines()] == [
        "log-level",
        "metrics",
    ]
    assert [found.name for found in tmp_path.iterdir()] == ["f.yaml"]


def assert_refused(
    path: Path, sentence: str, capsys: pytest.CaptureFixture[str], names: set[str]
) -> None:
    before = path.read_bytes()
    assert main(["migrate", str(path)]) == 1
    assert sentence in capsys.readouterr().err
    assert path.read_bytes() == before
    assert {found.name for found in path.parent.iterdir()} == names


def test_a_backup_is_never_overwritten(old_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    backup = old_file.with_name("home-pi.yaml.v1alpha1")
    backup.write_text("mine")
    sentence = f"{backup}: is there already, and holds something else"
    assert_refused(old_file, sentence, capsys, {old_file.name, backup.name})
    assert backup.read_text() == "mine"


def test_after_a_crash_between_backup_and_rename_it_goes_on(old_file: Path) -> None:
    backup = old_file.with_name("home-pi.yaml.v1alpha1")
    backup.hardlink_to(old_file)
    before = old_file.read_bytes()
    assert main(["migrate", str(old_file)]) == 0
    assert backup.read_bytes() == before != old_file.read_bytes()


def test_a_file_that_changed_meanwhile_is_left_alone(old_file: Path) -> None:
    with pytest.raises(ApplianceError, match="somebody changed it just now"):
        replace(old_file, b"what I read", b"new", old_file.with_name("backup"))
    assert [path.name for path in old_file.parent.iterdir()] == [old_file.name]


def test_in_a_directory_that_cannot_be_written_nothing_happens(tmp_path: Path) -> None:
    """Root may write anywhere: it becomes another user, once all modules are loaded."""
    path = tmp_path / "f.yaml"
    path.write_text(SMALL)
    path.chmod(0o644)
    tmp_path.chmod(0o555)
    code = (
        "import os, sys; from appliance.cli.main import main\n"
        "main(['migrate', '--stdout', 'f.yaml'])\n"
        "if os.geteuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "sys.exit(main(['migrate', 'f.yaml']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.returncode == 1
    assert "f.yaml: cannot be rewritten: permission denied" in done.stderr
    assert path.read_text() == SMALL
    assert [found.name for found in tmp_path.iterdir()] == ["f.yaml"]


@pytest.mark.parametrize("verb", ["validate", "plan"])
def test_an_old_file_works_and_one_line_says_how_to_renew_it(
    verb: str, old_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([verb, str(old_file)]) == 0
    shown = capsys.readouterr()
    assert shown.out
    assert shown.err == (
        f"{old_file}: warning: appliance/v1alpha1 is older than appliance/v1; "
        f"`appliance migrate {old_file}` rewrites it\n"
    )
