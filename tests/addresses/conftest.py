"""A book that every module may start from."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.addresses.store import AddressBook
from tests.addresses.books import GOSSIP, NET
from tests.addresses.peers import NOW, key


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where a book with 100 addresses was closed."""
    directory = tmp_path / "book"
    with AddressBook.open(directory, NET) as book:
        for number in range(0, 100, 20):
            keys = [key(f"{11 + n}.0.0.1") for n in range(number, number + 20)]
            book.add([k for k in keys if k[12] not in (100, 101, 102)], GOSSIP, NOW)
    return directory
