"""The plan against reality. See `--help`.

.venv/bin/python -m tests.bench.capacity
.venv/bin/python -m tests.bench.capacity --costs
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import signal
import sys

import trio

from appliance.errors import ApplianceError
from appliance.sizing.measured import UNITS
from tests.bench import machine
from tests.bench.capacity import nets, report, table
from tests.bench.capacity.claims import PROFILES, QUICK, Task, check
from tests.bench.capacity.costs import FULL, SMALL, measure
from tests.bench.ours import plain

ROUNDS = 3


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.capacity",
        description="Load the real daemon to the caps of its plan, under the plan's limits, and "
        "say whether it keeps what the plan promises.",
        epilog="Exit code 1: something does not hold.",
    )
    parser.add_argument("profiles", nargs="*", help=f"profiles: {', '.join(PROFILES)} if none")
    parser.add_argument("--costs", action="store_true", help="measure what one unit costs instead")
    parser.add_argument("--quick", action="store_true", help="few of everything: half a minute")
    parser.add_argument("--json", action="store_true", help="one JSON document")
    parser.add_argument(
        "--write", action="store_true",
        help="put what was measured into docs/capacity.md, costs into the table of the plan too",
    )  # fmt: skip
    return parser.parse_args(arguments)


async def judge(chosen: argparse.Namespace, command: str) -> bool:
    tasks = [Task.of_profile(name) for name in chosen.profiles or PROFILES]
    outcomes = []
    for task in [QUICK] if chosen.quick else tasks:
        outcomes.append(outcome := await check(task))
        if not chosen.json:
            print("\n".join([*report.lines(outcome), ""]), flush=True)
    if chosen.json:
        print(json.dumps([outcome.as_json() for outcome in outcomes], indent=2))
    if chosen.write:
        report.put(report.AT_CAPS, report.at_caps(outcomes, command))
    return all(outcome.holds for outcome in outcomes)


async def price(chosen: argparse.Namespace, command: str) -> bool:
    scale, count = (SMALL, 1) if chosen.quick else (FULL, ROUNDS)
    rounds = [await measure(scale) for _ in range(count)]
    while (faults := [*table.exceeded(rounds, UNITS)]) and len(rounds) < ROUNDS:
        rounds.append(await measure(scale))
    made = table.rounded(rounds)
    if chosen.json:
        measured = [{name: dataclasses.asdict(one) for name, one in r.items()} for r in rounds]
        print(json.dumps({"measured": measured, "exceeded": faults}, indent=2))
    else:
        print("\n".join([*table.rows(rounds, made), *faults]))
    if chosen.write:
        if not made["connection"].kernel_bytes:
            raise RuntimeError("without a memory control group the kernel's part is not known")
        table.write(made)
        report.put(report.UNITS, report.unit_costs(rounds, made, command))
    return chosen.write or not faults


def main(arguments: list[str]) -> int:
    chosen = parse(arguments)
    command = shlex.join([".venv/bin/python", "-m", "tests.bench.capacity", *arguments])
    machine.raise_file_limit()
    # Either signal unwinds: the daemon, its files and its control group must go. Said for both:
    # what a shell runs in the background is born with SIGINT ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        nets.enter()
    except ApplianceError as error:
        print(f"{error.message}; {error.hint}", file=sys.stderr)
        return 1
    well = False
    try:
        well = trio.run(price if chosen.costs else judge, chosen, command)
    except* RuntimeError as group:
        print("\n".join(plain(group)), file=sys.stderr)
    except* KeyboardInterrupt:
        print("interrupted: nothing was written", file=sys.stderr)
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
