"""A book's directory before it is opened: its lock, what it says of itself, why it is refused.

It is looked at read-only; a book that we refuse is left untouched.
"""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from appliance.addresses.migrations import SCHEMA, SCHEMA_KEY, UNDER_WAY
from appliance.addresses.options import MAX_ENTRIES, MIN_ENTRIES, StoreOptions
from appliance.addresses.rocks import Store, StoreError
from appliance.errors import ApplianceError
from appliance.network import Network

SECRET: Final = b"secret"
GEOMETRY: Final = b"geometry"
ENTRIES: Final = b"entries"
NETWORK_KEY: Final = b"network"

_LOCK: Final = "owner.lock"


@dataclass(frozen=True, slots=True)
class Examined:
    schema: int
    under_way: int  # the version a migration came from; 0: none


def own(directory: Path) -> int:
    """Make the directory if need be and lock it; the lock's descriptor. Dies with the process."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except (FileExistsError, NotADirectoryError):
        raise ApplianceError(
            f"the address book's place {directory} is not a directory",
            hint="move the file away, or set state.dir to another place",
        ) from None
    except OSError as error:
        raise ApplianceError(
            f"the address book's directory {directory} cannot be written: {error.strerror}",
            hint="give it to the user that runs the appliance, or set state.dir to another place",
        ) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise in_use(directory) from None
    return lock


def in_use(directory: Path) -> ApplianceError:
    return ApplianceError(
        f"the address book {directory} is in use by another process",
        hint="stop the other appliance, or set state.dir to another place",
    )


def corrupt(directory: Path, detail: str) -> ApplianceError:
    return ApplianceError(
        f"the address book {directory} is corrupt: {detail}",
        hint=f"move {directory} away to start with an empty book; nothing in it was changed",
    )


def to_read(directory: Path, options: StoreOptions) -> Store | None:
    """The store, in which nothing is changed; None if there is none yet."""
    if not (directory / "CURRENT").exists():
        left_over = [p.name for p in directory.iterdir() if _is_after_creation(p.name)]
        if left_over:
            raise corrupt(directory, f"CURRENT is missing beside {min(left_over)}")
        return None
    try:
        return Store(directory, options, mode="read")
    except StoreError as error:
        raise corrupt(directory, str(error)) from None


def examine(directory: Path, store: Store, network: Network) -> Examined | None:
    """Whether it is a book that we can use; None if nothing is in it yet. Raises StoreError."""
    if store.is_foreign():
        raise ApplianceError(
            f"the store at {directory} is not an address book of an appliance",
            hint="set state.dir to another place",
        )
    schema, under_way = store.get("metadata", SCHEMA_KEY), store.get("metadata", UNDER_WAY)
    found = store.get("metadata", NETWORK_KEY)
    if schema is None and found is None:
        # A process was killed while it created the store: nothing is in it yet. Opening it would
        # delete tables that the store's manifest does not name.
        if any(_is_table(path.name) for path in directory.iterdir()):
            raise corrupt(directory, "it has tables but says no version")
        return None
    return Examined(
        check_metadata(directory, network, schema, found),
        int(under_way) if under_way is not None and under_way.isdigit() else 0,
    )


def check_metadata(
    directory: Path, network: Network | None, schema: bytes | None, found: bytes | None
) -> int:
    """The schema. Raises ApplianceError if the book is not one that we can use."""
    if schema is None or not (schema.isdigit() and 0 < len(schema) < 10):
        raise corrupt(directory, "its version cannot be read")
    if int(schema) > SCHEMA:
        raise ApplianceError(
            f"the address book {directory} was written by a newer appliance "
            f"(schema {int(schema)}, we know {SCHEMA})",
            hint="update the appliance, or set state.dir to another place",
        )
    if int(schema) < 1:
        raise corrupt(directory, "its version cannot be read")
    name = (found or b"?").decode("ascii", "replace")
    if network is not None and name != network.value:
        raise ApplianceError(
            f"the address book {directory} is of the network {name}, not {network.value}",
            hint="give every network its own state.dir",
        )
    return int(schema)


@dataclass(frozen=True, slots=True)
class BookIdentity:
    """What a closed book says of itself."""

    network: Network
    entries: int


def identity_of(directory: Path) -> BookIdentity | None:
    """Of which network and size a book is; None if there is none. Raises ApplianceError."""
    if not (directory / "CURRENT").exists():
        return None
    try:
        store = Store(directory, mode="read")
        try:
            name = store.get("metadata", NETWORK_KEY)
            entries = store.get("metadata", ENTRIES) or b""
        finally:
            store.close()
    except StoreError as error:
        raise corrupt(directory, str(error)) from None
    if name is None:
        return None
    try:
        network = Network(name.decode("ascii", "replace"))
    except ValueError:
        raise corrupt(directory, "it is of no network that we know") from None
    known = entries.isdigit() and MIN_ENTRIES <= int(entries) <= MAX_ENTRIES
    return BookIdentity(network, int(entries) if known else StoreOptions().entries)


def _is_table(name: str) -> bool:
    return name.endswith(".sst")


def _is_after_creation(name: str) -> bool:
    # RocksDB writes these only after CURRENT: without it they are not a creation cut short.
    return name.startswith("OPTIONS-") or _is_table(name)
