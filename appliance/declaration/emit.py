"""A tree of nodes → YAML text in block style, as a person would write it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Final

from appliance.declaration.nodes import Mapping, Node, Scalar, Sequence

# What every reader takes for this very text without quotes; the rest gets them.
_PLAIN: Final = re.compile(
    r"(?:[A-Za-z/]|\.\.?/|~/)[A-Za-z0-9_./@+-]*|[0-9]{1,3}(?:\.[0-9]{1,3}){3}:[0-9]+"
)
_WORDS: Final = ("true", "false", "null")


def emit(node: Node, indent: str = "") -> Iterator[str]:
    """The lines of `node`, a mapping or a list with something in it, each after `indent`."""
    if isinstance(node, Mapping):
        for key, value in node.entries:
            yield from _after(f"{indent}{scalar(key)}:", value, f"{indent}  ")
    elif isinstance(node, Sequence):
        for item in node.items:
            if _is_nested(item):
                first, *rest = emit(item, f"{indent}  ")
                yield f"{indent}- {first.lstrip()}"
                yield from rest
            else:
                yield f"{indent}- {flat(item)}"


def flat(node: Node) -> str:
    """A scalar, or an empty list or mapping, as it stands behind a key."""
    if isinstance(node, Scalar):
        return scalar(node)
    return "{}" if isinstance(node, Mapping) else "[]"


def scalar(node: Scalar) -> str:
    """The scalar on one line, in double quotes where it would be read as something else."""
    if node.tag != "str":
        return node.text or "null"
    if _PLAIN.fullmatch(node.text) and node.text.lower() not in _WORDS:
        return node.text
    return json.dumps(node.text, ensure_ascii=False)


def _after(head: str, value: Node, indent: str) -> Iterator[str]:
    if _is_nested(value):
        yield head
        yield from emit(value, indent)
    else:
        yield f"{head} {flat(value)}"


def _is_nested(node: Node) -> bool:
    if isinstance(node, Mapping):
        return bool(node.entries)
    return isinstance(node, Sequence) and bool(node.items)
