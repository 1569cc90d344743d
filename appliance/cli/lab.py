"""`appliance lab list`, `appliance lab run NAME`: the NAT laboratory."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, Final

from appliance.errors import ApplianceError

HELP = "Homes behind NATs, and relays, on this one machine; nothing of it stays afterwards."

_MAX_DELAY_MS: Final = 200.0
_MAX_RUNS: Final = 1000
_DEFAULT_TIMEOUT: Final = 120.0
# Beyond the scenario's own time: making the world, stopping the processes.
_WORLD_MARGIN: Final = 30.0


def _number(low: float, high: float) -> Any:
    def parse(text: str) -> float:
        value = float(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text} is not between {low:g} and {high:g}")
        return value

    return parse


def _count(text: str) -> int:
    value = int(text)
    if not 1 <= value <= _MAX_RUNS:
        raise argparse.ArgumentTypeError(f"{text} is not between 1 and {_MAX_RUNS}")
    return value


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="list|run")
    listing = actions.add_parser("list", help="the scenarios")
    listing.add_argument("--json", action="store_true", help="one JSON document")
    play = actions.add_parser("run", help="play a scenario")
    play.add_argument("scenario", metavar="NAME", help="one of `appliance lab list`")
    play.add_argument("--json", action="store_true", help="one JSON document, nothing else")
    play.add_argument(
        "--delay-ms",
        type=_number(0, _MAX_DELAY_MS),
        default=0.0,
        metavar="MS",
        help="one way, between any two public addresses: 0 (default) to 200",
    )
    play.add_argument(
        "--runs", type=_count, default=1, metavar="N", help="each in a new world (default 1)"
    )
    play.add_argument(
        "--timeout",
        type=_number(1, 3600),
        default=_DEFAULT_TIMEOUT,
        metavar="S",
        help=f"seconds for one run (default {_DEFAULT_TIMEOUT:g})",
    )
    play.add_argument(
        "--keep-logs", type=Path, metavar="DIR", help="leave declarations and logs there"
    )


def run(args: argparse.Namespace) -> int:
    return _list(args.json) if args.action == "list" else _play(args)


def _list(as_json: bool) -> int:
    from appliance.lab.scenarios import SCENARIOS

    if as_json:
        listed = [
            {"name": one.name, "summary": one.summary, "outcome": one.outcome.value}
            for one in SCENARIOS.values()
        ]
        print(json.dumps({"scenarios": listed}, indent=2))
        return 0
    width = max(map(len, SCENARIOS))
    for one in SCENARIOS.values():
        print(f"{one.name:<{width}}  {one.summary}")
    return 0


def _logs_of(directory: Path | None, number: int, total: int) -> str | None:
    if directory is None:
        return None
    place = directory.absolute() if total == 1 else directory.absolute() / f"run-{number:02}"
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ApplianceError(f"cannot make the directory {place}: {error.strerror}") from error
    return str(place)


def _play(args: argparse.Namespace) -> int:
    from appliance.lab import report, world
    from appliance.lab.result import summarise_runs
    from appliance.lab.scenarios import SCENARIOS

    scenario = SCENARIOS.get(args.scenario)
    if scenario is None:
        raise ApplianceError(
            f"there is no scenario {args.scenario!r}", hint="`appliance lab list` shows them"
        )
    one = args.runs == 1
    tell = one and not args.json

    def on_message(message: dict[str, Any]) -> None:
        if tell and (text := report.line(message)) is not None:
            print(text, flush=True)

    if not args.json:
        print(report.opening(scenario, args.delay_ms), flush=True)
    results = []
    for number in range(1, args.runs + 1):
        order = {
            "scenario": scenario.name,
            "delay_ms": args.delay_ms,
            "timeout": args.timeout,
            "log_level": "debug" if args.debug else "info",
            "logs": _logs_of(args.keep_logs, number, args.runs),
        }
        limit = args.timeout + _WORLD_MARGIN
        results.append(world.run("appliance.lab.play:perform", order, on_message, limit))
        if not one and not args.json:
            print(report.run_line(number, args.runs, results[-1]), flush=True)
    summary = summarise_runs(results)
    if args.json:
        print(json.dumps(results[0] if one else summary, indent=2))
    elif one:
        print(report.closing(scenario, results[0]))
    else:
        print(report.runs_closing(summary))
    return 0 if summary["passed"] else 1
