"""YAML text → small trees of nodes with marks; bounded in size, depth and count.

Plain scalars follow the core schema of YAML 1.2, as editors do: `on`, `off`, `yes` and `no` are
text, and so are times and dates. Anchors, aliases and tags are refused: nothing in a declaration
needs them, and without them no small file can grow into a large tree. Messages do not repeat
them: a secret that was pasted unquoted may begin with any of their signs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

import yaml

from appliance.declaration.faults import START, FileFault, Mark
from appliance.units import MIB

MAX_BYTES: Final = MIB
"""A full declaration is 4 KiB; the rest is room for long peer lists."""

MAX_DOCUMENTS: Final = 32
"""One appliance, and more hardware profiles than anybody plans for in one file."""

MAX_NODES: Final = 20_000
MAX_DEPTH: Final = 16
"""The deepest field of the schema is four levels down."""

ScalarTag = Literal["null", "bool", "int", "float", "str"]


@dataclass(frozen=True, slots=True)
class Scalar:
    """A scalar as written; `tag` says what a YAML 1.2 reader makes of it."""

    mark: Mark
    text: str
    tag: ScalarTag


@dataclass(frozen=True, slots=True)
class Sequence:
    mark: Mark
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Mapping:
    """Keys are unique; a duplicate was reported and its second value dropped."""

    mark: Mark
    entries: tuple[tuple[Scalar, Node], ...]


Node = Scalar | Sequence | Mapping


@dataclass(frozen=True, slots=True)
class Document:
    """One document of a file: its fields, and the duplicates in it, with paths from its top."""

    root: Mapping
    duplicates: tuple[FileFault, ...] = ()


class UnreadableError(Exception):
    """The text is no bounded YAML; carries the one fault that says why."""

    def __init__(self, mark: Mark, message: str) -> None:
        super().__init__(message)
        self.fault = FileFault(mark, "", message)


# YAML 1.2.2, section 10.3.2, with the decimal forms only: octal and hexadecimal have no use here.
_CORE: Final[tuple[tuple[ScalarTag, re.Pattern[str]], ...]] = (
    ("null", re.compile(r"~|null|Null|NULL|")),
    ("bool", re.compile(r"true|True|TRUE|false|False|FALSE")),
    ("int", re.compile(r"[-+]?[0-9]+")),
    ("float", re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")),
)


def compose(data: bytes) -> tuple[Document, ...]:
    """The documents in `data`, at least one; empty ones are left out. Raises `UnreadableError`."""
    if len(data) > MAX_BYTES:
        raise UnreadableError(START, f"the file is larger than {MAX_BYTES // MIB} MiB")
    text = _decode(data)
    composer = _Composer()
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            composer.feed(event)
    except yaml.reader.ReaderError as error:
        mark = _mark_at(text, error.position)
        raise UnreadableError(
            mark, f"character {error.character!a} is not allowed in YAML"
        ) from None
    except yaml.MarkedYAMLError as error:
        at = error.problem_mark or error.context_mark
        mark = Mark(at.line + 1, at.column + 1) if at else START
        raise UnreadableError(mark, f"not valid YAML: {_problem(error)}") from None
    if not composer.documents:
        raise UnreadableError(
            START, "the file is empty; a declaration begins with apiVersion and kind"
        )
    return tuple(composer.documents)


def describe(node: Node) -> str:
    """What stands there, for a message: the text in quotes, or the shape."""
    if isinstance(node, Scalar):
        if node.tag == "null" and not node.text:
            return "an empty value"
        return quote(node.text)
    return "a list" if isinstance(node, Sequence) else "a mapping"


def shape(node: Node) -> str:
    """What stands there without a word of it, for a message about what may be a secret."""
    if not isinstance(node, Scalar):
        return describe(node)
    if node.tag == "null":
        return "an empty value"
    return {"str": "text", "bool": "a truth value"}.get(node.tag, "a number")


def quote(text: str) -> str:
    """`text` in quotes, on one line; cut, but not so short that a circuit's multiaddr suffers."""
    return repr(text if len(text) <= 200 else text[:197] + "...")


def plain(node: Node) -> object:
    """The same value as plain Python data: what a JSON Schema validator looks at."""
    match node:
        case Mapping():
            return {key.text: plain(value) for key, value in node.entries}
        case Sequence():
            return [plain(item) for item in node.items]
        case Scalar(tag="null"):
            return None
        case Scalar(tag="bool"):
            return node.text.lower() == "true"
        case Scalar(tag="int") if len(node.text) <= 40:
            return int(node.text)
        case Scalar(tag="int" | "float"):
            return float(node.text)
        case _:
            return node.text


def child(path: str, key: str) -> str:
    """The path of field `key` below `path`; an odd key is quoted, so that a line stays a line."""
    name = key if key.isprintable() and 0 < len(key) <= 60 else quote(key[:60])
    return f"{path}.{name}" if path else name


class _Composer:
    """Events in, documents out. Explicit stack: a deep file costs no recursion."""

    def __init__(self) -> None:
        self.documents: list[Document] = []
        self._faults: list[FileFault] = []
        self._begun = 0
        self._count = 0
        self._open: list[_OpenSequence | _OpenMapping] = []

    def feed(self, event: yaml.Event) -> None:
        start = event.start_mark
        mark = Mark(start.line + 1, start.column + 1) if start else START
        match event:
            case yaml.DocumentStartEvent():
                self._begun += 1
                if self._begun > MAX_DOCUMENTS:
                    raise UnreadableError(mark, f"more than {MAX_DOCUMENTS} documents in one file")
            case yaml.AliasEvent():
                raise UnreadableError(mark, "an alias (*) is not supported; write the value out")
            case yaml.ScalarEvent():
                self._refuse_extras(event, mark)
                self._add(Scalar(mark, event.value, _tag(event)))
            case yaml.SequenceStartEvent() | yaml.MappingStartEvent():
                self._refuse_extras(event, mark)
                if len(self._open) >= MAX_DEPTH:
                    raise UnreadableError(mark, f"nested deeper than {MAX_DEPTH} levels")
                path = self._open[-1].child_path() if self._open else ""
                if isinstance(event, yaml.SequenceStartEvent):
                    self._open.append(_OpenSequence(mark, path))
                else:
                    self._open.append(_OpenMapping(mark, path, self._faults))
            case yaml.SequenceEndEvent() | yaml.MappingEndEvent():
                self._add(self._open.pop().close())

    def _add(self, node: Node) -> None:
        self._count += 1
        if self._count > MAX_NODES:
            raise UnreadableError(node.mark, f"more than {MAX_NODES} values in one file")
        if self._open:
            self._open[-1].add(node)
        elif isinstance(node, Mapping):
            self.documents.append(Document(node, tuple(self._faults)))
            self._faults.clear()
        elif not (isinstance(node, Scalar) and node.tag == "null"):
            # Not quoted: somebody may have named a key file where a declaration belongs.
            raise UnreadableError(node.mark, f"{shape(node)} is not a mapping of fields")

    @staticmethod
    def _refuse_extras(event: yaml.NodeEvent, mark: Mark) -> None:
        if event.anchor is not None:
            raise UnreadableError(mark, "an anchor (&) is not supported; write values out")
        if getattr(event, "tag", None) is not None:
            raise UnreadableError(mark, "a tag (!) is not supported")


class _OpenSequence:
    def __init__(self, mark: Mark, path: str) -> None:
        self._mark, self._path = mark, path
        self._items: list[Node] = []

    def child_path(self) -> str:
        return f"{self._path}[{len(self._items)}]"

    def add(self, node: Node) -> None:
        self._items.append(node)

    def close(self) -> Sequence:
        return Sequence(self._mark, tuple(self._items))


class _OpenMapping:
    def __init__(self, mark: Mark, path: str, faults: list[FileFault]) -> None:
        self._mark, self._path, self._faults = mark, path, faults
        self._key: Scalar | None = None
        self._nodes: list[tuple[Scalar, Node]] = []

    def child_path(self) -> str:
        return child(self._path, self._key.text if self._key else "?")

    def add(self, node: Node) -> None:
        if self._key is not None:
            self._nodes.append((self._key, node))
            self._key = None
        elif isinstance(node, Scalar):
            self._key = node
        else:
            raise UnreadableError(node.mark, f"{describe(node)} cannot be the name of a field")

    def close(self) -> Mapping:
        first: dict[str, Scalar] = {}
        for key, _ in self._nodes:
            if key.text in first:
                message = f"is already given on line {first[key.text].mark.line}"
                self._faults.append(FileFault(key.mark, child(self._path, key.text), message))
            else:
                first[key.text] = key
        kept = tuple((key, node) for key, node in self._nodes if first[key.text] is key)
        return Mapping(self._mark, kept)


def _tag(event: yaml.ScalarEvent) -> ScalarTag:
    if event.style is not None:  # quoted or a block: always text
        return "str"
    return next((tag for tag, pattern in _CORE if pattern.fullmatch(event.value)), "str")


def _problem(error: yaml.MarkedYAMLError) -> str:
    """The library's words, without those that it took from the text."""
    problem = str(error.problem)
    if problem.startswith("found undefined tag handle"):
        problem = "found undefined tag handle"
    return f"{error.context} {problem}" if error.context else problem


def _decode(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8", "replace")
        mark = _mark_at(before, len(before))
        raise UnreadableError(mark, f"byte 0x{data[error.start]:02x} is not UTF-8 text") from None


def _mark_at(text: str, position: int) -> Mark:
    before = text[:position]
    return Mark(before.count("\n") + 1, position - (before.rfind("\n") + 1) + 1)
