"""The disk's side of the address book: `HeldBook` opens, writes, syncs and closes it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

from appliance.addresses import snapshots
from appliance.addresses.bans import Bans
from appliance.addresses.capabilities import Capabilities
from appliance.addresses.examining import corrupt
from appliance.addresses.opening import Opened, Progress, open_book
from appliance.addresses.options import StoreOptions
from appliance.addresses.rocks import Change, StoreError
from appliance.addresses.snapshots import Snapshot, forget_notes, identity_of, mark
from appliance.addresses.systems import AutonomousSystems
from appliance.addresses.values import HEAD, address_tail, with_core
from appliance.errors import ApplianceError
from appliance.network import Network


def _in_silence(_what: str, _done: int) -> None:
    """Nobody watches."""


class HeldBook:
    """Tables in memory and the store behind them; `AddressBook` says what is done with them."""

    def __init__(self, directory: Path, options: StoreOptions, opened: Opened) -> None:
        """Use `open`."""
        self._directory = directory
        self._options = options
        self._lock = opened.lock
        self._store = opened.store
        self._tables = opened.tables
        self._notes = opened.notes
        self._caps = Capabilities(opened.store, opened.tables)
        self._bans = Bans(opened.store.items("bans"), max(64, min(16_384, options.entries // 4)))
        self._closed = False
        self._whole = True  # what memory holds is what the disk holds
        self.damaged = opened.damaged
        """Rows met since opening that could not be read; they are skipped."""

    @classmethod
    def open(
        cls,
        directory: Path,
        network: Network,
        options: StoreOptions | None = None,
        *,
        allow_private: bool = False,
        systems: AutonomousSystems | None = None,
        progress: Progress = _in_silence,
    ) -> Self:
        """The book at `directory`, a new one if there is none. Blocks on the disk.

        A book of an older version is migrated, after a checkpoint beside it. `allow_private`: take
        addresses of private networks from strangers too, for laboratories; `systems`: what counts
        as one network, instead of prefixes. Raises ApplianceError,
        with the store untouched, if it is corrupt, of another network or a newer version, in use
        by another process, or cannot be written.
        """
        options = options or StoreOptions()
        opened = open_book(
            directory,
            network,
            options,
            allow_private=allow_private,
            systems=systems,
            progress=progress,
        )
        try:
            return cls(directory, options, opened)
        except StoreError as error:
            opened.store.close()
            os.close(opened.lock)
            raise corrupt(directory, str(error)) from None

    def __len__(self) -> int:
        return len(self._tables)

    def __contains__(self, address: object) -> bool:
        return isinstance(address, bytes) and self._tables.find(address) >= 0

    @property
    def memory_bytes(self) -> int:
        """Of the tables; RocksDB's caches come on top (`StoreOptions`)."""
        return self._tables.memory_bytes

    # --- the disk

    def sync(self) -> None:
        """Wait until the disk has everything. Blocks; in a thread, beside calls of the others."""
        with self._reporting("written"):
            self._store.sync()

    def snapshot(self) -> Snapshot | None:
        """The tables, if they are many and much has changed since they were last written, for a
        thread to write: a crash after that costs the next opening no time. Then call `kept`."""
        many = len(self._tables) >= snapshots.CACHED_FROM
        due = many and self._notes.are_many(len(self._tables))
        return self._snapshot() if due and self._whole and not self._closed else None

    def kept(self, snapshot: Snapshot) -> None:
        """It was written: what changed before it need not be noted any longer."""
        self._notes.stands = True
        with self._reporting("written"):
            forget_notes(self._store, before=snapshot.first)

    def _snapshot(self, *, synced: bool = False) -> Snapshot:
        tables, notes = self._tables, self._notes
        first = notes.begin_anew()
        with self._reporting("written"):
            mark(self._store, first)
            sequence = self._store.sequence()
        return Snapshot(
            self._directory,
            self._store,
            sequence,
            first,
            identity_of(tables),
            tables.dump(),
            synced=synced,
        )

    def close(self) -> None:
        """Flush and release the store, for others to open. Blocks on the disk. Idempotent."""
        if self._closed:
            return
        self._closed = True
        try:
            with self._reporting("closed"):
                last = self._snapshot(synced=True) if self._is_worth_keeping else None
                self._store.close()
            if last is not None:
                # Without it the next opening only takes longer.
                with contextlib.suppress(OSError):
                    last.write()
        finally:
            os.close(self._lock)

    @property
    def _is_worth_keeping(self) -> bool:
        changed = not self._notes.stands or self._notes.keys > 0
        return self._whole and changed and len(self._tables) >= snapshots.CACHED_FROM

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _rows(self, keys: Sequence[bytes]) -> list[Change]:
        """The rows of addresses as the tables have them now; of those that left, the deletion."""
        changes: list[Change] = []
        for key in keys:
            row = self._tables.find(key)
            if row < 0:
                self._caps.forget(key, changes)
                continue
            with self._reporting("read"):
                value = self._store.get("addresses", key)
            core = self._tables.core(row)
            tail = HEAD + core + address_tail("?", self._tables.heard[row])
            changes.append(("addresses", key, with_core(value, core) if value else tail))
        return changes

    def _write(self, changes: list[Change]) -> None:
        if changes:
            keys = [key for family, key, _ in changes if family == "addresses"]
            with self._reporting("written"):
                self._store.write([*changes, *self._notes.about(keys)])

    @contextlib.contextmanager
    def _reporting(self, what: str) -> Iterator[None]:
        try:
            yield
        except StoreError as error:
            self._whole = False
            raise ApplianceError(
                f"the address book {self._directory} cannot be {what}: {error}",
                hint="is the disk full, or failing?",
            ) from None
