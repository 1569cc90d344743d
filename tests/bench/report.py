"""From cells to the document: tables, plots, and the raw results that they are made from."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.bench.cells import Cell, Cells
from tests.bench.svg import Bar, Group, chart, number
from tests.interop.peers import ROOT

DOCS: Final = ROOT / "docs"
PLOTS: Final = "benchmarks"
LONG_MS: Final = 250.0
"""Bars of round trips end here."""
NAMES: Final = {
    "ours": "ours", "go": "go-libp2p", "rust": "rust-libp2p", "js": "js-libp2p",
    "py": "stock py-libp2p", "tcp": "raw TCP", "aead": "framed ChaCha20-Poly1305",
}  # fmt: skip


@dataclass(slots=True)
class Measured:
    """One section as it was run."""

    command: str
    when: str
    """The day, and the commit of ours."""
    cells: list[Cell]


@dataclass(slots=True)
class Results:
    """Everything that the document is made from."""

    machine: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    sections: dict[str, Measured] = field(default_factory=dict)

    @classmethod
    def load(cls, file: Path) -> Results:
        if not file.exists():
            return cls()
        raw = json.loads(file.read_text())
        sections = {
            name: Measured(item["command"], item["when"], [Cell(**cell) for cell in item["cells"]])
            for name, item in raw["sections"].items()
        }
        return cls(raw["machine"], raw["versions"], sections)

    def save(self, file: Path) -> None:
        """One cell a line, so that a new run is a readable change."""
        head = {"machine": self.machine, "versions": self.versions}
        lines = [json.dumps(head, indent=1)[:-2] + ',\n "sections": {']
        for place, (name, measured) in enumerate(self.sections.items()):
            comma = "," if place else ""
            item = {"command": measured.command, "when": measured.when}
            lines.append(f'{comma}\n  {json.dumps(name)}: {json.dumps(item)[:-1]}, "cells": [')
            rows = [json.dumps(rounded(asdict(cell))) for cell in measured.cells]
            lines.append("\n   " + ",\n   ".join(rows) + "\n  ]}")
        file.write_text("".join(lines) + "\n }\n}\n")


def rounded(value: Any) -> Any:
    """The same with floats of four digits: nothing here is more exact."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return value


# --- tables


def shown(cell: Cell | None, name: str, *, spread: bool = False) -> str:
    """The median, with lowest and highest where asked for."""
    if cell is None or (median := cell.median(name)) is None:
        return "–"
    values = cell.values(name)
    if spread and len(values) > 1:
        return f"{number(median)} ({number(min(values))}–{number(max(values))})"
    return number(median)


def table(head: list[str], rows: list[list[str]], *, numbers: bool = True) -> list[str]:
    """Numbers stand right: every column but the first."""
    rule = ["---", *["---:" if numbers else "---" for _ in head[1:]]]
    return ["| " + " | ".join(row) + " |" for row in (head, rule, *rows)]


def faults(cells: list[Cell]) -> list[str]:
    """What went wrong, in the peers' own words."""
    lines = []
    for cell in cells:
        for fault in dict.fromkeys(cell.faults):
            key = ", ".join(f"{name} {value}" for name, value in cell.key.items())
            times = cell.faults.count(fault)
            lines.append(f"- {key}: failed {times} times: `{fault[:300].replace('`', chr(39))}`")
    return ["", "What failed:", "", *lines] if lines else []


def disturbance(cells: list[Cell]) -> list[str]:
    """How much of the machine went to somebody else, where that was watched."""
    values = [value for cell in cells for value in cell.values("foreign")]
    if not values:
        return []
    middle, worst = statistics.median(values), max(values)
    return [
        f"Something else kept {middle:.2f} cores busy meanwhile (median; at most {worst:.2f}).",
        "",
    ]


def values_of(cells: list[Cell], name: str) -> list[Any]:
    return list(dict.fromkeys(cell.key[name] for cell in cells))


def bar(cell: Cell, kind: str, name: str) -> Bar:
    values = cell.values(name)
    if not values:
        return Bar(kind, None)
    return Bar(kind, cell.median(name), min(values), max(values))


def streams_title(count: int) -> str:
    return "1 stream" if count == 1 else f"{count} streams"


Plots = dict[str, str]


def bulk_rows(cells: list[Cell], who: str, costs: dict[str, str]) -> list[str]:
    head = ["", "streams", "MB/s", *costs.values(), "slowest share / fastest"]
    rows = [
        [
            NAMES[cell.key[who]],
            str(cell.key["streams"]),
            shown(cell, "mb_s", spread=True),
            *(shown(cell, name) for name in costs),
            shown(cell, "fairness"),
        ]
        for cell in cells
    ]
    return table(head, rows)


def plot(cells: list[Cell], who: str, name: str, title: str, unit: str) -> str:
    groups = [
        Group(
            streams_title(count),
            [bar(cell, cell.key[who], name) for cell in cells if cell.key["streams"] == count],
        )
        for count in values_of(cells, "streams")
    ]
    return chart(title, unit, groups)


def image(name: str, text: str) -> list[str]:
    return ["", f"![{text}]({PLOTS}/{name}.svg)", ""]


# --- sections: each returns its lines and puts its plots beside


def direct(cells: list[Cell], plots: Plots) -> list[str]:
    title = "Direct bulk, both ends of one kind"
    plots["direct"] = plot(cells, "kind", "mb_s", title, "MB/s")
    costs = {"send_ms_mb": "sender CPU ms/MB", "receive_ms_mb": "receiver CPU ms/MB"}
    return [*image("direct", title), *bulk_rows(cells, "kind", costs)]


def relayed(cells: list[Cell], plots: Plots) -> list[str]:
    lines: list[str] = []
    costs = {
        "relay_ms_mb": "relay CPU ms/MB",
        "send_ms_mb": "sender",
        "receive_ms_mb": "receiver",
    }
    for pair in values_of(cells, "pair"):
        mine = [cell for cell in cells if cell.key["pair"] == pair]
        mine.sort(key=lambda cell: int(cell.key["streams"]))
        title = f"Relayed bulk, {NAMES[pair]} ends"
        plots[f"relayed-{pair}"] = plot(mine, "relay", "mb_s", title, "MB/s")
        cost = f"{title}: CPU of the relay"
        plots[f"relay-cpu-{pair}"] = plot(mine, "relay", "relay_ms_mb", cost, "ms CPU per MB")
        lines += ["", f"### {NAMES[pair]} ends", *image(f"relayed-{pair}", title)]
        lines += [*image(f"relay-cpu-{pair}", cost), *bulk_rows(mine, "relay", costs)]
    return lines


def latency(cells: list[Cell], plots: Plots) -> list[str]:
    found = Cells("latency", cells)
    rows, groups = [], []
    names = ("standing_ms", "standing_p95_ms", "fresh_ms", "fresh_p95_ms")
    for path in values_of(cells, "path"):
        bars = []
        for kind in values_of(cells, "kind"):
            idle = found.find(kind=kind, path=path, load="idle")
            loaded = found.find(kind=kind, path=path, load="loaded")
            if idle is None and loaded is None:
                continue
            where = "direct" if path == "direct" else f"through {NAMES[path]}"
            row = [NAMES[kind], where, *(shown(idle, name) for name in names)]
            under_load = ("loaded_ms", "loaded_p95_ms", "messages")
            rows.append([*row, *(shown(loaded, name) for name in under_load)])
            if loaded is not None:
                bars.append(bar(loaded, kind, "loaded_p95_ms"))
        groups.append(Group("direct" if path == "direct" else f"relay: {path}", bars))
    title = "New stream and 64-byte echo beside 64 bulk streams, 95th percentile"
    plots["latency"] = chart(title, "ms", groups, limit=LONG_MS)
    head = ["ends", "path", "standing stream, median", "95 %", "new stream, median", "95 %"]
    head += ["under load, median", "95 %", "messages"]
    return [*image("latency", title), *table(head, rows)]


def cycles(cells: list[Cell], plots: Plots) -> list[str]:
    title = "Connect, echo, disconnect, one after the other"
    bars = [bar(cell, cell.key["kind"], "per_s") for cell in cells]
    plots["cycles"] = chart(title, "a second", [Group("both ends of one kind", bars)])
    head = ["", "a second", "median ms", "95 % ms", "dialler CPU ms", "listener CPU ms"]
    names = ("median_ms", "p95_ms", "dialler_ms", "listener_ms")
    rows = [
        [
            NAMES[cell.key["kind"]],
            shown(cell, "per_s", spread=True),
            *(shown(cell, name) for name in names),
        ]
        for cell in cells
    ]
    return [*image("cycles", title), *table(head, rows)]


def memory(cells: list[Cell], plots: Plots) -> list[str]:
    found = Cells("memory", cells)
    units = [unit for unit in values_of(cells, "unit") if unit != "set-up"]
    counts = sorted(set(values_of(cells, "count")) - {0})
    lines: list[str] = []
    groups = []
    for unit in units:
        rows, bars = [], []
        for kind in values_of(cells, "relay"):
            row = [found.find(relay=kind, unit=unit, count=count) for count in counts]
            there = [cell for cell in row if cell is not None]
            if not there:
                continue
            last = there[-1]
            bars.append(bar(last, kind, "bytes"))
            rows.append(
                [
                    NAMES[kind],
                    *(shown(cell, "bytes") for cell in row),
                    shown(last, "tasks"),
                    shown(last, "cpu_ms"),
                ]
            )
        groups.append(Group(f"one {unit}", bars))
        head = [f"one {unit}", *(f"bytes, of {count:,}" for count in counts)]
        lines += ["", *table([*head, "tasks", "CPU ms to make"], rows)]
    title = "Held by the relay for each, at the greatest number measured"
    plots["memory"] = chart(title, "bytes", groups)
    return [*image("memory", title), *lines]


def bounds(cells: list[Cell], plots: Plots) -> list[str]:
    head = ["", "MB/s", "sender CPU ms/MB", "receiver CPU ms/MB"]
    rows = [
        [
            NAMES[cell.key["bound"]],
            shown(cell, "mb_s", spread=True),
            shown(cell, "send_ms_mb"),
            shown(cell, "receive_ms_mb"),
        ]
        for cell in cells
    ]
    return table(head, rows)


@dataclass(frozen=True, slots=True)
class Section:
    title: str
    intro: str
    render: Callable[[list[Cell], Plots], list[str]]


SECTIONS: Final[dict[str, Section]] = {
    "relayed": Section(
        "Relayed bulk",
        "64 KiB writes into the streams of one relayed connection, hence one circuit. The relays"
        " of one pair of ends take turns, round by round; each figure is the median of the rounds"
        " with the lowest and the highest.",
        relayed,
    ),
    "direct": Section(
        "Direct bulk",
        "64 KiB writes into the streams of one connection; the kinds take turns.",
        direct,
    ),
    "bounds": Section(
        "The bounds",
        "Two Python processes, blocking sockets, one thread each: what the machine and the"
        " cipher leave to be lost.",
        bounds,
    ),
    "latency": Section(
        "Small messages",
        "64 bytes there and back, in ms. Under load the same connection carries 64 bulk streams"
        " in the direction of the request, and each message has a new stream.",
        latency,
    ),
    "cycles": Section(
        "Connections",
        "Connect, one 64-byte echo on a new stream, disconnect.",
        cycles,
    ),
    "memory": Section(
        "What a relay holds",
        "Growth of the relay's resident memory divided by the number of units, after a forced"
        " garbage collection where the runtime has one. Reservations are counted on top of their"
        " connections, streams and circuits on top of theirs (100 on each connection), and each"
        " stream and circuit has carried 64 bytes each way. Tasks are trio tasks, goroutines, or"
        " tokio tasks.",
        memory,
    ),
}


def render(results: Results, directory: Path) -> None:
    """Write benchmarks.md and its plots from what was measured."""
    plots: Plots = {}
    lines = (Path(__file__).parent / "preface.txt").read_text().splitlines()
    lines += ["", "## Machine and versions", ""]
    machine = [[name, text] for name, text in results.machine.items()]
    lines += table(["machine", ""], machine, numbers=False)
    lines += [""]
    peers = [[NAMES[kind], text] for kind, text in results.versions.items()]
    lines += table(["peer", ""], peers, numbers=False)
    for name, section in SECTIONS.items():
        measured = results.sections.get(name)
        if measured is None:
            continue
        lines += ["", f"## {section.title}", "", section.intro, ""]
        lines += [f"    {measured.command}", "", f"{measured.when}.", ""]
        lines += disturbance(measured.cells)
        lines += section.render(measured.cells, plots)
        lines += faults(measured.cells)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / PLOTS).mkdir(exist_ok=True)
    text = "\n".join(lines)
    while "\n\n\n" in text:
        text = text.replace("\n\n\n", "\n\n")
    (directory / "benchmarks.md").write_text(text.rstrip() + "\n")
    for name, drawing in plots.items():
        (directory / PLOTS / f"{name}.svg").write_text(drawing)
