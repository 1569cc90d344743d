"""libp2p without what we never use of it (docs/adr/0006).

`import libp2p.peer.id` first runs `libp2p/__init__.py`, which imports all that the library has:
QUIC, mDNS, TLS, websockets, HTTP clients. In the block of `lean()` a package of libp2p is imported
without its `__init__`, which runs once somebody asks the package for a name or, outside the block,
for another module. So nobody finds a broken library: `libp2p.new_host()` works as ever, and only
then costs what it costs.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Final

LIBRARY: Final = "libp2p"

# libp2p.custom_types names QUICStream in one annotation, and that alone brings in a QUIC stack. The
# module of QUICStream knows how to do without; the copy that did so is forgotten after the block.
_ABSENT: Final = "aioquic"
_FORGOTTEN: Final = "libp2p.transport.quic.stream"


@contextmanager
def lean() -> Iterator[None]:
    """Import submodules of libp2p in this block; what is already imported stays as it is.

    Ask no package for a name in it (`from libp2p import new_host`): that runs its `__init__`, and
    fails in here if it needs QUIC.
    """
    finder = _LeanFinder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        if finder.withheld:
            _forget(_FORGOTTEN)


class _LeanFinder(MetaPathFinder):
    """Finds what the interpreter's own finder finds, but postpones libp2p's packages."""

    def __init__(self) -> None:
        self.withheld = False

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == _ABSENT:
            self.withheld = True
            raise ModuleNotFoundError(f"{fullname} is kept out by {__name__}", name=fullname)
        if fullname.partition(".")[0] != LIBRARY:
            return None
        spec = PathFinder.find_spec(fullname, path)
        if spec is not None and spec.loader is not None and spec.submodule_search_locations:
            spec.loader = _PostponingLoader(spec.loader)
        return spec


class _PostponingLoader(Loader):
    """Makes the module as `real` would, and leaves running its code to the module."""

    def __init__(self, real: Loader) -> None:
        self._real = real

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._real.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self._real
        del module.__path__
        module.__class__ = PostponedPackage


class PostponedPackage(ModuleType):
    """A package whose own code runs when something of it is missed, after that of its parents.

    To import another of its modules is to miss its path: only the block of `lean()` does without.
    """

    def __getattr__(self, name: str) -> object:
        spec = self.__spec__
        assert spec is not None
        assert spec.loader is not None
        where = spec.submodule_search_locations
        assert where is not None
        if name == "__path__" and any(isinstance(finder, _LeanFinder) for finder in sys.meta_path):
            return where
        parent = self.__name__.rpartition(".")[0]
        if parent:
            _ = sys.modules[parent].__path__
        if type(self) is PostponedPackage:  # its parents' code may have run it
            # An ordinary module from here on: what is missing while its code runs, is missing.
            self.__class__ = ModuleType  # type: ignore[assignment]  # typeshed: its own class only
            self.__path__ = where
            try:
                spec.loader.exec_module(self)
            except BaseException:  # whatever its code raised: who asks next runs it again
                del self.__path__
                self.__class__ = PostponedPackage
                raise
        return getattr(self, name)


def _forget(fullname: str) -> None:
    """Whoever imports this module next gets a new one."""
    parent, _, child = fullname.rpartition(".")
    sys.modules.pop(fullname, None)
    if parent in sys.modules:
        vars(sys.modules[parent]).pop(child, None)
