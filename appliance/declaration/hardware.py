"""`hardware.profile`: a name of the catalogue, `detect`, or a profile written out in place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Final

from appliance.declaration.kinds import (
    INVALID,
    Choice,
    Kind,
    Number,
    Reading,
    Schema,
    Section,
    suggestion,
)
from appliance.declaration.nodes import Mapping, Node, Scalar, describe
from appliance.declaration.settings import REQUIRED, Setting, settings_of
from appliance.sizing.catalogue import CATALOGUE
from appliance.sizing.profile import ARCHITECTURES, STORAGES, Profile
from appliance.units import GIB, MIB

DETECT: Final = "detect"


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
    storage: Annotated[
        str,
        Setting(
            Choice(*STORAGES),
            "What the state directory lies on.",
            default="ssd",
            because="the commonest; `sd-card` writes less often",
        ),
    ]


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
        if node.text not in CATALOGUE:
            names = [DETECT, *CATALOGUE]
            message = f"{describe(node)} is no known profile{suggestion(node.text, names)}"
            return reading.wrong(node.mark, path, message)
        return CATALOGUE[node.text]

    def _read_written(self, node: Mapping, path: str, reading: Reading) -> Any:
        before = len(reading.faults)
        self._written.read_fields(node, path, reading)
        if len(reading.faults) > before:
            reading.invalid.add(path)
            return INVALID
        values = {
            name: reading.values.pop(f"{path}.{name}", setting.default)
            for name, setting in settings_of(WrittenProfile).items()
        }
        assert REQUIRED not in values.values()
        description = "as the declaration says"
        return Profile(name="written-out", description=description, source="declaration", **values)

    def schema(self) -> Schema:
        names: Schema = {"type": "string", "enum": [DETECT, *CATALOGUE]}
        return {"anyOf": [names, self._written.schema()]}
