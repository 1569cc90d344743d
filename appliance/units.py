"""Units, spelled once. A plain number is bytes or seconds unless its name says otherwise."""

from __future__ import annotations

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

MINUTE = 60.0
HOUR = 60 * MINUTE


def human_bytes(count: int) -> str:
    """`1536` → `1.5 KiB`; exact below one KiB."""
    if count < KIB:
        return f"{count} B"
    value = float(count)
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        value /= KIB
        if value < KIB or unit == "TiB":
            break
    return f"{value:.1f} {unit}".replace(".0 ", " ")


def human_seconds(seconds: float) -> str:
    """`3725` → `1 h 2 min`; whole seconds below a minute."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
