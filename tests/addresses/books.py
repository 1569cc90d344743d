"""Books on disk for the tests, and what others do to them."""

from __future__ import annotations

import hashlib
import shutil
import textwrap
from pathlib import Path

import pytest

from appliance.addresses.store import AddressBook
from appliance.errors import ApplianceError
from appliance.network import Network
from tests.addresses.peers import heard_from

NET = Network.SIMNET
GOSSIP = heard_from("12.9.9.9")

OPEN = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from appliance.addresses.store import AddressBook
    from appliance.network import Network
    book = AddressBook.open(Path(sys.argv[1]), Network.SIMNET)
    """
)


def data_of(directory: Path) -> dict[str, str]:
    """Every file by its hash, without the lock files."""
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name not in ("owner.lock", "LOCK")
    }


def refusal(directory: Path, network: Network = NET) -> str:
    with pytest.raises(ApplianceError) as caught:
        AddressBook.open(directory, network)
    assert caught.value.hint
    assert "\n" not in caught.value.message
    return caught.value.message


def leave_as_killed(book: AddressBook, place: Path, left: Path) -> None:
    """A copy of an open book, as it would be if its process were killed now."""
    book._store.checkpoint(left)  # the store deletes files as it likes: no plain copy is whole
    for cache in place.glob("tables.cache"):
        shutil.copy(cache, left)
