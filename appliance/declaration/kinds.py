"""The kinds of value that a field may hold: how each is read, and what JSON Schema says of it.

A kind never raises on bad input: it reports a fault to the `Reading` and returns `INVALID`.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Final

from appliance.declaration.addresses import PEER_ID_PATTERN, PrivatePeer, RelayAddress
from appliance.declaration.faults import FileFault, Mark
from appliance.declaration.nodes import (
    Mapping,
    Node,
    Scalar,
    Sequence,
    child,
    describe,
    quote,
)
from appliance.declaration.settings import settings_of
from appliance.network import Endpoint

Schema = dict[str, Any]


class _Invalid:
    def __repr__(self) -> str:
        return "INVALID"


INVALID: Final = _Invalid()


@dataclass(slots=True)
class Reading:
    """One file being read: the values so far, where each stands, and what is wrong.

    `written` maps the path of a list's item in the value to its path in the file: they differ once
    an item before it was wrong and left out.
    """

    values: dict[str, Any] = field(default_factory=dict)
    marks: dict[str, Mark] = field(default_factory=dict)
    written: dict[str, str] = field(default_factory=dict)
    invalid: set[str] = field(default_factory=set)
    faults: list[FileFault] = field(default_factory=list)

    def wrong(self, mark: Mark, path: str, message: str) -> _Invalid:
        self.faults.append(FileFault(mark, path, message))
        self.invalid.add(path)
        return INVALID


class Kind(ABC):
    """`noun` completes `'x' is not …` and heads the reference table's row."""

    noun: str

    @abstractmethod
    def read(self, node: Node, path: str, reading: Reading) -> Any:
        """The typed value of `node`, or `INVALID` after a fault was reported."""

    @abstractmethod
    def schema(self) -> Schema:
        """JSON Schema of what is written in the file."""

    def bad(self, node: Node, path: str, reading: Reading) -> _Invalid:
        return reading.wrong(node.mark, path, f"{describe(node)} is not {self.noun}")


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
    def noun(self) -> str:  # type: ignore[override]
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


class Parsed(Kind):
    """Text that a function parses; its ValueError ends the sentence that `'text'` begins."""

    def __init__(self, noun: str, pattern: str, parse: Callable[[str], Any]) -> None:
        self.noun, self._pattern, self._parse = noun, pattern, parse

    def read(self, node: Node, path: str, reading: Reading) -> Any:
        if not isinstance(node, Scalar) or node.tag == "null":
            return self.bad(node, path, reading)
        try:
            return self._parse(node.text)
        except ValueError as error:
            return reading.wrong(node.mark, path, f"{quote(node.text)} {error}")

    def schema(self) -> Schema:
        return {"type": "string", "pattern": f"^(?:{self._pattern})$"}


_IP4 = r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}"
_IP6 = r"[0-9a-fA-F:]{2,39}(?:[0-9.]{7,15})?"
_RELAY = rf"/(?:ip4/{_IP4}|ip6/{_IP6})/tcp/[0-9]{{1,5}}/p2p/{PEER_ID_PATTERN}"


def endpoint_kind() -> Kind:
    """`ip:port` or `[ip6]:port`."""
    pattern = rf"(?:{_IP4}|\[{_IP6}\]):[0-9]{{1,5}}"
    return Parsed("IP:PORT", pattern, parse_endpoint)


def external_kind() -> Kind:
    """An IP with or without a port; without, the port is None until the listen port is known."""
    pattern = rf"{_IP4}(?::[0-9]{{1,5}})?|{_IP6}|\[{_IP6}\](?::[0-9]{{1,5}})?"
    return Parsed("an IP or IP:PORT", pattern, parse_external)


def relay_kind() -> Kind:
    return Parsed("a relay's multiaddr", _RELAY, RelayAddress.parse)


def peer_kind() -> Kind:
    pattern = rf"{PEER_ID_PATTERN}|{_RELAY}/p2p-circuit/p2p/{PEER_ID_PATTERN}"
    return Parsed("a peer id, or RELAY/p2p-circuit/p2p/PEERID", pattern, PrivatePeer.parse)


def parse_endpoint(text: str, default_port: int | None = None) -> Endpoint:
    """`Endpoint.parse` with errors that continue a sentence begun with the quoted text."""
    try:
        endpoint = Endpoint.parse(text, default_port=default_port)
    except ValueError as error:
        detail = str(error)
        whole = repr(text)
        detail = detail.removeprefix(f"{whole} ") if detail.startswith(whole) else f"({detail})"
        if detail.startswith("("):
            raise ValueError(f"is not IP:PORT {detail}") from None
        raise ValueError(detail) from None
    if "%" in endpoint.host:
        raise ValueError("is not IP:PORT (a zone like %eth0 is not supported)")
    return endpoint


def parse_external(text: str) -> tuple[str, int | None]:
    """Host and port, or None for the port when the text has none."""
    endpoint = parse_endpoint(text, default_port=0)
    has_port = text.count(":") == 1 or (text.startswith("[") and not text.endswith("]"))
    if has_port and endpoint.port == 0:
        raise ValueError("has port 0, which nobody can dial")
    return endpoint.host, endpoint.port if has_port else None


@dataclass(frozen=True)
class ListOf(Kind):
    """A list of at most `most` items; an item that is wrong is left out of the value."""

    item: Kind
    most: int
    least: int = 0

    @property
    def noun(self) -> str:  # type: ignore[override]
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
    def noun(self) -> str:  # type: ignore[override]
        return f"{self.inner.noun}, or {self.word}"

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


class Section(Kind):
    """A mapping whose fields are the settings of a dataclass; an empty value is an empty one."""

    noun = "a mapping of fields"

    def __init__(self, cls: type) -> None:
        self.cls = cls

    def read(self, node: Node, path: str, reading: Reading) -> Any:
        if isinstance(node, Scalar) and node.tag == "null":
            node = Mapping(node.mark, ())
        if not isinstance(node, Mapping):
            return self.bad(node, path, reading)
        self.read_fields(node, path, reading)
        return None

    def read_fields(self, node: Mapping, path: str, reading: Reading) -> None:
        """Each field's value goes to `reading.values` under its path, its place to `marks`."""
        known = settings_of(self.cls)
        seen: set[str] = set()
        for key, value_node in node.entries:
            below = child(path, key.text)
            if key.text not in known:
                reading.wrong(key.mark, below, "unknown field" + suggestion(key.text, known))
                continue
            seen.add(key.text)
            reading.marks[below] = value_node.mark
            kind = known[key.text].kind
            empty = isinstance(value_node, Scalar) and value_node.tag == "null"
            if empty and isinstance(kind, ListOf):
                continue
            value = kind.read(value_node, below, reading)
            if value is not INVALID and not isinstance(kind, Section):
                reading.values[below] = value
        for name, setting in known.items():
            if setting.required and name not in seen:
                reading.wrong(node.mark, child(path, name), "is missing")

    def schema(self) -> Schema:
        from appliance.declaration.schema import section_schema

        return section_schema(self.cls)


def suggestion(word: str, known: object) -> str:
    """`; did you mean 'relays'?` when something known is close to `word`, else nothing."""
    import difflib

    names = [str(name) for name in known]  # type: ignore[attr-defined]
    close = difflib.get_close_matches(word.lower(), names, n=1, cutoff=0.6)
    return f"; did you mean '{close[0]}'?" if close else f" (known here: {', '.join(names)})"


_NUMBER: Final = re.compile(r"[-+]?[0-9]+(\.[0-9]+)?")
_TAG_NAMES: Final = {"int": "a number", "float": "a number", "bool": "a truth value"}
