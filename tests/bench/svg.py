"""Bar charts as small SVG files that follow the reader's light or dark scheme."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from math import inf
from typing import Final

WIDTH: Final = 720
LABEL: Final = 110
"""Width left of the bars; the values stand behind them."""
VALUES: Final = 130
BAR: Final = 16
GAP: Final = 4
HEAD: Final = 44
"""Room for the title; each group has a heading of its own."""

COLOURS: Final = {
    "ours": ("#c2410c", "#fb923c"), "go": ("#0e7490", "#22d3ee"), "rust": ("#6d28d9", "#a78bfa"),
    "js": ("#a16207", "#facc15"), "py": ("#1d4ed8", "#60a5fa"), "bound": ("#6b7280", "#9ca3af"),
}  # fmt: skip
"""Light and dark colour of each kind."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One value with its range; None is drawn as a word instead of a bar."""

    kind: str
    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Group:
    title: str
    bars: list[Bar]


def number(value: float) -> str:
    """Three digits that mean something."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def style() -> str:
    light = "".join(f".{kind}{{fill:{pair[0]}}}" for kind, pair in COLOURS.items())
    dark = "".join(f".{kind}{{fill:{pair[1]}}}" for kind, pair in COLOURS.items())
    return (
        "text{font:12px system-ui,sans-serif;fill:#1f2328}"
        ".title{font-size:15px;font-weight:600}.group{font-weight:600}.dim{fill:#59636e}"
        f"line{{stroke:#1f2328;stroke-width:2}}{light}"
        "@media (prefers-color-scheme:dark){"
        "text{fill:#e6edf3}.dim{fill:#9198a1}line{stroke:#e6edf3}"
        f"{dark}}}"
    )


def chart(title: str, unit: str, groups: list[Group], *, limit: float = inf) -> str:
    """Horizontal bars, one a line; a thin line shows the range from the lowest to the highest.

    A bar beyond `limit` is cut there and marked, so that it does not hide the others.
    """
    known = [bar for group in groups for bar in group.bars if bar.value is not None]
    highest = max((bar.high or bar.value or 0.0 for bar in known), default=0.0) or 1.0
    highest = min(highest, limit)
    scale = (WIDTH - LABEL - VALUES) / highest
    parts: list[str] = []
    y = HEAD
    for group in groups:
        parts.append(f'<text class="group" x="8" y="{y + 12}">{escape(group.title)}</text>')
        y += BAR + GAP
        for bar in group.bars:
            parts += draw(bar, y, scale, highest)
            y += BAR + GAP
        y += GAP
    height = y + GAP
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}"'
        f' width="{WIDTH}" height="{height}" role="img" aria-label="{escape(title)}">'
        f"<style>{style()}</style>"
        f'<text class="title" x="8" y="22">{escape(title)}</text>'
        f'<text class="dim" x="{WIDTH - 8}" y="22" text-anchor="end">{escape(unit)}</text>'
        + "".join(parts)
        + "</svg>\n"
    )


def draw(bar: Bar, y: int, scale: float, highest: float) -> list[str]:
    label = f'<text x="{LABEL - 8}" y="{y + 12}" text-anchor="end">{escape(bar.kind)}</text>'
    if bar.value is None:
        return [label, f'<text class="dim" x="{LABEL}" y="{y + 12}">failed</text>']
    colour = bar.kind if bar.kind in COLOURS else "bound"
    length = max(0.0, min(bar.value, highest)) * scale
    low = min(bar.value if bar.low is None else bar.low, highest)
    high = min(bar.value if bar.high is None else bar.high, highest)
    cut = "→ " if bar.value > highest else ""
    middle, end = y + BAR / 2, LABEL + max(length, high * scale)
    return [
        label,
        f'<rect class="{colour}" x="{LABEL}" y="{y}" width="{length:.1f}" height="{BAR}" rx="2"/>',
        f'<line x1="{LABEL + low * scale:.1f}" x2="{LABEL + high * scale:.1f}" y1="{middle}"'
        f' y2="{middle}"/>',
        f'<text x="{end + 6:.1f}" y="{y + 12}">{cut}{number(bar.value)}</text>',
    ]
