"""Where a declaration is wrong: places, faults, and the one error that lists them all."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from appliance.errors import ApplianceError


@dataclass(frozen=True, slots=True, order=True)
class Mark:
    """A place in a text file; line and column count from 1, columns in characters."""

    line: int
    column: int


START = Mark(1, 1)


@dataclass(frozen=True, slots=True, order=True)
class FileFault:
    """One thing that is wrong, at `mark`, in the field `path` (empty: the document itself)."""

    mark: Mark
    path: str
    message: str

    def line(self, file: str) -> str:
        """`home-pi.yaml:11:15: bridge.relay_mode: 'sometimes' is not one of auto, on, off`."""
        where = f"{file}:{self.mark.line}:{self.mark.column}: "
        return f"{where}{self.path}: {self.message}" if self.path else where + self.message


class DeclarationErrors(ApplianceError):
    """Every fault of one file, in the order of the file, one a line.

    `located` tells the command line that each line already starts with its place.
    """

    located = True

    def __init__(self, file: str, faults: Iterable[FileFault]) -> None:
        self.file = file
        self.faults = tuple(sorted(set(faults)))
        super().__init__("\n".join(fault.line(file) for fault in self.faults))
