"""The table of unit costs: rounding, the file that the plan reads, and whether it still holds."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from appliance.sizing.cost import Cost
from appliance.units import KIB, MIB
from tests.bench.capacity.costs import Measured
from tests.bench.capacity.limited import ROOT

FILE: Final = ROOT / "appliance" / "sizing" / "measured.py"
GRAIN: Final = {
    "process": MIB, "embedded_node": MIB, "store": MIB,
    "listener": 32 * KIB, "operator": 32 * KIB, "scraper": 32 * KIB,
}  # fmt: skip
"""Bytes are rounded up to these: to a MiB where there is one of a kind, to 32 KiB where there are
so few that pages of the allocator show, else to a KiB. Resident memory of these is never none."""
NOISE: Final = 128
"""Bytes of one unit that no reading can tell from nothing."""
TOLERANCE: Final = 15
"""Per cent by which a measurement may exceed the table."""
SLACK: Final = 64 * KIB
"""Bytes by which two readings of one process may differ by chance, for all units together."""
ORDER: Final = (
    "process", "embedded_node", "store", "listener", "connection", "reservation", "circuit",
    "private_stream", "slot", "slot_stream", "scraper", "operator",
)  # fmt: skip
_BYTES: Final = ("memory_bytes", "kernel_bytes")
_COUNTS: Final = ("fds", "tasks", "threads", "conntrack")


def _up(value: float, grain: int) -> int:
    return 0 if value < NOISE else -(-round(value) // grain) * grain


def rounded(rounds: Sequence[Mapping[str, Measured]]) -> dict[str, Cost]:
    """The largest of the measurements, rounded up."""
    table = {}
    for name in ORDER:
        seen = [found[name] for found in rounds]
        counts = {field: round(max(getattr(one, field) for one in seen)) for field in _COUNTS}
        sizes = {
            field: _up(max(getattr(one, field) for one in seen), GRAIN.get(name, KIB))
            for field in _BYTES
        }
        sizes["memory_bytes"] = max(sizes["memory_bytes"], GRAIN.get(name, 0))
        table[name] = Cost(**counts, **sizes)
    return table


def exceeded(rounds: Sequence[Mapping[str, Measured]], table: Mapping[str, Cost]) -> Iterator[str]:
    """What costs more than the table says, in words.

    Of several readings the smallest counts: what the allocator had free for few units, or had to
    take anew for them, is chance and shows in one; what our code takes shows in all.
    """
    for name in rounds[0]:
        for field in (*_COUNTS, *_BYTES):
            told = getattr(table[name], field)
            units, seen = min((r[name].units, getattr(r[name], field)) for r in rounds)
            more = told * (100 + TOLERANCE) / 100 + SLACK / units
            if round(seen) > told if field in _COUNTS else seen > more:
                yield f"{name}: {seen:.0f} {field}, the table says {told}"


def machine() -> str:
    release = ".".join(platform.release().split(".")[:2])
    return f"{platform.machine()}, CPython {platform.python_version()}, Linux {release}"


def _size(count: int) -> str:
    for unit, name in ((MIB, "MIB"), (KIB, "KIB")):
        if count and count % unit == 0:
            return f"{count // unit} * {name}"
    return str(count)


def _call(cost: Cost) -> str:
    sizes = [(field, _size(getattr(cost, field))) for field in _BYTES if getattr(cost, field)]
    counts = [(field, str(getattr(cost, field))) for field in _COUNTS if getattr(cost, field)]
    said = dict([*counts, *sizes])
    fields = ("fds", *_BYTES, "tasks", "threads", "conntrack")
    return f"Cost({', '.join(f'{field}={said[field]}' for field in fields if field in said)})"


def source(table: Mapping[str, Cost]) -> str:
    """The text of `appliance/sizing/measured.py`."""
    rows = []
    for name, cost in table.items():
        row = f'    "{name}": {_call(cost)},'
        if len(row) > 100:
            inner = _call(cost).removeprefix("Cost(").removesuffix(")").split(", ")
            row = "\n".join(
                [f'    "{name}": Cost(', *(f"        {each}," for each in inner), "    ),"]
            )
        rows.append(row)
    return "\n".join(
        [
            '"""What one unit of each kind costs, measured. Generated: do not edit.',
            "",
            "    .venv/bin/python -m tests.bench.capacity --costs --write",
            "",
            "`process` is an idle daemon with a remote node, without its address book and the",
            "sockets on which it listens; `embedded_node` is what an embedded one adds to it, its",
            "socket left out; `circuit` and the streams come on top of their connections; `slot`",
            "is its socket and the search for its peer. docs/capacity.md says how it was measured.",
            '"""',
            "",
            "from __future__ import annotations",
            "",
            "from typing import Final",
            "",
            "from appliance.sizing.cost import Cost",
            "from appliance.units import KIB, MIB",
            "",
            f'MEASURED_ON: Final = "{time.strftime("%Y-%m-%d")}"',
            f'MACHINE: Final = "{machine()}"',
            "",
            "UNITS: Final[dict[str, Cost]] = {",
            *rows,
            "}",
            "",
        ]
    )


def write(table: Mapping[str, Cost], file: Path = FILE) -> None:
    file.write_text(source(table), encoding="utf-8")


def rows(rounds: Sequence[Mapping[str, Measured]], table: Mapping[str, Cost]) -> Iterator[str]:
    """The table in Markdown: what was measured, and what was made of it."""
    head = ("unit", "files", "resident", "in the table", "kernel", "in the table", *_COUNTS[1:])
    yield f"| {' | '.join(head)} |"
    yield "|---" * len(head) + "|"
    for name, cost in table.items():
        cells = [name.replace("_", " "), str(cost.fds)]
        for field in _BYTES:
            seen = [getattr(found[name], field) for found in rounds]
            cells += [f"{min(seen):,.0f}–{max(seen):,.0f}", f"{getattr(cost, field):,}"]
        cells += [str(cost.tasks), str(cost.threads), str(cost.conntrack)]
        yield "| " + " | ".join(cells) + " |"
