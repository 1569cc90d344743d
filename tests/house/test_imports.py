"""Who may import whom: the directions that keep the rooms apart."""

from __future__ import annotations

import ast
from collections.abc import Collection
from pathlib import Path
from typing import Final

from tests.house.tree import PACKAGE, ROOT, imports, modules, parsed

# Lower tiers know nothing of higher ones, and rooms of one tier nothing of each other.
TIERS: Final[tuple[frozenset[str], ...]] = (
    frozenset({"base"}),
    frozenset({"wire", "policy", "addresses", "sizing"}),
    frozenset({"declaration"}),
    frozenset({"dataplane"}),
    frozenset({"bridge", "node", "operate", "image", "lab"}),
    frozenset({"discovery"}),
    frozenset({"app"}),
    frozenset({"machine"}),
    frozenset({"cli"}),
)
TIER: Final = {room: height for height, rooms in enumerate(TIERS) for room in rooms}
# Modules that stand beside the rooms. `base` is what every room may use.
LOOSE: Final = {
    "__init__": "base",
    "reasons": "base",
    "errors": "base",
    "units": "base",
    "clock": "base",
    "events": "base",
    "network": "base",
    "app": "app",
    "composition": "app",
    "startup": "app",
    "reporting": "app",
    "__main__": "cli",
}

# Rooms that decide but never act: `now` and `rng` are arguments, effects are return values.
PURE: Final = frozenset({"wire", "policy", "addresses", "sizing"})
# Their doors to the machine, each with its reason.
DOORS: Final = {
    "sizing/detect.py": "describes the running machine as a hardware profile",
    "sizing/detect_line.py": "the same for its internet line",
    "addresses/examining.py": "the directory of the store: its lock, its making, its refusals",
    "addresses/opening.py": "the way of the store into memory",
    "addresses/systems.py": "reads the operator's table of autonomous systems",
    "addresses/compiled.py": "the file that the table of systems is kept in",
    "addresses/held.py": "the book's files: opening, writing, closing",
    "addresses/store.py": "the book over the store",
    "addresses/kaspad_db.py": "copies a kaspad's database and reads the copy",
    "addresses/listing.py": "reads a book that another process has open",
    "addresses/rocks.py": "the RocksDB store",
    "addresses/snapshots.py": "the file that the tables are kept in",
}
ACTING: Final = frozenset(
    """
    appliance.clock appliance.events asyncio builtins ctypes fcntl glob importlib io logging
    multiprocessing os pathlib resource sched secrets select selectors shutil signal socket
    socketserver ssl subprocess sys tempfile threading time trio uuid
    """.split()
)
ACTING_CALLS: Final = frozenset({"open", "print", "input", "exec", "eval", "breakpoint"})
READS_A_CLOCK: Final = frozenset({"now", "utcnow", "today"})

# libp2p's plug points, and the only modules that touch it. All of the library costs 85 MB
# and its defects are worked around here; nothing else may depend on its shapes.
TOUCH_LIBP2P: Final = frozenset(
    f"bridge/{name}.py"
    for name in "host identity secure envelope identify messages stock stock_channel".split()
)
# The library's data plane: the benchmarks and tests choose it, nothing of ours does.
FOR_COMPARISON: Final = ("appliance.bridge.stock", "appliance.bridge.stock_channel")


def room_of(name: str) -> str:
    """`appliance.wire.framing` → `wire`; `appliance.units` → `base`."""
    parts = name.split(".")
    head = parts[1] if len(parts) > 1 else "__init__"
    return LOOSE.get(head, "base" if head.startswith("__") else head)


def wrong_directions(importer: str, tree: ast.Module) -> list[str]:
    """The imports of module `importer` that go up or sideways."""
    room = room_of(importer)
    found = []
    for target in imports(tree):
        if target.name.split(".")[0] != "appliance":
            continue
        other = room_of(target.name)
        if other != room and TIER[other] >= TIER[room]:
            found.append(f"{importer}:{target.line}: {room} must not import {target.name}")
    return found


def deeds(importer: str, tree: ast.Module) -> list[str]:
    """What module `importer` of a room without I/O does that only a shell may do."""
    found = []
    for target in imports(tree):
        parts = target.name.split(".")
        # `import random` serves the annotation of an `rng` argument; calls are looked for below.
        if parts[0] in ACTING or ".".join(parts[:2]) in ACTING:
            found.append(f"{importer}:{target.line}: a room without I/O imports {target.name}")
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        match node.func:
            case ast.Name(id=name) if name in ACTING_CALLS:
                found.append(f"{importer}:{node.lineno}: a room without I/O calls {name}()")
            case ast.Attribute(attr=name, value=ast.Name(id="datetime" | "date")) if (
                name in READS_A_CLOCK
            ):
                found.append(f"{importer}:{node.lineno}: a room without I/O reads a clock")
            case ast.Attribute(attr=name, value=ast.Name(id="random")):
                found.append(f"{importer}:{node.lineno}: a room without I/O calls random.{name}()")
    return found


def dotted(path: Path) -> str:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__init__")


def test_every_room_has_a_tier() -> None:
    rooms = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    loose = {path.stem for path in PACKAGE.glob("*.py")}
    assert rooms <= set(TIER)
    assert loose <= set(LOOSE)


def test_imports_point_down() -> None:
    wrong = [text for path in modules() for text in wrong_directions(dotted(path), parsed(path))]
    assert not wrong, "\n".join(wrong)


def test_no_file_needs_itself() -> None:
    trees = {dotted(path): parsed(path) for path in modules()}
    needs = {name: needed(tree, trees.keys()) for name, tree in trees.items()}
    assert not circles(needs)


def needed(tree: ast.Module, files: Collection[str]) -> set[str]:
    """Which of `files` a module names, wherever in it; a package only if it wants what the
    package's own file holds."""
    named = set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            named |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            named |= inner if inner <= set(files) else inner | {node.module}
    return named & set(files)


def circles(needs: dict[str, set[str]]) -> set[str]:
    """Those that are on a way back to themselves, and those between two such ways."""
    left = dict(needs)
    while True:
        wanted = set().union(*left.values()) if left else set()
        ends = {name for name, others in left.items() if not others & left.keys()}
        ends |= left.keys() - wanted
        if not ends:
            return set(left)
        for name in ends:
            del left[name]


def test_rooms_without_io_only_decide() -> None:
    inside = {path: str(path.relative_to(PACKAGE)) for path in modules()}
    wrong = [
        text
        for path, name in inside.items()
        if name.split("/")[0] in PURE and name not in DOORS
        for text in deeds(dotted(path), parsed(path))
    ]
    assert not wrong, "\n".join(wrong)


def test_only_the_host_and_its_neighbours_know_libp2p() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{target.line}: imports {target.name}"
        for path in modules()
        if str(path.relative_to(PACKAGE)) not in TOUCH_LIBP2P
        for target in imports(parsed(path))
        if target.name.split(".")[0] == "libp2p"
    ]
    assert not wrong, "\n".join(wrong)


def test_nothing_of_ours_uses_the_stock_data_plane() -> None:
    users = {
        str(path.relative_to(PACKAGE))
        for path in modules()
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Import | ast.ImportFrom) and names_stock(node)
    }
    assert users == {"bridge/stock.py"}


def names_stock(node: ast.Import | ast.ImportFrom) -> bool:
    origin = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
    named = [origin.rstrip("."), *(origin + alias.name for alias in node.names)]
    return not set(named).isdisjoint(FOR_COMPARISON)


def test_the_checks_see_what_they_are_for() -> None:
    sideways = ast.parse("def f():\n    from appliance.node import slots")
    assert wrong_directions("appliance.bridge.host", sideways)
    assert wrong_directions("appliance.units", ast.parse("import appliance.wire.framing"))
    assert not wrong_directions("appliance.bridge.host", ast.parse("from appliance import units"))
    assert deeds("appliance.wire.x", ast.parse("import time"))
    assert deeds("appliance.wire.x", ast.parse("from appliance import clock"))
    assert deeds("appliance.wire.x", ast.parse("from datetime import datetime\ndatetime.now()"))
    assert deeds("appliance.wire.x", ast.parse("open('f')"))
    assert deeds("appliance.wire.x", ast.parse("import random\nrandom.Random()"))
    assert not deeds(
        "appliance.wire.x", ast.parse("import random\nrng: random.Random\nrng.random()")
    )
    assert not deeds("appliance.wire.x", ast.parse("import hashlib, struct"))
    lazy = ast.parse("def f():\n    from appliance.wire import pb\n    import os")
    assert needed(lazy, {"appliance.wire", "appliance.wire.pb"}) == {"appliance.wire.pb"}
    assert needed(lazy, {"appliance.wire"}) == {"appliance.wire"}
    assert circles({"a": {"b"}, "b": {"c", "x"}, "c": {"b"}, "x": set()}) == {"b", "c"}
    for text in (
        "import appliance.bridge.stock",
        "from appliance.bridge import stock",
        "from appliance.bridge.stock import STOCK",
    ):
        [node] = ast.parse(text).body
        assert isinstance(node, ast.Import | ast.ImportFrom)
        assert names_stock(node)
