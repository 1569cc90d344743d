"""`hardware`: a profile by its name, `detect`, or written out; and single fields of it changed.

A profile may be written out in place, or as a document of its own (`kind: HardwareProfile`).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any, Final

from appliance.declaration.kinds import (
    INVALID,
    Choice,
    Kind,
    Number,
    OrNone,
    Reading,
    Schema,
    Text,
    suggestion,
)
from appliance.declaration.nodes import Mapping, Node, Scalar, describe
from appliance.declaration.sections import Section
from appliance.declaration.settings import REQUIRED, Setting, settings_of
from appliance.sizing.catalogue import CATALOGUE
from appliance.sizing.profile import ARCHITECTURES, STORAGES, Profile
from appliance.units import GIB, MIB

DETECT: Final = "detect"

NAME_NOUN: Final = "a name of 1 to 63 lower-case letters, digits and inner dashes"
NAME_PATTERN: Final = "[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
"""Names of appliances and profiles: RFC 1123's labels of a host name."""


@dataclass(frozen=True, slots=True)
class WrittenProfile:
    """The fields of a profile written out; the rest of `Profile` says that it was written out."""

    architecture: Annotated[
        str,
        Setting(
            Choice(*ARCHITECTURES),
            "Processor architecture, as `uname -m` names it.",
            example="aarch64",
        ),
    ]
    cores: Annotated[
        int,
        Setting(Number(1, 1024), "Processor cores that the appliance may use.", example="4"),
    ]
    memory_bytes: Annotated[
        int,
        Setting(
            Number(64 * MIB, 65_536 * GIB),
            "Memory of the machine.",
            unit="bytes",
            example="4294967296",
        ),
    ]
    link_bytes_per_second: Annotated[
        int,
        Setting(
            Number(10_000, 10**11),
            "What the internet line carries in its slower direction, usually upload.",
            unit="bytes per second",
            example="5000000",
        ),
    ]
    nofile: Annotated[
        int,
        Setting(
            Number(64, 2**30),
            "Open files that the system grants one process.",
            default=524_288,
            because="systemd's hard limit for services (DefaultLimitNOFILE)",
        ),
    ]
    conntrack_max: Annotated[
        int,
        Setting(
            Number(256, 2**30),
            "Entries of the connection-tracking table, here or in the "
            "router in front, whichever is smaller.",
            default=16_384,
            because="the usual setting of home routers",
        ),
    ]
    new_connections_per_second: Annotated[
        int,
        Setting(
            Number(1, 10**6),
            "New connections that the router upstream sets up without trouble.",
            default=30,
            because="what libtorrent allows itself on home lines (connection_speed)",
            unit="connections per second",
        ),
    ]
    storage: Annotated[
        str,
        Setting(
            Choice(*STORAGES),
            "What the state directory lies on.",
            default="ssd",
            because="the commonest; `sd-card` writes less often",
        ),
    ]


def _single(name: str) -> Setting:
    """The setting of `WrittenProfile` of that name, as one that may be left out."""
    whole = settings_of(WrittenProfile)[name]
    because = "the profile says"
    return dataclasses.replace(whole, kind=OrNone(whole.kind), default=None, because=because)


@dataclass(frozen=True, slots=True)
class ProfileOverride:
    """Single fields that replace those of `profile`, also of the detected one."""

    architecture: Annotated[str | None, _single("architecture")] = None
    cores: Annotated[int | None, _single("cores")] = None
    memory_bytes: Annotated[int | None, _single("memory_bytes")] = None
    link_bytes_per_second: Annotated[int | None, _single("link_bytes_per_second")] = None
    nofile: Annotated[int | None, _single("nofile")] = None
    conntrack_max: Annotated[int | None, _single("conntrack_max")] = None
    new_connections_per_second: Annotated[int | None, _single("new_connections_per_second")] = None
    storage: Annotated[str | None, _single("storage")] = None

    def apply(self, profile: Profile) -> Profile:
        """`profile` with the fields that are given here; the same one if none is."""
        given = {
            field.name: value
            for field in dataclasses.fields(self)
            if (value := getattr(self, field.name)) is not None
        }
        if not given:
            return profile
        source = f"{profile.source}; the declaration says {', '.join(given)}"
        return dataclasses.replace(profile, name=f"{profile.name}, changed", source=source, **given)


class ProfileName(Text):
    """A profile's name; those of the catalogue are taken."""

    def __init__(self) -> None:
        super().__init__(NAME_NOUN, NAME_PATTERN)

    def read(self, node: Node, path: str, reading: Reading) -> Any:
        name = super().read(node, path, reading)
        if name in (DETECT, *CATALOGUE):
            what = "means this machine" if name == DETECT else "is a profile of the catalogue"
            message = f"{describe(node)} {what}; choose another name"
            return reading.wrong(node.mark, path, message)
        return name


@dataclass(frozen=True, slots=True)
class ProfileMetadata:
    """What a profile is called."""

    name: Annotated[
        str,
        Setting(
            ProfileName(),
            "What `hardware.profile` calls it; no name of the catalogue.",
            example="my-box",
        ),
    ]


@dataclass(frozen=True, slots=True)
class HardwareProfile(WrittenProfile):
    """A machine that the catalogue does not know, described once for `hardware.profile` to name."""

    metadata: Annotated[ProfileMetadata, Setting(Section(ProfileMetadata), "What it is called.")]


class ProfileKind(Kind):
    """The value is `"detect"` or a `Profile`."""

    noun = "`detect`, the name of a profile, or a profile written out"

    def __init__(self) -> None:
        self._written = Section(WrittenProfile)

    def read(self, node: Node, path: str, reading: Reading) -> Any:
        if isinstance(node, Mapping):
            return self._read_written(node, path, reading)
        if not isinstance(node, Scalar) or node.tag != "str":
            return self.bad(node, path, reading)
        if node.text == DETECT:
            return DETECT
        known = CATALOGUE | reading.profiles
        if node.text not in known:
            names = [DETECT, *known]
            message = f"{describe(node)} is no known profile{suggestion(node.text, names)}"
            return reading.wrong(node.mark, path, message)
        if known[node.text] is None:  # said where it is described
            reading.invalid.add(path)
            return INVALID
        return known[node.text]

    def _read_written(self, node: Mapping, path: str, reading: Reading) -> Any:
        before = len(reading.faults)
        self._written.read_fields(node, path, reading)
        if len(reading.faults) > before:
            reading.invalid.add(path)
            return INVALID
        return written_profile("written-out", f"{path}.", reading)

    def schema(self) -> Schema:
        catalogue: Schema = {"type": "string", "enum": [DETECT, *CATALOGUE]}
        own: Schema = {"type": "string", "pattern": f"^(?:{NAME_PATTERN})$"}
        return {"anyOf": [catalogue, own, self._written.schema()]}


def written_profile(name: str, prefix: str, reading: Reading) -> Profile:
    """The profile whose fields, all of them good, were read below `prefix`."""
    values = {
        field: reading.values.pop(f"{prefix}{field}", setting.default)
        for field, setting in settings_of(WrittenProfile).items()
    }
    assert REQUIRED not in values.values()
    description = "as the declaration says"
    return Profile(name=name, description=description, source="declaration", **values)
