"""A network of our own for a guest: a tap in a namespace that ends with its process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Final

from appliance.errors import ApplianceError
from appliance.image.programs import find
from appliance.image.qemu import Wire

GUEST: Final = "10.0.2.15"
"""The one address that our DHCP server leases."""
_OURS: Final = "10.0.2.100/24"
TAP: Final = "tap0"

WIRE: Final = Wire(TAP)


def alone(module: str, *arguments: str) -> list[str]:
    """The command that runs a module of ours where nothing else is: no network, no processes.

    All that it starts ends with it, and it ends with us. Raises ApplianceError.
    """
    # Without root a user namespace gives the rights over a network that nobody else sees.
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    kinds = ["--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    dying = [find("setpriv"), "--pdeathsig", "KILL", find("unshare")]
    return [*dying, *user, *kinds, "--", sys.executable, "-m", module, *arguments]


def make_tap() -> None:
    """In the namespace of `alone`, with a DHCP server that ends with it. Raises ApplianceError."""
    server = find("dnsmasq")
    rows = (
        "link set lo up",
        f"tuntap add dev {TAP} mode tap",
        f"address add {_OURS} dev {TAP}",
        f"link set {TAP} up",
    )
    run_ip(rows)
    # QEMU's own user network would answer for the guest: it looks at no MAC address. The lease's
    # router and name server are we, where nobody answers: the guest has a network and no Internet.
    subprocess.Popen(
        [
            *(server, "--keep-in-foreground", "--conf-file=/dev/null", "--user=", "--port=0"),
            *(f"--interface={TAP}", "--bind-interfaces", "--leasefile-ro", "--pid-file="),
            *(f"--dhcp-range={GUEST},{GUEST},12h", "--dhcp-authoritative", "--log-facility=-"),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def run_ip(rows: Sequence[str], *, inside: Sequence[str] = ()) -> None:
    """Commands for `ip`, one a row. Raises ApplianceError."""
    words = [*inside, find("ip"), "-batch", "-"]
    done = subprocess.run(
        words, input="\n".join(rows) + "\n", capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or ["no message"])[0]
        raise ApplianceError(
            f"no network for the guest: {said}", hint="run it as root, where /dev/net/tun is"
        )
