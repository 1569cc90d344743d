"""Which versions the peers are, read from where they are pinned."""

from __future__ import annotations

import json
import re
import subprocess
from importlib.metadata import version

from tests.interop.peers import HERE, ROOT


def tool(*command: str) -> str:
    """What a tool says of its version, or nothing where it is missing."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, cwd=ROOT, timeout=20
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def pinned(file: str, pattern: str) -> str:
    found = re.search(pattern, (HERE / file).read_text())
    assert found is not None, f"{file} pins no {pattern}"
    return found[1]


def crate(name: str) -> str:
    return pinned("rust/Cargo.lock.in", rf'name = "{name}"\nversion = "([^"]+)"')


def versions() -> dict[str, str]:
    commit = tool("git", "rev-parse", "--short", "HEAD")
    changed = " with changes" if tool("git", "status", "--porcelain", "appliance") else ""
    locked = json.loads((HERE / "js" / "package-lock.json").read_text())["packages"]
    js = ", ".join(
        f"{name} {locked[f'node_modules/{name}']['version']}"
        for name in ("libp2p", "@libp2p/yamux", "@libp2p/noise", "@libp2p/circuit-relay-v2")
    )
    rust = ", ".join(
        f"{name} {crate(name)}" for name in ("libp2p", "libp2p-relay", "yamux", "tokio")
    )
    go = pinned("go/go.mod", r"github.com/libp2p/go-libp2p (v\S+)")
    yamux = pinned("go/go.mod", r"github.com/libp2p/go-yamux/v5 (v\S+)")
    return {
        "ours": f"commit {commit}{changed}",
        "go": f"go-libp2p {go}, go-yamux {yamux}; {tool('go', 'version')}",
        "rust": f"{rust}; {tool('rustc', '--version')}; release build, tokio on every core",
        "js": f"{js}; Node.js {tool('node', '--version')}",
        "py": f"libp2p {version('libp2p')}, trio {version('trio')}, as released",
    }
