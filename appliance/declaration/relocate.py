"""One step of a migration in the text itself: each field's lines move to where its section is.

A block is a field's own lines, with the comments above it and behind it. Blocks are gathered into
sections in the order in which the sections first appear, indented, and their keys renamed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import yaml

from appliance.declaration.emit import flat
from appliance.declaration.nodes import Mapping, Node, Sequence, compose
from appliance.declaration.versions import STEPS, Move, Step, version_of

INDENT: Final = "  "


class Unmovable(Exception):
    """The text is not one field a line, or more lines, in block style."""


@dataclass(slots=True)
class _Block:
    """The lines of one field; `above` are comments and blank lines."""

    above: list[str]
    key: yaml.ScalarNode
    value: yaml.Node
    node: Node
    """The value, as the rest of the program sees it."""
    lines: list[str]
    """From the line of the key to the last of the value."""
    column: int
    """Where all keys of the document begin."""
    below: list[str] = field(default_factory=list)
    """Comments behind the value, indented like it."""

    @property
    def height(self) -> int:
        return len(self.above) + len(self.lines) + len(self.below)


@dataclass(slots=True)
class _Section:
    """A mapping of the newer version: sections and blocks with their moves, by name."""

    fields: dict[str, _Section | tuple[_Block, Move | None]] = field(default_factory=dict)


def relocate(text: str) -> str:
    """`text` with each document that has a next version moved one step. Raises `Unmovable`."""
    if set(text) & set("\r\x85\u2028\u2029"):
        raise Unmovable("breaks lines in other ways than the rest of us")
    lines = text.split("\n")
    trees = yaml.compose_all(text, Loader=yaml.SafeLoader)
    roots = [root for root in trees if isinstance(root, yaml.MappingNode)]
    documents = compose(text.encode())
    for root, document in reversed(list(zip(roots, documents, strict=True))):
        step = STEPS.get(version_of(document.root) or "")
        if step is not None:
            blocks = _blocks(root, document.root, lines)
            # What stands above the first field is the head of the document: it stays on top.
            blocks[0].above.clear()
            first = blocks[0].key.start_mark.line
            last = first + sum(block.height for block in blocks)
            lines[first:last] = _rendered(_sections(blocks, step), step, 0)
    return "\n".join(lines)


def _blocks(root: yaml.MappingNode, document: Mapping, lines: list[str]) -> list[_Block]:
    if root.flow_style:
        raise Unmovable("flow style")
    blocks: list[_Block] = []
    column = root.value[0][0].start_mark.column
    end = root.value[0][0].start_mark.line
    for (key, value), (_, node) in zip(root.value, document.entries, strict=True):
        first, last = key.start_mark.line, _last_line(value)
        if lines[first][: key.start_mark.column].strip():
            raise Unmovable("a key that does not begin its line")
        above = lines[end:first]
        if blocks:
            _take_comments(blocks[-1], above)
        blocks.append(_Block(above, key, value, node, lines[first : last + 1], column))
        end = last + 1
    _take_comments(blocks[-1], lines[end:])
    return blocks


def _take_comments(block: _Block, lines: list[str]) -> None:
    """A comment that is indented deeper than the keys is still about what stands before it."""
    while lines and _is_deeper_comment(lines[0], block.column):
        block.below.append(lines.pop(0))


def _is_deeper_comment(line: str, column: int) -> bool:
    comment = line.lstrip(" ")
    return comment.startswith("#") and len(line) - len(comment) > column


def _last_line(node: yaml.Node) -> int:
    """The last line that has something of the value; the library's mark is often further down."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        if isinstance(node, yaml.MappingNode):
            return max(max(_last_line(key), _last_line(value)) for key, value in node.value)
        return max(map(_last_line, node.value))
    end = node.end_mark
    is_block = isinstance(node, yaml.ScalarNode) and node.style in ("|", ">")
    return int(end.line - 1 if is_block and end.column == 0 else end.line)


def _sections(blocks: list[_Block], step: Step) -> _Section:
    top = _Section()
    for block in blocks:
        move = step.move(block.key.value)
        *sections, name = (move.new if move else block.key.value).split(".")
        place = top
        for section in sections:
            below = place.fields.setdefault(section, _Section())
            if not isinstance(below, _Section):
                raise Unmovable(f"{section} is a field and a section")
            place = below
        place.fields[name] = (block, move)
    return top


def _rendered(section: _Section, step: Step, depth: int) -> Iterator[str]:
    for name, content in section.fields.items():
        if isinstance(content, _Section):
            # Paragraphs of their own are about more than the one field.
            first = _first(content)
            above = first.above
            blank = [number for number, line in enumerate(above) if not line.strip()]
            apart = blank[-1] + 1 if blank else 0
            yield from (_deeper(line, depth) for line in above[:apart])
            del above[:apart]
            yield f"{' ' * first.column}{INDENT * depth}{name}:"
            yield from _rendered(content, step, depth + 1)
            continue
        block, move = content
        yield from (_deeper(line, depth) for line in block.above)
        if name == "apiVersion":
            line, value = block.lines[0], block.value
            start, end = value.start_mark.column, value.end_mark.column
            yield line[:start] + step.newer + line[end:]
        elif move is None:
            yield from block.lines
        else:
            yield from _field(block, name, move, depth)
        yield from (_deeper(line, depth) for line in block.below)


def _first(section: _Section) -> _Block:
    content = next(iter(section.fields.values()))
    return _first(content) if isinstance(content, _Section) else content[0]


def _deeper(line: str, depth: int) -> str:
    return INDENT * depth + line if line.strip() else line


def _field(block: _Block, name: str, move: Move, depth: int) -> Iterator[str]:
    """The block under its new name, and before it the words that its old name said."""
    indent = " " * block.column + INDENT * depth
    old, new = block.node, move.value(block.node)
    spelling, comment, column = _parts(block)
    words = [f"{indent}{path.rpartition('.')[2]}: {word}" for path, word in move.also.items()]
    if new is None:
        *words, last = words
        yield from words
        yield _commented(last, comment, column)
        return
    yield from words
    if new is not old:
        head, first, *rest = _converted(f"{indent}{name}", new, old, spelling)
        yield from (head, _commented(first, comment, column), *rest)
    elif spelling is not None:
        yield _commented(f"{indent}{name}: {spelling}", comment, column)
    else:
        yield _renamed(block, f"{indent}{name}:", comment, column)
        yield from (_deeper(line, depth) for line in block.lines[1:])


def _parts(block: _Block) -> tuple[str | None, str, int]:
    """The value's text if it stands whole on the key's line, the comment there, and its column."""
    line, start, end = block.lines[0], block.value.start_mark, block.value.end_mark
    here = block.key.start_mark.line
    if start.line == end.line == here and end.column > start.column:
        spelling, behind = line[start.column : end.column], end.column
    else:
        spelling, behind = None, _colon(block) + 1
    comment = line[behind:].strip()
    return spelling, comment if comment.startswith("#") else "", line.find("#", behind)


def _colon(block: _Block) -> int:
    found = re.compile(r"\s*:").match(block.lines[0], block.key.end_mark.column)
    if found is None:
        raise Unmovable("a key without its colon")
    return found.end() - 1


def _commented(text: str, comment: str, column: int) -> str:
    """The comment in its old column if there is room: columns of comments stay columns."""
    return f"{text.ljust(max(column, len(text) + 2))}{comment}" if comment else text


def _renamed(block: _Block, head: str, comment: str, column: int) -> str:
    """The first line of a value that goes on below: `|`, the beginning of a flow, or nothing."""
    if comment:
        return _commented(head, comment, column)
    return head + block.lines[0][_colon(block) + 1 :]


def _converted(head: str, new: Node, old: Node, spelling: str | None) -> Iterator[str]:
    """A list in block style; an item that was the whole value keeps its spelling."""
    if not isinstance(new, Sequence):
        raise Unmovable("a shape that no step needs yet")
    yield f"{head}:"
    indent = " " * (len(head) - len(head.lstrip())) + INDENT
    for item in new.items:
        text = spelling if item is old and spelling is not None else flat(item)
        yield f"{indent}- {text}"
