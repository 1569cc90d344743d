"""An older declaration's text → the same declaration in the current version.

The text is edited, not written anew: values keep their spelling, comments move with their field,
fields keep their order within their section. What cannot be edited line by line (a declaration in
flow style or JSON) is written anew, without its comments. Either way the result is read back, and
has to mean the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping as MappingType
from dataclasses import dataclass
from typing import Final

from appliance.declaration.emit import emit
from appliance.declaration.faults import DeclarationErrors
from appliance.declaration.load import loads
from appliance.declaration.model import API_VERSION
from appliance.declaration.nodes import Document, Mapping, compose
from appliance.declaration.relocate import Unmovable, relocate
from appliance.declaration.versions import STEPS, Move, Step, upgrade, version_of
from appliance.errors import ApplianceError

BOM: Final = "\ufeff"


@dataclass(frozen=True, slots=True)
class Change:
    """A field that another one, or several, stand for now; `line` counts from 1 in the old text."""

    line: int
    old: str
    new: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Migration:
    """What `migrate` found; without `older` there was nothing to do, and `text` is the old text."""

    text: str
    older: tuple[str, ...] = ()
    """The versions of the documents that were changed, oldest first."""
    changes: tuple[Change, ...] = ()
    comments_kept: bool = True


def migrate(data: bytes, *, file: str, environ: MappingType[str, str] | None = None) -> Migration:
    """The declaration in `data` in the current version; each document of it by itself.

    Raises `DeclarationErrors`, with places of `data`, if there is anything wrong with it.
    """
    wanted = loads(data, file=file, environ=environ)
    text = data.decode("utf-8-sig")
    documents = compose(data)
    found = {version_of(document.root) for document in documents}
    older = tuple(version for version in STEPS if version in found)
    if not older:
        return Migration(text)
    changes = tuple(change for document in documents for change in _changes(document.root))
    for kept, write in ((True, _edited), (False, _written_anew)):
        try:
            new = write(text.replace("\r\n", "\n"), documents)
            same = loads(new, file=file, environ=environ) == wanted
        except (Unmovable, DeclarationErrors):
            continue
        if same:
            new = new.replace("\n", "\r\n") if "\r\n" in text else new
            return Migration(_with_bom(new, data), older, changes, kept)
    # Cannot happen: what is written anew is the tree that was read.
    raise ApplianceError(f"{file}: cannot be written as {API_VERSION}; nothing was changed")


def _with_bom(text: str, data: bytes) -> str:
    return BOM + text if data.startswith(BOM.encode()) else text


def _steps(root: Mapping) -> Iterator[Step]:
    version = version_of(root)
    while version in STEPS:
        yield STEPS[version]
        version = STEPS[version].newer


def _changes(root: Mapping) -> Iterator[Change]:
    """What happens to each field, by its name in the file."""
    paths: dict[str, tuple[str, ...]] = {key.text: (key.text,) for key, _ in root.entries}
    steps = list(_steps(root))
    for step in steps:
        paths = {
            name: tuple(path for old in olds for path in _leads_to(step.move(old), old))
            for name, olds in paths.items()
        }
    for key, _ in root.entries:
        if key.text == "apiVersion" and steps:
            yield Change(key.mark.line, steps[0].older, (steps[-1].newer,))
        elif paths[key.text] != (key.text,):
            yield Change(key.mark.line, key.text, paths[key.text])


def _leads_to(move: Move | None, old: str) -> tuple[str, ...]:
    return (old,) if move is None else (*move.also, move.new)


def _edited(text: str, documents: tuple[Document, ...]) -> str:
    """Step by step, each document's fields moved within the text. Raises `Unmovable`."""
    depth = max(len(list(_steps(document.root))) for document in documents)
    for _ in range(depth):
        text = relocate(text)
    return text


def _written_anew(_: str, documents: tuple[Document, ...]) -> str:
    return "---\n".join(
        "".join(f"{line}\n" for line in emit(upgrade(document.root).root)) for document in documents
    )
