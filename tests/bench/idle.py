"""What an idle appliance costs: memory, and CPU over 30 seconds.

    .venv/bin/python -m tests.bench.idle [FILE]

Starts `appliance run` with a copy of a declaration (by default the minimal example) whose state
lies in a temporary directory, lets it settle, and prints resident memory in MB (1,000,000 bytes)
and the processor time of 30 idle seconds, then how long it took to stop after SIGINT.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from tests.bench.machine import cpu, memory

SETTLE = 10.0
WATCH = 30.0
MINIMAL = Path(__file__).resolve().parents[2] / "schemas/examples/minimal.yaml"


def main(file: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        declaration = yaml.safe_load(file.read_text())
        declaration["state"] = {"dir": f"{scratch}/state"}
        copy = Path(scratch) / "idle.yaml"
        copy.write_text(yaml.safe_dump(declaration))
        daemon = subprocess.Popen(
            [sys.executable, "-m", "appliance", "run", str(copy)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert daemon.stdout is not None
        try:
            for line in daemon.stdout:
                if line.startswith("Ctrl-C"):
                    break
            time.sleep(SETTLE)
            before = cpu(daemon.pid)
            time.sleep(WATCH)
            print(f"memory   {memory(daemon.pid).rss / 1e6:.0f} MB resident")
            print(f"CPU      {cpu(daemon.pid) - before:.2f} s in {WATCH:.0f} s")
        finally:
            asked = time.monotonic()
            daemon.send_signal(signal.SIGINT)
            code = daemon.wait(10)
        print(f"stop     {time.monotonic() - asked:.2f} s, exit code {code}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else MINIMAL)
