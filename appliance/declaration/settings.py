"""What a field of a declaration is: one `Setting` in the `Annotated` type of a dataclass field.

The reader, the JSON Schema, the reference page and the cross-checks all follow from it.
"""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from appliance.declaration.kinds import Kind


class _Required:
    def __repr__(self) -> str:
        return "REQUIRED"


REQUIRED: Final = _Required()


Values = Mapping[str, Any]
"""The fields read or filled so far, by path."""

NETWORK: Final = ("network",)
"""What the defaults with a port depend on."""


@dataclass(frozen=True, slots=True)
class Computed:
    """A default that depends on other fields: what it is in words, how, and on which paths."""

    text: str
    of: Callable[[Values], object]
    depends: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Setting:
    """One field: how it is read, what it means, its unit and default, and why that default."""

    kind: Kind
    doc: str
    default: object = REQUIRED
    because: str = ""
    unit: str = ""
    example: str = ""

    @property
    def required(self) -> bool:
        return self.default is REQUIRED


@functools.cache
def settings_of(cls: type) -> dict[str, Setting]:
    """The settings of a dataclass by field name, in their order."""
    hints = typing.get_type_hints(cls, include_extras=True)
    found: dict[str, Setting] = {}
    for field in dataclasses.fields(cls):
        extras = getattr(hints[field.name], "__metadata__", ())
        found[field.name] = next(extra for extra in extras if isinstance(extra, Setting))
    return found
