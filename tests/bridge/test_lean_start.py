"""What starts with us of libp2p, and that the whole of it is still there for whoever asks.

Each process here is a fresh one: what pytest and other tests have imported must not count.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from appliance.bridge.library import LIBRARY, lean
from tests.app.processes import declaration, peer_id, running, written

ROOT: Final = Path(__file__).resolve().parents[2]
NEVER_USED: Final = frozenset(
    "aioquic dns httpx miniupnpc requests trio_websocket urllib3 wsproto zeroconf".split()
)
MOST_MODULES: Final = 900
"""770 on CPython 3.11; with all of libp2p 1,410."""


def fresh(code: str, *paths: Path) -> str:
    """What `code` prints in an interpreter of its own that looks into `paths` first."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (*paths, ROOT)))},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def imported_by(statement: str) -> set[str]:
    """The modules that are there after `statement`."""
    names: list[str] = json.loads(
        fresh(f"import json, sys\n{statement}\nprint(json.dumps([*sys.modules]))")
    )
    return set(names)


def test_the_appliance_starts_without_what_it_never_uses() -> None:
    modules = imported_by("import appliance.app")
    assert "libp2p.security.noise.patterns" in modules
    assert not NEVER_USED & modules
    assert len(modules) < MOST_MODULES


def test_no_handshake_brings_the_rest_in(tmp_path: Path) -> None:
    """What a running appliance has mapped after it got a reservation from another."""
    relay = declaration(tmp_path, "relay", bridge={"relay_mode": "on"})
    way = f"p2p/{peer_id(relay)}"
    with running(written(tmp_path, relay)) as one:
        host, port = one.wait("ready")["listen"][0].split(":")
        home = declaration(tmp_path, "home", bridge={"relays": [f"/ip4/{host}/tcp/{port}/{way}"]})
        with running(written(tmp_path, home)) as other:
            other.wait("reservation_made")
            for process in (one.process, other.process):
                mapped = Path(f"/proc/{process.pid}/maps").read_text()
                assert "/site-packages/nacl/" in mapped
                assert "/site-packages/aioquic/" not in mapped
                assert "/site-packages/zeroconf/" not in mapped


def test_the_library_still_imports_all_it_has() -> None:
    """A failure here is good news: `lean()` can go."""
    assert imported_by("import libp2p.peer.id") >= NEVER_USED


def test_the_library_still_needs_a_quic_stack_for_an_annotation() -> None:
    """A failure here is good news: `lean()` need not keep it out."""
    library = "import appliance.bridge.secure, libp2p.custom_types"
    assert fresh(f"{library}\nprint(libp2p.custom_types.QUICStream.__module__)").strip() == (
        "libp2p.transport.quic.stream"
    )


STOCK_HOSTS: Final = """
import sys, trio
{imports}
from multiaddr import Multiaddr
from libp2p.peer.peerinfo import PeerInfo

async def echo(stream):
    await stream.write(await stream.read(5))
    await stream.close()

async def main(listen):
    a, b = (libp2p.new_host(listen_addrs=listen) for _ in "ab")
    with trio.fail_after(30):
        async with a.run(listen), b.run(listen):
            b.set_stream_handler("/echo", echo)
            await a.connect(PeerInfo(b.get_id(), b.get_addrs()))
            stream = await a.new_stream(b.get_id(), ["/echo"])
            await stream.write(b"hello")
            print((await stream.read(5)).decode())

trio.run(main, [Multiaddr("/ip4/127.0.0.1/{listen}")])
assert libp2p.peer.id.ID is appliance.bridge.identity.ID
"""


@pytest.mark.parametrize("listen", ["tcp/0", "udp/0/quic-v1"])
@pytest.mark.parametrize(
    "imports",
    ["import appliance.app, libp2p", "import libp2p, appliance.app"],
    ids=["lean", "whole"],
)
def test_the_librarys_own_hosts_work_beside_us(imports: str, listen: str) -> None:
    assert fresh(STOCK_HOSTS.format(imports=imports, listen=listen)) == "hello\n"


def test_what_was_imported_without_quic_is_not_left_to_others() -> None:
    code = """
import appliance.app
from aioquic.quic.connection import QuicConnectionError
from libp2p.transport.quic import stream
print(stream.QuicConnectionError is QuicConnectionError)
"""
    assert fresh(code) == "True\n"


EVERY_MODULE: Final = """
import importlib, importlib.util, pathlib
import appliance.app
import libp2p.records.record  # by itself it would end in a circle

top = pathlib.Path(importlib.util.find_spec("libp2p").origin).parent
for file in sorted(top.rglob("*.py")):
    if file.stem == "_aiortc_helpers":
        continue  # of an extra that we do not install
    parts = file.relative_to(top.parent).with_suffix("").parts
    module = importlib.import_module(".".join(parts).removesuffix(".__init__"))
    for public in getattr(module, "__all__", ()):
        getattr(module, public)
"""


def test_every_module_of_the_library_can_be_imported_after_a_lean_start() -> None:
    fresh(EVERY_MODULE)


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A small package of the library's name, whose own code says when it runs."""
    package = tmp_path / LIBRARY
    (package / "deep").mkdir(parents=True)
    (package / "part.py").write_text("answer = 42\n")
    (package / "deep" / "__init__.py").write_text("print('deep runs')\n")
    (package / "deep" / "part.py").write_text("import libp2p.part\nanswer = 43\n")
    (package / "__init__.py").write_text("print('libp2p runs')\nimport libp2p.part\nname = 'x'\n")
    return tmp_path


IMPORTED: Final = """
from appliance.bridge.library import lean
with lean():
    import libp2p.part, libp2p.deep.part
print("imported")
"""


def test_a_package_runs_its_code_when_it_is_asked_for_a_name(library: Path) -> None:
    code = "print(libp2p.part.answer, libp2p.deep.part.answer)\nprint(libp2p.name, libp2p.name)"
    assert fresh(IMPORTED + code, library).splitlines() == [
        "imported",
        "42 43",
        "libp2p runs",
        "x x",
    ]


def test_a_package_runs_its_code_for_from_imports_and_stays_the_same_module(library: Path) -> None:
    code = "before = libp2p\nfrom libp2p import name\nimport libp2p\nprint(before is libp2p)"
    assert fresh(IMPORTED + code, library).splitlines() == ["imported", "libp2p runs", "True"]


def test_to_import_more_of_a_package_later_runs_its_code_first(library: Path) -> None:
    (library / LIBRARY / "more.py").write_text("print('more runs')\n")
    code = "import libp2p.more"
    assert fresh(IMPORTED + code, library).splitlines() == ["imported", "libp2p runs", "more runs"]


def test_a_name_that_a_package_lacks_is_missing_as_ever(library: Path) -> None:
    code = "print(hasattr(libp2p.deep, 'nothing'), hasattr(libp2p.deep, 'nothing'))"
    assert fresh(IMPORTED + code, library).splitlines() == [
        "imported",
        "libp2p runs",
        "deep runs",
        "False False",
    ]


def test_a_package_that_cannot_run_says_so_each_time(library: Path) -> None:
    (library / LIBRARY / "__init__.py").write_text("raise ImportError('half an installation')\n")
    code = """
for _ in range(2):
    try:
        libp2p.name
    except ImportError as error:
        print(error)
print(libp2p.part.answer)
"""
    assert fresh(IMPORTED + code, library).splitlines() == [
        "imported",
        "half an installation",
        "half an installation",
        "42",
    ]


def test_after_the_block_imports_are_as_before() -> None:
    before = sys.meta_path[:]
    with pytest.raises(ModuleNotFoundError), lean():
        import libp2p.there_is_no_such_module  # noqa: F401 - that it fails is the test
    assert sys.meta_path == before
