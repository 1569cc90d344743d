"""What a change of declaration changes: settings, sockets, peers, and every number of the plan."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, Final

from appliance.declaration.listeners import Listener, listeners
from appliance.declaration.model import Declaration
from appliance.declaration.sections import Section, spell, walk
from appliance.sizing.model import Plan, Step
from appliance.sizing.profile import Profile

SCHEMA: Final = "appliance.diff/v1"

PEERS: Final = (
    "node.peers",
    "bridge.relays",
    "bridge.peers",
    "node.addpeer",
    "node.connect",
)
"""Lists of others: what is told of them is who came and who went."""

_LABELS: Final = ("description", "source")
"""What a profile says in words."""

_FIRST: Final = ("caps", "unit", "kaspad")
"""Parts of a plan that are told before the others: what they were made for."""

_WHOLE: Final = ("profile", "derivation")
"""Parts of a plan that are told in other ways."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A field with another value; values as a file would spell them."""

    path: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Sockets:
    """TCP sockets that will, or will no longer, accept connections."""

    opened: tuple[Listener, ...]
    closed: tuple[Listener, ...]


@dataclass(frozen=True, slots=True)
class Peers:
    """Who came to and went from the list at `path`."""

    path: str
    added: tuple[str, ...]
    removed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Number:
    """A number of the plan; None on the side that does not have it.

    `because` is the new reason where the number is bound by something else than before, or the
    reason at all where it is new.
    """

    group: str
    name: str
    old: int | None
    new: int | None
    because: str | None


@dataclass(frozen=True, slots=True)
class Task:
    """Something to do before the new declaration is in force, and the fields that ask for it."""

    what: str
    because: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """Everything that is not the same; without a plan on either side `budgets` is empty."""

    settings: tuple[Setting, ...]
    ports: Sockets
    peers: tuple[Peers, ...]
    budgets: tuple[Number, ...]
    apply: tuple[Task, ...]

    def __bool__(self) -> bool:
        return bool(self.settings or self.peers or self.budgets)


def difference(
    old: Declaration, new: Declaration, old_plan: Plan | None, new_plan: Plan | None
) -> Difference:
    """`old_plan` and `new_plan` were made for them; None: not feasible."""
    changed = {path: pair for path, *pair in _changed(old, new)}
    settings = tuple(
        Setting(path, spelt(before), spelt(after))
        for path, (before, after) in changed.items()
        if path not in PEERS
    )
    was, will = list(listeners(old)), list(listeners(new))
    ports = Sockets(tuple(_without(will, was)), tuple(_without(was, will)))
    peers = tuple(_peers(path, *changed[path]) for path in PEERS if path in changed)
    budgets = tuple(_numbers(old_plan, new_plan)) if old_plan and new_plan else ()
    tasks = tuple(_tasks(old, new, tuple(changed), old_plan, new_plan))
    return Difference(settings, ports, peers, budgets, tasks)


def spelt(value: object) -> str:
    """A setting's value; of a secret, this is the path of its file."""
    if isinstance(value, Profile):
        return value.name
    return spell(value)


def _changed(old: Declaration, new: Declaration) -> Iterator[tuple[str, Any, Any]]:
    """The settings that differ, in the order of the schema; a profile's fields one by one."""
    for path, setting in walk(Declaration):
        if isinstance(setting.kind, Section):
            continue
        before: Any = reduce(getattr, path.split("."), old)
        after: Any = reduce(getattr, path.split("."), new)
        if before == after:
            continue
        if isinstance(before, Profile) and isinstance(after, Profile) and _written(before, after):
            yield from _fields(path, before, after)
        else:
            yield path, before, after


def _written(before: Profile, after: Profile) -> bool:
    """The same name, and other contents: the operator wrote them."""
    return before.name == after.name


def _fields(path: str, before: Profile, after: Profile) -> Iterator[tuple[str, Any, Any]]:
    for field in dataclasses.fields(Profile):
        values = getattr(before, field.name), getattr(after, field.name)
        if field.name not in _LABELS and values[0] != values[1]:
            yield f"{path}.{field.name}", *values


def _without(some: Iterable[Listener], others: Iterable[Listener]) -> Iterator[Listener]:
    """By place and owner: that a listener moved within its list concerns nobody."""
    known = {(other.owner, other.endpoint) for other in others}
    return (one for one in some if (one.owner, one.endpoint) not in known)


def _peers(path: str, before: tuple[object, ...], after: tuple[object, ...]) -> Peers:
    return Peers(
        path,
        added=tuple(str(peer) for peer in after if peer not in before),
        removed=tuple(str(peer) for peer in before if peer not in after),
    )


def _numbers(old: Plan, new: Plan) -> Iterator[Number]:
    before, after = dict(_flat(old)), dict(_flat(new))
    reasons = _steps(old), _steps(new)
    for key in dict.fromkeys((*before, *after)):
        was, will = before.get(key), after.get(key)
        if was == will:
            continue
        group, name = key
        step_was, step_will = (_step(steps, group, name) for steps in reasons)
        because = None
        if step_will is not None and (
            was is None or step_was is None or step_was.because != step_will.because
        ):
            because = step_will.because
        yield Number(group, name, was, will, because)


def _steps(plan: Plan) -> dict[str, Step]:
    return {step.name: step for step in plan.derivation}


def _step(steps: Mapping[str, Step], group: str, name: str) -> Step | None:
    """The derivation calls `alerts.fds` `alert.fds`, and `fds.reserved.store` `fds.store`."""
    last = name if group == "sysctl" else name.rpartition(".")[2]
    return next(
        (
            steps[full]
            for full in (f"{group.removesuffix('s')}.{last}", f"{group}.{last}")
            if full in steps
        ),
        steps.get(name),
    )


def _flat(plan: Plan) -> Iterator[tuple[tuple[str, str], int]]:
    """Every number of the plan by its group and its name there."""
    document = plan.as_json()
    for group in (*_FIRST, *(name for name in document if name not in (*_FIRST, *_WHOLE))):
        for name, value in _leaves(document[group]):
            yield (group, name), value


def _leaves(part: object, prefix: str = "") -> Iterator[tuple[str, int]]:
    if isinstance(part, Mapping):
        for name, below in part.items():
            yield from _leaves(below, f"{prefix}.{name}" if prefix else str(name))
    elif isinstance(part, int):
        yield prefix, part


def _tasks(
    old: Declaration,
    new: Declaration,
    changed: tuple[str, ...],
    old_plan: Plan | None,
    new_plan: Plan | None,
) -> Iterator[Task]:
    """In the order in which they are to be done."""

    def among(*prefixes: str) -> tuple[str, ...]:
        return tuple(path for path in changed if path.startswith(prefixes))

    moved = among("state.dir")
    if moved:
        yield Task(
            f"move {old.state.dir} to {new.state.dir}, or the appliance starts with an empty "
            "address book" + ("" if among("identity.key") == () else " and as a stranger"),
            moved,
        )
    if among("identity.key") and not moved:
        yield Task(
            f"move {old.identity.key} to {new.identity.key}, or the appliance becomes a stranger",
            among("identity.key"),
        )
    if among("network"):
        book = Path(new.state.dir) / "addresses"
        yield Task(f"move {book} away: it is {old.network.value}'s", among("network"))
    if old_plan and new_plan:
        parts = tuple(
            name
            for name in ("unit", "sysctl", "firewall")
            if getattr(old_plan, name) != getattr(new_plan, name)
        )
        if parts:
            yield Task("give the machine its new limits: install them, or build its image", parts)
        if old_plan.kaspad != new_plan.kaspad and new_plan.kaspad is not None:
            flags = " ".join(new_plan.kaspad.flags)
            yield Task(f"restart kaspad with {flags}", ("kaspad",))
    slots = among("bridge.slots", "bridge.peers")
    if slots and new.node.kind != "embedded":
        addpeers = " ".join(f"--addpeer={new.slot(i)}" for i in range(len(new.bridge.peers)))
        yield Task(f"tell kaspad its slots: {addpeers or 'none is left'}", slots)
    read = tuple(path for path in changed if not path.startswith("hardware."))
    if old_plan and new_plan and (old_plan.caps, old_plan.unit) != (new_plan.caps, new_plan.unit):
        read = changed
    if read:
        yield Task("restart the appliance", read)
