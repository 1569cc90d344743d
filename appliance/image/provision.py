"""The roles, applied to a root file system: the same playbook that sets up a server."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from appliance.errors import ApplianceError
from appliance.image import native
from appliance.image.bootstrap import resolver
from appliance.image.chamber import beside
from appliance.image.native import Native
from appliance.image.steps import Steps
from appliance.image.targets import Target

PLAYBOOK: Final = "playbooks/site.yaml"
_POLICY: Final = "usr/sbin/policy-rc.d"


def playbook_program() -> str:
    """ansible-playbook beside this Python, else on the PATH. Raises ApplianceError."""
    beside_us = Path(sys.executable).with_name("ansible-playbook")
    found = str(beside_us) if beside_us.is_file() else shutil.which("ansible-playbook")
    if found is None:
        raise ApplianceError(
            "ansible-playbook is needed and not installed", hint="make venv in the checkout"
        )
    return found


@dataclass(frozen=True, slots=True)
class Ground:
    """What is provisioned, and what helps."""

    project: Path
    root: Path
    target: Target
    native: Native | None
    """For a foreign root: its Python runs Ansible's modules."""
    work: Path
    """A directory for what the playbook needs meanwhile."""


def provision(steps: Steps, ground: Ground, variables: Mapping[str, Any], epoch: int) -> None:
    """Run the playbook on the root over a chroot; nothing in it is started.

    Raises ApplianceError when a task fails; the root is then in an unknown state.
    """
    project, root, work = ground.project, ground.root, ground.work
    facts = work / "variables.json"
    told = {"appliance_image": True, "ansible_python_interpreter": "/usr/bin/python3"}
    binds = resolver(root)
    helper = ground.native
    if helper is not None:
        told["ansible_python_interpreter"] = native.PYTHON
        told["appliance_python_launcher"] = native.LAUNCHER
        launcher = work / "python-as"
        launcher.write_text(helper.launcher(), encoding="utf-8")
        launcher.chmod(0o755)
        binds |= {launcher: native.LAUNCHER, helper.tools: native.PLACE}
    facts.write_text(json.dumps({**variables, **told}), encoding="utf-8")
    command: list[str | Path] = [
        playbook_program(),
        *("--inventory", f"{root},", "--connection", "community.general.chroot"),
        *("--extra-vars", f"@{facts}"),
        project / PLAYBOOK,
    ]
    env = {
        "ANSIBLE_HOME": str(work / "ansible"),
        "ANSIBLE_LOCAL_TEMP": str(work / "ansible/tmp"),
        "ANSIBLE_REMOTE_TMP": "/tmp/ansible",  # noqa: S108  # a tmpfs of the root's own
        "ANSIBLE_ROLES_PATH": str(project / "roles"),
        "ANSIBLE_PIPELINING": "1",
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_DISPLAY_SKIPPED_HOSTS": "0",
        "INITRD": "No",  # the initrd is made once, after this
        "LC_ALL": "C.UTF-8",
        "PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin",
        # What notes the day it was done, notes the sources' (useradd, for one).
        "SOURCE_DATE_EPOCH": str(epoch),
    }
    policy = root / _POLICY
    policy.write_text("#!/bin/sh\nexit 101\n", encoding="utf-8")
    policy.chmod(0o755)
    try:
        with helper.lent(root) if helper is not None else nullcontext():
            steps.run(beside(root, command, binds=binds), env=env, cwd=project)
    finally:
        policy.unlink()
