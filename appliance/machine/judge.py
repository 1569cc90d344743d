"""A declaration judged for this machine, by the daemon's own user.

A child process does it: what a stranger's memory card holds is parsed and planned without root's
rights, and what the daemon may do (ports, files) is asked as the daemon.
"""

from __future__ import annotations

import contextlib
import grp
import json
import os
import pwd
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from appliance.errors import ApplianceError
from appliance.machine.places import DAEMON, OPERATORS, Places

DEADLINE: Final = 180.0
"""Seconds. A Raspberry Pi Zero 2 takes a few; one that takes minutes is stuck."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """`faults` are lines with their places; `plan` is the document of `plan --json`, if any."""

    faults: tuple[str, ...]
    plan: dict[str, Any] | None


def judge(file: Path, places: Places) -> Judgement:
    """Raises ApplianceError if no judgement came."""
    command = [sys.executable, "-m", "appliance", "machine", "check", file.name]
    try:
        done = subprocess.run(
            command,
            cwd=file.parent,
            env=_environment(places),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=DEADLINE,
            **_as_the_daemon(places),
        )
        document = json.loads(done.stdout)
        return Judgement(tuple(map(str, document["faults"])), document["plan"])
    except (OSError, subprocess.SubprocessError) as error:
        raise ApplianceError(f"the declaration could not be judged: {error}") from None
    except (ValueError, LookupError, TypeError):
        said = " ".join(done.stderr.split()[-60:]) or f"the judge left with {done.returncode}"
        raise ApplianceError(f"the declaration could not be judged: {said}") from None


def environment(places: Places) -> dict[str, str]:
    """What the daemon's unit gives it, as far as a declaration's defaults depend on it."""
    given = {
        "STATE_DIRECTORY": str(places.daemon_state),
        "RUNTIME_DIRECTORY": str(places.daemon_runtime),
        "HOME": str(places.daemon_state),
    }
    return given | ({"APPLIANCE_CONTROL_GROUP": OPERATORS} if places.live else {})


def _environment(places: Places) -> dict[str, str]:
    kept = ("PATH", "LANG", "PYTHONPATH", "VIRTUAL_ENV")
    given = {name: os.environ[name] for name in kept if name in os.environ}
    return given | environment(places)


def _as_the_daemon(places: Places) -> dict[str, Any]:
    """Its directories stand, too, as its unit makes them at the start, which may be to come."""
    user: int | None = None
    try:
        if places.live and os.geteuid() == 0:
            user, group = pwd.getpwnam(DAEMON).pw_uid, grp.getgrnam(OPERATORS).gr_gid
    except KeyError:
        user = None
    for path, mode in ((places.daemon_state, 0o700), (places.daemon_runtime, 0o755)):
        # Where they cannot be made, the judge says what that means.
        with contextlib.suppress(OSError):
            path.mkdir(mode=mode, parents=True)
            if user is not None:
                os.chown(path, user, group)
    if user is None:
        return {}
    groups = os.getgrouplist(DAEMON, group)
    return {"user": user, "group": group, "extra_groups": groups, "umask": 0o077}
