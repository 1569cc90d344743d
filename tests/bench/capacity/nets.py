"""A network of our own: every port is free in it, and the node's machine is not ours."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Final

from appliance.errors import ApplianceError
from appliance.lab.kernel import CLONE_NEWNET, CLONE_NEWUSER, may_make_namespaces, unshare

LAN: Final = "10.64.0.1"
"""Where the daemon's slots listen, and its remote node: a declaration refuses loopback there."""


def enter() -> None:
    """Put this process, which must have one thread, into a network with loopback and `LAN`.

    As root or in a user namespace. Raises ApplianceError if the system grants neither.
    """
    user, group = os.getuid(), os.getgid()
    own_user = not may_make_namespaces()
    try:
        unshare(CLONE_NEWNET | (CLONE_NEWUSER if own_user else 0))
        if own_user:
            # user_namespaces(7): groups can be mapped only by who cannot change them.
            for name, line in (
                ("uid_map", f"0 {user} 1"),
                ("setgroups", "deny"),
                ("gid_map", f"0 {group} 1"),
            ):
                Path(f"/proc/self/{name}").write_text(line, encoding="ascii")
    except OSError as error:
        raise ApplianceError(
            f"no network namespace for the load: {error.strerror or error}",
            hint="run it as root; inside a container, one that may unshare (--privileged)",
        ) from error
    for words in ("link set lo up", f"address add {LAN}/32 dev lo"):
        subprocess.run(["ip", *words.split()], check=True)
