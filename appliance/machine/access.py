"""Who may log in, and by which key the machine is known: SSH's files."""

from __future__ import annotations

import base64
import binascii
import contextlib
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from appliance.declaration.publickeys import PublicKey, fingerprint
from appliance.errors import ApplianceError
from appliance.machine import files, programs
from appliance.machine.places import LOGIN, Places
from appliance.machine.report import Report
from appliance.machine.setup import MAX_KEYS, Setup

HOST_KEY: Final = "ssh_host_ed25519_key"
"""The only one: every client of the last ten years knows Ed25519, and it is made at once."""

MOST: Final = 64
"""Keys that are read of the file."""


def host_key(places: Places, report: Report) -> None:
    """A host key stands in `run`: the kept one, made at the first boot. Where nothing can be kept,
    one for this boot only: better a machine with a strange key than one that nobody can reach."""
    kept = places.state / "ssh" / HOST_KEY
    with report.step("SSH host key"):
        if not _is_whole(kept):
            if kept.exists():
                report.note("the SSH host key was damaged and is a new one; ssh will warn of it")
            try:
                _make(kept)
            except OSError as error:
                kept = places.run / "ssh" / f"{HOST_KEY}.volatile"
                report.fault(
                    f"the SSH host key cannot be kept: {files.why(error)}; until that is mended, "
                    "each boot has another one"
                )
                if not _is_whole(kept):
                    _make(kept)
        for suffix in ("", ".pub"):
            link = places.run / "ssh" / f"{HOST_KEY}{suffix}"
            link.parent.mkdir(parents=True, exist_ok=True)
            target = kept.with_name(kept.name + suffix)
            if not (link.is_symlink() and link.readlink() == target):
                link.unlink(missing_ok=True)
                link.symlink_to(target)


def host_fingerprint(places: Places) -> str | None:
    """As `ssh` shows it at the first contact; None if there is no key."""
    try:
        words = (places.run / "ssh" / f"{HOST_KEY}.pub").read_text().split()
        return fingerprint(base64.b64decode(words[1], validate=True))
    except (OSError, IndexError, ValueError, binascii.Error):
        return None


def file_keys(places: Places, setup: Setup, report: Report) -> list[PublicKey]:
    """The keys of the file authorized_keys: of the setup partition, or as they were last there.

    A line that is wrong is a fault; the others count all the same.
    """
    kept = places.state / "authorized_keys.file"
    if setup.keys is None:
        data = b""
        with report.step("kept SSH keys"):
            data = files.read(kept, MAX_KEYS) or b""
        return _parse("authorized_keys", data, Report())
    with report.step("the SSH keys cannot be kept"):
        files.write(kept, setup.keys.data, mode=0o600, durable=True)
    return _parse(setup.keys.name, setup.keys.data, report)


def authorize(places: Places, keys: Iterable[PublicKey], report: Report) -> int:
    """`keys` and no others log in from now on; how many they are."""
    lines = list(dict.fromkeys(str(key) for key in keys))
    data = "".join(f"{line}\n" for line in lines).encode()
    with report.step("SSH keys"):
        files.write(places.run / "authorized_keys" / LOGIN, data)
    with report.step("the SSH keys cannot be kept"):
        files.write(places.state / "authorized_keys" / LOGIN, data, durable=True)
    return len(lines)


def _parse(name: str, data: bytes, report: Report) -> list[PublicKey]:
    found: list[PublicKey] = []
    for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        if len(found) == MOST:
            report.fault(f"{name}:{number}: more than {MOST} keys; the rest is not read")
            break
        try:
            found.append(PublicKey.parse(text))
        except ValueError as error:
            report.fault(f"{name}:{number}: {error}")
            if "private key" in str(error):
                break  # its other lines are no news
    return found


def _is_whole(key: Path) -> bool:
    """A power cut may leave a file empty."""
    try:
        done = programs.run(["ssh-keygen", "-y", "-P", "", "-f", str(key)])
    except ApplianceError:
        return False
    return done.returncode == 0 and key.with_name(f"{key.name}.pub").is_file()


def _make(path: Path) -> None:
    """Raises OSError where it cannot be written, ApplianceError where ssh-keygen fails."""
    # In memory first: ssh-keygen's own words for a full disk say less.
    with tempfile.TemporaryDirectory(prefix="appliance-") as directory:
        fresh = Path(directory) / HOST_KEY
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(fresh)]
        done = programs.run(command)
        if done.returncode:
            raise ApplianceError(f"ssh-keygen failed: {' '.join(done.stderr.split())}")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            # The private half last: with it, the key counts as made.
            files.write(path.with_name(f"{path.name}.pub"), fresh.with_suffix(".pub").read_bytes())
            files.write(path, fresh.read_bytes(), mode=0o600, durable=True)
        except OSError:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
            raise
