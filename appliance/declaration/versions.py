"""The versions of the declaration's format, and the steps that lead from each to the next.

Forward only. A step knows its two versions and nothing else, and an older document climbs all of
them, so that a new version adds one step. They work on the tree of nodes: every mark stays, and a
fault in an older document points to the line, and names the field, that its author wrote.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from collections.abc import Mapping as MappingType
from dataclasses import dataclass, field
from typing import Final

from appliance.declaration.faults import FileFault
from appliance.declaration.kinds import suggestion
from appliance.declaration.model import API_VERSION, Declaration
from appliance.declaration.nodes import Mapping, Node, Scalar, Sequence, child, describe
from appliance.declaration.settings import settings_of

Convert = Callable[[Node], Node | None]
"""The newer shape of a value; None: the field goes. Raises ValueError with the end of a sentence
that the value begins."""


@dataclass(frozen=True, slots=True)
class Move:
    """A top-level field `old` that is at `new` in the next version; it also says the words of
    `also`, by path."""

    old: str
    new: str
    convert: Convert | None = None
    also: MappingType[str, str] = field(default_factory=dict)

    def value(self, node: Node) -> Node | None:
        return node if self.convert is None else self.convert(node)


@dataclass(frozen=True, slots=True)
class Step:
    """From version `older` to the next one, `newer`."""

    older: str
    newer: str
    moves: tuple[Move, ...]

    def move(self, name: str) -> Move | None:
        return next((move for move in self.moves if move.old == name), None)


@dataclass(frozen=True, slots=True)
class Upgraded:
    """A document in the current version, and what its author calls the fields."""

    root: Mapping
    older: str | None = None
    """The version that it was written in; None: the current one, or none that we know."""
    faults: tuple[FileFault, ...] = ()
    names: MappingType[str, str] = field(default_factory=dict)
    """Older names by current paths."""

    def in_its_words(self, faults: Iterable[FileFault]) -> list[FileFault]:
        """`faults` with the names that stand in the file."""
        if not self.names:
            return list(faults)
        paths = sorted(self.names, key=len, reverse=True)
        dotted = "|".join(re.escape(path) for path in paths if "." in path or "[" in path)
        mention = re.compile(rf"(?<![\w./-])(?:{dotted})(?![\w-])")
        return [
            FileFault(
                fault.mark,
                self._name(fault.path, paths),
                mention.sub(lambda found: self.names[found.group()], fault.message),
            )
            for fault in faults
        ]

    def _name(self, path: str, paths: Iterable[str]) -> str:
        for known in paths:
            if path == known or path.startswith((f"{known}.", f"{known}[")):
                return self.names[known] + path[len(known) :]
        return path


def _list(node: Node) -> Node:
    """The older version took one value for a list of one."""
    if isinstance(node, Scalar) and node.tag != "null":
        return Sequence(node.mark, (node,))
    return node


def _relay_port(node: Node) -> Node:
    text = node.text if isinstance(node, Scalar) and node.tag == "int" else ""
    if not (text.isdigit() and len(text) <= 5 and 1 <= int(text) <= 65535):
        raise ValueError("is not a port (1 to 65535)")
    return Sequence(node.mark, (Scalar(node.mark, f"0.0.0.0:{int(text)}", "str"),))


def _unless_empty(node: Node) -> Node | None:
    """Without an address, the node is at the network's own port: the default."""
    return None if isinstance(node, Scalar) and node.tag == "null" else node


_V1ALPHA1: Final = Step(
    "appliance/v1alpha1",
    "appliance/v1",
    (
        Move("name", "metadata.name"),
        Move("profile", "hardware.profile"),
        Move("network", "network"),
        Move("kaspad", "node.p2p", _unless_empty, {"node.kind": "kaspad"}),
        Move("embedded", "node.p2p", _unless_empty, {"node.kind": "embedded"}),
        Move("addpeer", "node.addpeer", _list),
        Move("connect", "node.connect", _list),
        Move("listen", "bridge.listen", _list),
        Move("libp2p-relay-port", "bridge.listen", _relay_port),
        Move("externalip", "bridge.external", _list),
        Move("libp2p-relay-mode", "bridge.relay_mode"),
        Move("libp2p-relays", "bridge.relays", _list),
        Move("libp2p-peers", "bridge.peers", _list),
        Move("libp2p-slots", "bridge.slots"),
        Move("libp2p-private-inbound-target", "bridge.private_inbound_target"),
        Move("libp2p-relay-inbound-cap", "bridge.per_relay_inbound"),
        Move("libp2p-direct-deadline", "bridge.direct_deadline"),
        Move("libp2p-dial-private", "bridge.dial_private"),
        Move("libp2p-reservation-duration", "bridge.relay.reservation_duration"),
        Move("libp2p-circuit-duration", "bridge.relay.circuit_duration"),
        Move("libp2p-circuit-bytes", "bridge.relay.circuit_bytes"),
        Move("drain", "bridge.drain"),
        Move("state-dir", "state.dir"),
        Move("control-socket", "control.socket"),
        Move("control-group", "control.group"),
        Move("metrics", "metrics.listen"),
        Move("log-level", "log.level"),
        Move("log-format", "log.format"),
    ),
)

STEPS: Final[dict[str, Step]] = {step.older: step for step in (_V1ALPHA1,)}
"""By the version that they lead away from."""

_ENVELOPE: Final = ("apiVersion", "kind")
_SINCE_V1: Final = ("HardwareProfile", "Machine")
"""Kinds that the versions before did not have."""

_OURS: Final = re.compile(r"appliance/v[1-9][0-9]*(?:(?:alpha|beta)[1-9][0-9]*)?")


def version_of(root: Mapping) -> str | None:
    """What the document says of itself; None: nothing that could be a version."""
    given = next((node for key, node in root.entries if key.text == "apiVersion"), None)
    return given.text if isinstance(given, Scalar) else None


def upgrade(root: Mapping) -> Upgraded:
    """The document in the current version; one that is current, or says nothing that we know,
    comes back as it is."""
    version = version_of(root)
    if version is not None and version not in STEPS:
        return _unknown(root, version)
    older, names, faults = version, dict[str, str](), list[FileFault]()
    for node in (node for key, node in root.entries if key.text == "kind"):
        if older is not None and isinstance(node, Scalar) and node.text in _SINCE_V1:
            message = f"there is no {node.text} in {older}; write 'apiVersion: {API_VERSION}'"
            fault = FileFault(node.mark, "kind", message)
            return Upgraded(_with_version(root, API_VERSION), None, (fault,))
    while version in STEPS:
        step = STEPS[version]
        root, now = _climb(root, step, faults)
        # What the last step calls a field, the step before it may have called otherwise.
        names = {new: names.get(old, old) for new, old in now.items()}
        version = step.newer
    return Upgraded(root, older, tuple(faults), names)


def _unknown(root: Mapping, version: str) -> Upgraded:
    """A version of ours that this program has never heard of gets a sentence of its own."""
    if version == API_VERSION or not _OURS.fullmatch(version):
        return Upgraded(root)
    known = f"{API_VERSION} and the older {', '.join(STEPS)}"
    faults = [
        FileFault(
            node.mark,
            key.text,
            f"{describe(node)} is not known here; this program reads {known}",
        )
        for key, node in root.entries
        if key.text == "apiVersion"
    ]
    return Upgraded(_with_version(root, API_VERSION), None, tuple(faults))


def _with_version(root: Mapping, version: str) -> Mapping:
    entries = tuple(
        (key, Scalar(node.mark, version, "str") if key.text == "apiVersion" else node)
        for key, node in root.entries
    )
    return Mapping(root.mark, entries)


def _climb(
    root: Mapping, step: Step, faults: list[FileFault]
) -> tuple[Mapping, MappingType[str, str]]:
    """One step up; what cannot be carried over is reported and left behind."""
    tree = _Tree(root)
    names = dict[str, str]()
    takers = dict[str, Scalar]()
    for key, node in _with_version(root, step.newer).entries:
        if key.text in _ENVELOPE:
            tree.put(key.text, key, node)
            continue
        move = step.move(key.text)
        if move is None:
            faults.append(FileFault(key.mark, child("", key.text), _no_such_field(key.text, step)))
            continue
        taken = takers.setdefault(move.new, key)
        if taken is not key:
            message = f"says again what '{taken.text}' says on line {taken.mark.line}; keep one"
            faults.append(FileFault(key.mark, key.text, message))
            continue
        for path, word in move.also.items():
            tree.put(path, key, Scalar(key.mark, word, "str"))
            names[path] = key.text
        try:
            value = move.value(node)
        except ValueError as error:
            faults.append(FileFault(node.mark, key.text, f"{describe(node)} {error}"))
            continue
        names[move.new] = key.text
        if isinstance(value, Sequence) and not isinstance(node, Sequence):
            names[f"{move.new}[0]"] = key.text
        if value is not None:
            tree.put(move.new, key, value)
    return tree.mapping(), _names(step) | names


def _names(step: Step) -> dict[str, str]:
    """A field that is missing, or is only mentioned, has its older name too; and so has a section
    that was a single field."""
    sections = [move.new.partition(".")[0] for move in step.moves]
    alone = {
        section: move.old
        for section, move in zip(sections, step.moves, strict=True)
        if sections.count(section) == 1
    }
    return alone | {move.new: move.old for move in reversed(step.moves)}


def _no_such_field(name: str, step: Step) -> str:
    if name in settings_of(Declaration):
        return f"is a field of {API_VERSION}, and this document says {step.older}"
    return "unknown field" + suggestion(name, [move.old for move in step.moves])


class _Tree:
    """Nested mappings in the making, in the order of what is put into them."""

    def __init__(self, root: Mapping) -> None:
        self._mark = root.mark
        self._entries: dict[str, tuple[Scalar, Node | _Tree]] = {}

    def put(self, path: str, key: Scalar, node: Node) -> None:
        head, _, rest = path.partition(".")
        name = Scalar(key.mark, head, "str")
        if not rest:
            self._entries[head] = (name, node)
            return
        _, below = self._entries.setdefault(head, (name, _Tree(Mapping(self._mark, ()))))
        assert isinstance(below, _Tree)
        below.put(rest, key, node)

    def mapping(self) -> Mapping:
        return Mapping(
            self._mark,
            tuple(
                (name, node.mapping() if isinstance(node, _Tree) else node)
                for name, node in self._entries.values()
            ),
        )
