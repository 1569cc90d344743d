"""A root as an image has it: Debian 13 provisioned by the project's own roles, kept in the cache.

python -m tests.machine.image_root      makes it if need be, and prints where it is
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import yaml

from appliance.errors import ApplianceError
from tests.roles.root import PROJECT, ROOTS, base_root

ROLES: Final = ("base", "appliance", "firewall")
"""Those whose files a boot reads. Hardening changes nothing in what happens here."""

# A root that is no machine: devices and processes are the host's, /run is thrown away.
_ENTER: Final = """
set -eu
root=$1; shift
mount -t proc proc "$root/proc"
mount --bind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/run"
rm -f "$root/etc/resolv.conf"
cp /etc/resolv.conf "$root/etc/resolv.conf"  # an aged package list is renewed
exec "$@"
"""


def image_root() -> Path:
    """The root; made when absent or when a role has changed. Takes minutes then.

    Raises ApplianceError when it cannot be made.
    """
    base = base_root().resolve()
    recipe = hashlib.sha256(base.name.encode())
    for role in ROLES:
        for path in sorted((PROJECT / "roles" / role).rglob("*")):
            if path.is_file() and "molecule" not in path.parts:
                recipe.update(path.read_bytes())
    recipe.update((PROJECT / "requirements.lock").read_bytes())
    root = ROOTS / f"machine-{recipe.hexdigest()[:12]}"
    with (ROOTS / "machine.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.is_dir():
            for old in ROOTS.glob("machine-*"):
                shutil.rmtree(old)
            _make(base, root)
    return root


def _make(base: Path, root: Path) -> None:
    print("==> provisioning an image's root, allow five minutes", file=sys.stderr, flush=True)
    fresh = root.with_name("machine-unfinished")
    shutil.rmtree(fresh, ignore_errors=True)
    subprocess.run(["cp", "--archive", base, fresh], check=True)
    playbook = ROOTS / "machine.yaml"
    playbook.write_text(yaml.safe_dump([_play()]))
    program = Path(sys.executable).with_name("ansible-playbook")
    done = subprocess.run(
        [
            *("unshare", "--mount", "sh", "-c", _ENTER, "enter", str(fresh)),
            *(str(program), "--inventory", f"{fresh},"),
            *("--connection", "community.general.chroot", str(playbook)),
        ],
        cwd=PROJECT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ApplianceError(f"the roles failed:\n{done.stdout[-3000:]}{done.stderr[-1000:]}")
    fresh.rename(root)


def _play() -> dict[str, object]:
    return {
        "hosts": "all",
        "gather_facts": False,
        "vars": {"appliance_image": True, "appliance_plan": None},
        "tasks": [{"ansible.builtin.include_role": {"name": role}} for role in ROLES],
    }


if __name__ == "__main__":
    print(image_root())
