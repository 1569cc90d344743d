"""The kinds of value that a field may hold: how each is read, and what JSON Schema says of it.

A kind never raises on bad input: it reports a fault to the `Reading` and returns `INVALID`.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Final

from appliance.declaration.faults import FileFault, Mark
from appliance.declaration.nodes import Node, Scalar, Sequence, describe, shape
from appliance.sizing.profile import Profile

Schema = dict[str, Any]


class _Invalid:
    def __repr__(self) -> str:
        return "INVALID"


INVALID: Final = _Invalid()


@dataclass(slots=True)
class Reading:
    """One document being read: the values so far, where each stands, and what is wrong.

    `profiles` are those that the file itself describes, None where the description is wrong.
    `written` maps the path of a list's item in the value to its path in the file: they differ once
    an item before it was wrong and left out.
    """

    values: dict[str, Any] = field(default_factory=dict)
    marks: dict[str, Mark] = field(default_factory=dict)
    written: dict[str, str] = field(default_factory=dict)
    invalid: set[str] = field(default_factory=set)
    faults: list[FileFault] = field(default_factory=list)
    profiles: dict[str, Profile | None] = field(default_factory=dict)

    def wrong(self, mark: Mark, path: str, message: str) -> _Invalid:
        self.faults.append(FileFault(mark, path, message))
        self.invalid.add(path)
        return INVALID


class Kind(ABC):
    """`noun` completes `'x' is not …` and heads the reference table's row."""

    noun: str

    @property
    def secret(self) -> bool:
        """Whether somebody may write a secret here: messages never repeat what they wrote."""
        return False

    @abstractmethod
    def read(self, node: Node, path: str, reading: Reading) -> Any:
        """The typed value of `node`, or `INVALID` after a fault was reported."""

    @abstractmethod
    def schema(self) -> Schema:
        """JSON Schema of what is written in the file."""

    def bad(self, node: Node, path: str, reading: Reading) -> _Invalid:
        said = shape(node) if self.secret else describe(node)
        return reading.wrong(node.mark, path, f"{said} is not {self.noun}")


@dataclass(frozen=True)
class Text(Kind):
    """Text of a given pattern."""

    noun: str
    pattern: str = r"[^\x00]+"

    def read(self, node: Node, path: str, reading: Reading) -> Any:
        if not isinstance(node, Scalar) or node.tag == "null":
            return self.bad(node, path, reading)
        if node.tag != "str":
            message = f"{describe(node)} is {_TAG_NAMES[node.tag]}, not text; put it in quotes"
            return reading.wrong(node.mark, path, message)
        if not re.fullmatch(self.pattern, node.text):
            return self.bad(node, path, reading)
        return self.convert(node.text)

    def convert(self, text: str) -> Any:
        return text

    def schema(self) -> Schema:
        return {"type": "string", "pattern": f"^(?:{self.pattern})$"}


@dataclass(frozen=True)
class PathText(Text):
    """A file system path; `~` is the home directory."""

    noun: str = "a path"

    def convert(self, text: str) -> Any:
        return Path(text)


class Choice(Kind):
    """One of a few words, plain text or the members of a str Enum."""

    def __init__(self, *words: str, enum: type[Enum] | None = None) -> None:
        self._values: dict[str, Any] = {word: word for word in words}
        if enum is not None:
            self._values = {member.value: member for member in enum}
        self.noun = "one of " + ", ".join(self._values) if len(self._values) > 1 else words[0]

    def read(self, node: Node, path: str, reading: Reading) -> Any:
        if not isinstance(node, Scalar) or node.tag != "str" or node.text not in self._values:
            return self.bad(node, path, reading)
        return self._values[node.text]

    def schema(self) -> Schema:
        return {"type": "string", "enum": list(self._values)}


@dataclass(frozen=True)
class Number(Kind):
    """A number of a range; `whole` ones are ints, others floats."""

    low: int
    high: int
    whole: bool = True

    @property
    def noun(self) -> str:  # type: ignore[override]  # a field's words here
        return f"a {'whole ' if self.whole else ''}number from {self.low} to {self.high}"

    def read(self, node: Node, path: str, reading: Reading) -> Any:
        allowed = ("int",) if self.whole else ("int", "float")
        if isinstance(node, Scalar) and node.tag == "str" and _NUMBER.fullmatch(node.text):
            message = f"{describe(node)} is text, not a number; take the quotes away"
            return reading.wrong(node.mark, path, message)
        if not isinstance(node, Scalar) or node.tag not in allowed or len(node.text) > 40:
            return self.bad(node, path, reading)
        value = int(node.text) if self.whole else float(node.text)
        return value if self.low <= value <= self.high else self.bad(node, path, reading)

    def schema(self) -> Schema:
        shape = "integer" if self.whole else "number"
        return {"type": shape, "minimum": self.low, "maximum": self.high}


class Boolean(Kind):
    """`true` or `false`, as YAML 1.2 has them."""

    noun = "true or false"

    def read(self, node: Node, path: str, reading: Reading) -> Any:
        if not isinstance(node, Scalar) or node.tag != "bool":
            return self.bad(node, path, reading)
        return node.text.lower() == "true"

    def schema(self) -> Schema:
        return {"type": "boolean"}


@dataclass(frozen=True)
class ListOf(Kind):
    """A list of at most `most` items; an item that is wrong is left out of the value."""

    item: Kind
    most: int
    least: int = 0

    @property
    def noun(self) -> str:  # type: ignore[override]  # a field's words here
        return "a list"

    def read(self, node: Node, path: str, reading: Reading) -> Any:
        if not isinstance(node, Sequence):
            return self.bad(node, path, reading)
        if len(node.items) < self.least:
            return reading.wrong(node.mark, path, "an empty list; at least one entry is needed")
        if len(node.items) > self.most:
            message = f"{len(node.items)} entries; at most {self.most} are allowed"
            return reading.wrong(node.mark, path, message)
        values: list[Any] = []
        for index, item in enumerate(node.items):
            here = f"{path}[{index}]"
            reading.marks[here] = item.mark
            value = self.item.read(item, here, reading)
            if value is INVALID:
                reading.invalid.add(path)
                continue
            reading.written[f"{path}[{len(values)}]"] = here
            values.append(value)
        return tuple(values)

    def schema(self) -> Schema:
        shape: Schema = {"type": ["array", "null"], "items": self.item.schema()}
        shape |= {"minItems": self.least} if self.least else {}
        return shape | {"maxItems": self.most}


@dataclass(frozen=True)
class OrNone(Kind):
    """What `inner` reads, or `word` (`null`, `off`) for None."""

    inner: Kind
    word: str = "null"

    @property
    def noun(self) -> str:  # type: ignore[override]  # a field's words here
        return f"{self.inner.noun}, or {self.word}"

    @property
    def secret(self) -> bool:
        return self.inner.secret

    def read(self, node: Node, path: str, reading: Reading) -> Any:
        if isinstance(node, Scalar):
            if self.word == "null" and node.tag == "null":
                return None
            if self.word != "null" and node.text == self.word:
                return None
        return self.inner.read(node, path, reading)

    def schema(self) -> Schema:
        none: Schema = {"type": "null"} if self.word == "null" else {"const": self.word}
        return {"anyOf": [self.inner.schema(), none]}


def suggestion(word: str, known: Iterable[object]) -> str:
    """`; did you mean 'relays'?` when something known is close to `word`, else nothing."""
    import difflib

    names = [str(name) for name in known]
    close = difflib.get_close_matches(word.lower(), names, n=1, cutoff=0.6)
    return f"; did you mean '{close[0]}'?" if close else f" (known here: {', '.join(names)})"


_NUMBER: Final = re.compile(r"[-+]?[0-9]+(\.[0-9]+)?")
_TAG_NAMES: Final = {"int": "a number", "float": "a number", "bool": "a truth value"}
