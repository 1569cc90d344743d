"""What the fuzz programs share: changing honest bytes, and giving inputs to targets in turn."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection
from random import Random

TryInput = Callable[[str, int, int], bool]
"""Target, seed, number: one input; whether it was refused. Raises Broken."""


class Broken(AssertionError):
    """An input did what no input may do."""


def check(holds: bool, what: str) -> None:
    """Raises Broken with `what`."""
    if not holds:
        raise Broken(what)


def changed(rng: Random, data: bytes, most: int = 4) -> bytes:
    """A few bytes changed, dropped, repeated or added, or a piece cut off."""
    out = bytearray(data)
    for _ in range(rng.randrange(most)):
        at = rng.randrange(len(out) + 1)
        match rng.randrange(5):
            case 0 if at < len(out):
                out[at] = rng.randrange(256)
            case 1:
                del out[at : at + rng.randrange(1, 9)]
            case 2:
                out[at:at] = out[at : at + rng.randrange(1, 40)]
            case 3:
                out[at:at] = rng.randbytes(rng.randrange(1, 4))
            case _:
                if rng.random() < 0.2:
                    del out[at:]
                elif at < len(out):
                    out[at] ^= 1 << rng.randrange(8)
    return bytes(out)


def in_turn(
    targets: Collection[str], try_input: TryInput, inputs: int, seed: int, first: int = 0
) -> Counter[str]:
    """That many inputs, to each target in turn; how many were refused. Raises Broken."""
    refused: Counter[str] = Counter()
    names = list(targets)
    for number in range(first, first + inputs):
        name = names[number % len(names)]
        refused[name] += try_input(name, seed, number)
    return refused


def program(
    name: str,
    about: str | None,
    targets: Collection[str],
    try_input: TryInput,
    arguments: list[str] | None,
) -> int:
    """The command line; 1 if an input broke something, which is printed."""
    parser = argparse.ArgumentParser(prog=name, description=about)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args(arguments)
    started = time.monotonic()
    try:
        refused = in_turn(targets, try_input, options.inputs, options.seed, options.first)
    except Broken as broken:
        print(broken, file=sys.stderr)
        return 1
    seconds = time.monotonic() - started
    counts = ", ".join(f"{name} {count}" for name, count in sorted(refused.items()))
    print(f"{options.inputs} inputs in {seconds:.0f} s, seed {options.seed}; refused: {counts}")
    return 0
