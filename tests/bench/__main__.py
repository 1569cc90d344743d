"""`make bench`: the peers side by side, in one run.

    .venv/bin/python -m tests.bench --quick
    .venv/bin/python -m tests.bench --only relayed --relays ours,go,rust --pairs js --streams 1

Without a choice of sections, peers or streams it measures everything and writes
docs/benchmarks.md; with one it prints the tables of what it measured (`--save` writes those
sections into the document all the same).
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

import trio

from tests.bench import machine
from tests.bench.bounds import bounds
from tests.bench.bulk import direct, relayed
from tests.bench.cells import KINDS, Cells, Settings
from tests.bench.latency import cycles, latency
from tests.bench.memory import held
from tests.bench.report import DOCS, PLOTS, SECTIONS, Measured, Results, faults, render
from tests.bench.versions import versions

MEASURES: Final[dict[str, Callable[[Settings, Cells], Awaitable[None]]]] = {
    "bounds": bounds,
    "direct": direct,
    "relayed": relayed,
    "latency": latency,
    "cycles": cycles,
    "memory": held,
}
QUICK: Final = replace(
    Settings(),
    pairs=("ours", "js", "go"),
    streams=(1, 64),
    rounds=1,
    warm_up=0.5,
    seconds=1.0,
    message_seconds=1.0,
    counts=(10, 100, 1000),
    counts_of_others=(10, 100),
)


def names(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer cells, one round: 5 minutes")
    parser.add_argument("--only", type=names, help="sections: " + ",".join(MEASURES))
    parser.add_argument("--kinds", type=names, help="peers: " + ",".join(KINDS))
    parser.add_argument("--relays", type=names, help="relays of the relayed and memory sections")
    parser.add_argument("--pairs", type=names, help="ends of the relayed section")
    parser.add_argument("--streams", type=numbers, help="streams at once: 1,8,64")
    parser.add_argument("--rounds", type=int, help="runs of each bulk cell")
    parser.add_argument("--seconds", type=float, help="length of a bulk window")
    parser.add_argument(
        "--quiet", type=float, help="repeat a bulk window from which others took more cores"
    )
    parser.add_argument("--counts", type=numbers, help="units held at our relay")
    parser.add_argument("--save", action="store_true", help="write a partial run into the document")
    parser.add_argument("--render", action="store_true", help="measure nothing, write the document")
    parser.add_argument("--out", type=Path, default=DOCS, help="where the document is")
    chosen = parser.parse_args(arguments)
    for name in chosen.only or ():
        if name not in MEASURES:
            parser.error(f"--only {name}: there are {', '.join(MEASURES)}")
    for name in (*(chosen.kinds or ()), *(chosen.relays or ()), *(chosen.pairs or ())):
        if name not in KINDS:
            parser.error(f"{name}: there are {', '.join(KINDS)}")
    return chosen


def settings_of(chosen: argparse.Namespace) -> Settings:
    start = QUICK if chosen.quick else Settings()
    names_of = ("kinds", "relays", "pairs", "streams", "rounds", "seconds", "quiet", "counts")
    given = {name: getattr(chosen, name) for name in names_of if getattr(chosen, name) is not None}
    return replace(start, **given)


def command_of(arguments: list[str]) -> str:
    """What to type for the same run; where it was written is of no interest."""
    told: list[str] = []
    words = iter(arguments)
    for word in words:
        if word == "--out":
            next(words)
        elif word != "--save":
            told.append(word)
    return "make bench" + (f" ARGS={shlex.quote(' '.join(told))}" if told else "")


async def measure(settings: Settings, sections: list[str], command: str, results: Results) -> None:
    """Run the sections; what was measured before an interruption is in `results` then."""
    for name in sections:
        cells = Cells(name)
        when = f"{time.strftime('%Y-%m-%d')}, ours at {results.versions['ours']}"
        results.sections[name] = Measured(command, when, cells.cells)
        await MEASURES[name](settings, cells)


def main(arguments: list[str]) -> int:
    chosen = parse(arguments)
    file = chosen.out / PLOTS / "results.json"
    if chosen.render:
        render(Results.load(file), chosen.out)
        return 0
    machine.raise_file_limit()
    sections = list(chosen.only or MEASURES)
    partial = any((chosen.only, chosen.kinds, chosen.relays, chosen.pairs, chosen.streams))
    command = command_of(arguments)
    measured = Results(machine.describe(), versions())
    began = time.monotonic()
    interrupted = False
    try:
        trio.run(measure, settings_of(chosen), sections, command, measured)
    except* KeyboardInterrupt:
        interrupted = True
    for name, item in measured.sections.items():
        print("\n".join(["", f"## {SECTIONS[name].title}", *SECTIONS[name].render(item.cells, {})]))
        print("\n".join(faults(item.cells)))
    print(f"{time.monotonic() - began:.0f} s", file=sys.stderr)
    if interrupted:
        print("interrupted: nothing was written", file=sys.stderr)
        return 130
    if chosen.save or not partial:
        results = Results.load(file)
        results.machine, results.versions = measured.machine, measured.versions
        results.sections.update(measured.sections)
        file.parent.mkdir(parents=True, exist_ok=True)
        results.save(file)
        render(results, chosen.out)
        print(f"written: {chosen.out / 'benchmarks.md'}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
