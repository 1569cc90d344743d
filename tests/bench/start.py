"""What the imports of the appliance cost: time, memory, modules.

    .venv/bin/python -m tests.bench.start

Each row is measured in fresh interpreters with compiled code at hand: the median of five, in MB of
1,000,000 bytes. The last two rows are what libp2p adds where the rest of the appliance's libraries
are there already.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from typing import Final

RUNS: Final = 5
REST: Final = """
import base58, h2.connection, h11, multiaddr, noise.connection, prometheus_client, psutil, yaml
import appliance.dataplane.session, appliance.addresses.store, appliance.declaration
import cryptography.hazmat.primitives.asymmetric.ed25519, google.protobuf.internal.builder
"""
OUR_PIECES: Final = (
    "import appliance.bridge.envelope, appliance.bridge.identify, appliance.bridge.secure"
)
ROWS: Final = {
    "import appliance.app": ("", "import appliance.app"),
    "the same with all of libp2p": ("", "import libp2p, appliance.app"),
    "libp2p's pieces on top of the rest": (REST, OUR_PIECES),
    "all of libp2p on top of the rest": (REST, f"import libp2p\n{OUR_PIECES}"),
}
MEASURE: Final = """
import os, sys, time
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
{before}
modules, memory, start = len(sys.modules), {base}, time.perf_counter()
{statement}
print(time.perf_counter() - start, resident() - memory, len(sys.modules) - modules)
"""


def measured(before: str, statement: str, compiled: str) -> list[float]:
    """Seconds, MB, modules; memory is the process's where nothing was imported before."""
    base = "resident()" if before else "0.0"
    code = MEASURE.format(before=before, statement=statement, base=base)
    command = [sys.executable, "-X", f"pycache_prefix={compiled}", "-c", code]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    runs = [
        subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True)
        for _ in range(RUNS)
    ]
    columns = zip(*(map(float, run.stdout.split()) for run in runs), strict=True)
    return [statistics.median(column) for column in columns]


def main() -> None:
    with tempfile.TemporaryDirectory() as compiled:
        for name, (before, statement) in ROWS.items():
            seconds, megabytes, modules = measured(before, statement, compiled)
            print(f"{name:36} {seconds:5.2f} s {megabytes:6.1f} MB {modules:6.0f} modules")


if __name__ == "__main__":
    main()
