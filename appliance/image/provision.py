"""The roles, applied to a root file system: the same playbook that sets up a server."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from appliance.errors import ApplianceError
from appliance.image.bootstrap import resolver
from appliance.image.chamber import beside
from appliance.image.steps import Steps

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


def provision(
    steps: Steps, project: Path, root: Path, work: Path, variables: Mapping[str, Any], epoch: int
) -> None:
    """Run the playbook on `root` over a chroot; nothing in it is started.

    Raises ApplianceError when a task fails; the root is then in an unknown state.
    """
    facts = work / "variables.json"
    facts.write_text(json.dumps({**variables, "appliance_image": True}), encoding="utf-8")
    command: list[str | Path] = [
        playbook_program(),
        *("--inventory", f"{root},", "--connection", "community.general.chroot"),
        *(
            "--extra-vars",
            f"@{facts}",
            "--extra-vars",
            "ansible_python_interpreter=/usr/bin/python3",
        ),
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
        steps.run(beside(root, command, binds=resolver(root)), env=env, cwd=project)
    finally:
        policy.unlink()
