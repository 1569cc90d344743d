"""Whole-number arithmetic that writes down what it does: a value and its formula cannot disagree.

A formula reads `min(128, 1 + fds.free × 3 ÷ 16)`: whole numbers, names of other steps and of the
profile's fields, `+ - × ÷ min max`. `÷` rounds down.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from appliance.sizing.model import Step

_SUM: Final = 0
_PRODUCT: Final = 1
_ATOM: Final = 2


@dataclass(frozen=True, slots=True)
class Term:
    """A number and how it was come by."""

    value: int
    formula: str
    binds: int = _ATOM
    """How tightly the outermost operation holds its operands."""

    def __add__(self, other: Term | int) -> Term:
        return _join(self, "+", term(other), self.value + term(other).value, _SUM)

    def __sub__(self, other: Term | int) -> Term:
        return _join(self, "-", term(other), self.value - term(other).value, _SUM)

    def __mul__(self, other: Term | int) -> Term:
        return _join(self, "×", term(other), self.value * term(other).value, _PRODUCT)

    def __floordiv__(self, other: Term | int) -> Term:
        return _join(self, "÷", term(other), self.value // term(other).value, _PRODUCT)


def term(number: Term | int) -> Term:
    """A plain number stands for itself."""
    return number if isinstance(number, Term) else Term(number, str(number))


def least(*terms: Term | int) -> Term:
    """The smallest."""
    return _call("min", min, terms)


def most(*terms: Term | int) -> Term:
    """The largest."""
    return _call("max", max, terms)


def total(terms: Mapping[str, Term]) -> Term:
    """The sum of all; 0 of none."""
    found = term(0)
    for position, each in enumerate(terms.values()):
        found = each if position == 0 else found + each
    return found


def _join(left: Term, sign: str, right: Term, value: int, binds: int) -> Term:
    # Operations of one rank run from left to right: only the right one needs its parentheses.
    first = left.formula if left.binds >= binds else f"({left.formula})"
    second = right.formula if right.binds > binds else f"({right.formula})"
    return Term(value, f"{first} {sign} {second}", binds)


def _call(name: str, pick: Callable[[list[int]], int], terms: tuple[Term | int, ...]) -> Term:
    traced = [term(each) for each in terms]
    formulas = list(dict.fromkeys(each.formula for each in traced))
    value = pick([each.value for each in traced])
    if len(formulas) == 1:
        return traced[0]
    return Term(value, f"{name}({', '.join(formulas)})")


NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")
"""A name in a formula; `min` and `max` look like one."""


class Ledger:
    """Collects the steps of a plan. What was written down can be used by its name."""

    def __init__(self) -> None:
        self._steps: dict[str, Step] = {}

    def let(self, name: str, number: Term | int, because: str) -> Term:
        """Write down a step; its name stands for it from now on."""
        assert name not in self._steps, name
        traced = term(number)
        self._steps[name] = Step(name, traced.value, traced.formula, because)
        return Term(traced.value, name)

    def steps(self) -> tuple[Step, ...]:
        """All of them, in the order in which they were written down."""
        return tuple(self._steps.values())
