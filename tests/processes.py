"""Processes that a test started, as /proc shows them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def comm(pid: int) -> str:
    """The name of a process's program; empty once it is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def descendants(pid: int) -> Iterator[int]:
    """Its children, and theirs."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return
    for child in map(int, children):
        yield child
        yield from descendants(child)
