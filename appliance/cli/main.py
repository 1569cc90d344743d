"""`appliance VERB …`: finds the verb, runs it, turns errors into one sentence and an exit code."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Final, Protocol

from appliance import __version__
from appliance.errors import ApplianceError


class Verb(Protocol):
    """The shape of a module `appliance.cli.<verb>`."""

    HELP: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, args: argparse.Namespace) -> int: ...


# In the order of a user's day. A verb's module is imported only when the verb is typed.
VERBS: Final[dict[str, str]] = {
    "validate": "check a declaration without touching the machine",
    "plan": "show every budget and cap with its derivation",
    "diff": "what a change of declaration would change",
    "migrate": "rewrite an older declaration in the current version",
    "profiles": "the hardware catalogue; --detect describes this machine",
    "run": "the daemon, in the foreground",
    "status": "role, reach, relays, punches, caps in use, node, faults",
    "addresses": "the address book; `addresses import` reads a kaspad's own database",
    "identity": "show a state directory's peer id, making the key if there is none",
    "node": "the embedded Kaspa node by itself, for labs and tests",
    "machine": "an image's own verb: applies the files of its setup partition",
    "lab": "the NAT laboratory in network namespaces",
    "image": "a bootable image: its boot test, and writing it to a card or disk",
}


def _load(verb: str) -> Verb:
    module: Verb = importlib.import_module(f"appliance.cli.{verb}")
    return module


def _top_parser() -> argparse.ArgumentParser:
    rows = "\n".join(f"  {name:<10} {text}" for name, text in VERBS.items())
    parser = argparse.ArgumentParser(
        prog="appliance",
        usage="appliance [--debug] VERB …",
        description="Makes Kaspa nodes behind NATs reachable, from one YAML file.",
        epilog=f"verbs:\n{rows}\n\n`appliance VERB --help` explains one.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"appliance {__version__}")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    parser.add_argument("verb", choices=VERBS, metavar="VERB", help=argparse.SUPPRESS)
    parser.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 done; 1 refused or failed; 2 wrong usage; 130 interrupted before it began."""
    top = _top_parser().parse_args(argv)
    debug: bool = top.debug
    try:
        verb = _load(top.verb)
        parser = argparse.ArgumentParser(prog=f"appliance {top.verb}", description=verb.HELP)
        parser.add_argument("--debug", action="store_true", help="show tracebacks")
        verb.add_arguments(parser)
        args = parser.parse_args(top.rest)
        debug = debug or args.debug
        return verb.run(args)
    except ApplianceError as error:
        if debug:
            raise
        prefix = "" if error.located else "appliance: "
        return _failed(f"{prefix}{error.message}", error.hint)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of a pipe (`| head`) went away: not an error of ours.
        return 0
    except Exception as error:  # the last guard: a bug of ours, told in one sentence
        if debug:
            raise
        cause: BaseException = error
        while isinstance(cause, BaseExceptionGroup):
            cause = cause.exceptions[0]
        what = f"{type(cause).__name__}: {cause}".splitlines()[0][:300]
        return _failed(
            f"appliance: this is a fault of the appliance itself: {what}",
            f"`appliance --debug {top.verb} …` shows where",
        )


def _failed(sentence: str, hint: str | None) -> int:
    print(sentence, file=sys.stderr)
    if hint:
        print(f"hint: {hint}", file=sys.stderr)
    return 1


def entry() -> None:
    """The console script."""
    code = main()
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # What is left has no reader; without this the interpreter would try again, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)
