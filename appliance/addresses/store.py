"""The address book on disk: `AddressBook`."""

from __future__ import annotations

import contextlib
import fcntl
import heapq
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Self

from appliance.addresses.codec import CodecError, decode, encode
from appliance.addresses.model import PeerRecord, Worth, failed, merged, succeeded, worth
from appliance.addresses.rocks import Store, StoreError
from appliance.errors import ApplianceError
from appliance.network import Network

SCHEMA_VERSION: Final = 1
MAX_ENTRIES: Final = 4096  # as kaspad's own address book

_LOCK: Final = "owner.lock"
_SCHEMA: Final = b"schema"
_NETWORK: Final = b"network"


class AddressBook:
    """Peers of one network, at most `MAX_ENTRIES`; the worst goes when a better one comes.

    All methods are synchronous, and one thread at a time may call them. `open` and `close` block
    on the disk: run them in a thread. The others take microseconds (a read from the cache, an
    append to the log) and are meant for the event loop; a full or dying disk raises ApplianceError.
    A process that is killed loses nothing it was told; a loss of power may cost the last seconds.
    """

    def __init__(self, directory: Path, store: Store, lock: int, peers: dict[str, Worth]) -> None:
        """Use `open`."""
        self._directory = directory
        self._store = store
        self._lock = lock
        self._peers = peers
        self._closed = False
        self.damaged = 0
        """Rows met since opening that could not be read as a record; they are skipped."""

    @classmethod
    def open(cls, directory: Path, network: Network) -> AddressBook:
        """The book at `directory`, a new one if there is none. Blocks on the disk.

        Raises ApplianceError, with the store untouched, if it is corrupt, of another network or a
        newer version, in use by another process, or cannot be written.
        """
        lock = _own(directory)
        try:
            peers, damaged = _examine(directory, network)
            store = _open_for_writing(directory, network)
        except BaseException:
            os.close(lock)
            raise
        book = cls(directory, store, lock, peers)
        book.damaged = damaged
        surplus = heapq.nsmallest(len(peers) - MAX_ENTRIES, peers, key=peers.__getitem__)
        if surplus:
            book._write(dict.fromkeys(surplus))
        return book

    def __len__(self) -> int:
        return len(self._peers)

    def __contains__(self, peer_id: object) -> bool:
        return peer_id in self._peers

    def remember(self, record: PeerRecord) -> bool:
        """Merge `record` into the book; False if the book is full of better ones."""
        known = self.get(record.peer_id)
        if known is not None:
            record = merged(known, record)
        changes: dict[str, PeerRecord | None] = {record.peer_id: record}
        if known is None and len(self._peers) >= MAX_ENTRIES:
            worst = min(self._peers, key=self._peers.__getitem__)
            if worth(record) <= self._peers[worst]:
                return False
            changes[worst] = None
        self._write(changes)
        return True

    def forget(self, peer_id: str) -> bool:
        """Remove a peer; False if it was not there."""
        if peer_id not in self._peers:
            return False
        self._write({peer_id: None})
        return True

    def record_success(self, peer_id: str, now: float) -> PeerRecord | None:
        """We reached the peer at `now`, Unix seconds. Its new record; None if we do not know it."""
        return self._update(peer_id, lambda record: succeeded(record, int(now)))

    def record_failure(self, peer_id: str, now: float) -> PeerRecord | None:
        """We tried in vain at `now`, Unix seconds. Its new record; None if we do not know it."""
        return self._update(peer_id, lambda record: failed(record, int(now)))

    def get(self, peer_id: str) -> PeerRecord | None:
        """What we know of a peer."""
        if peer_id not in self._peers:
            return None
        with self._reporting("read"):
            value = self._store.get("addresses", peer_id.encode("ascii"))
        return None if value is None else self._decoded(peer_id, value)

    def relays(self, limit: int = 64) -> Iterator[PeerRecord]:
        """At most `limit` peers that can serve as relays, best first."""
        return self._best_first(limit, lambda value: value.is_relay)

    def records(self, limit: int = MAX_ENTRIES) -> Iterator[PeerRecord]:
        """At most `limit` peers, best first."""
        return self._best_first(limit, lambda _: True)

    def close(self) -> None:
        """Flush and release the store, for others to open. Blocks on the disk. Idempotent."""
        if self._closed:
            return
        self._closed = True
        try:
            with self._reporting("closed"):
                self._store.close()
        finally:
            os.close(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _update(
        self, peer_id: str, change: Callable[[PeerRecord], PeerRecord]
    ) -> PeerRecord | None:
        known = self.get(peer_id)
        if known is None:
            return None
        record = change(known)
        self._write({peer_id: record})
        return record

    def _best_first(self, limit: int, keep: Callable[[Worth], bool]) -> Iterator[PeerRecord]:
        kept = (peer_id for peer_id, value in self._peers.items() if keep(value))
        for peer_id in heapq.nlargest(limit, kept, key=self._peers.__getitem__):
            if record := self.get(peer_id):  # it may have gone since the loop began
                yield record

    def _write(self, changes: dict[str, PeerRecord | None]) -> None:
        rows = {
            peer_id.encode("ascii"): None if record is None else encode(record)
            for peer_id, record in changes.items()
        }
        with self._reporting("written"):
            self._store.write("addresses", rows)
        for peer_id, record in changes.items():
            if record is None:
                del self._peers[peer_id]
            else:
                self._peers[peer_id] = worth(record)

    def _decoded(self, peer_id: str, value: bytes) -> PeerRecord | None:
        try:
            return decode(peer_id.encode("ascii"), value)
        except CodecError:
            self.damaged += 1
            return None

    @contextlib.contextmanager
    def _reporting(self, what: str) -> Iterator[None]:
        try:
            yield
        except StoreError as error:
            raise ApplianceError(
                f"the address book {self._directory} cannot be {what}: {error}",
                hint="is the disk full, or failing?",
            ) from None


def _own(directory: Path) -> int:
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
        raise _in_use(directory) from None
    return lock


def _in_use(directory: Path) -> ApplianceError:
    return ApplianceError(
        f"the address book {directory} is in use by another process",
        hint="stop the other appliance, or set state.dir to another place",
    )


def _corrupt(directory: Path, detail: str) -> ApplianceError:
    return ApplianceError(
        f"the address book {directory} is corrupt: {detail}",
        hint=f"move {directory} away to start with an empty book; nothing in it was changed",
    )


def _examine(directory: Path, network: Network) -> tuple[dict[str, Worth], int]:
    """Read the whole store without changing it: what each peer is worth, and the rows unreadable.

    Everything is read so that each block's checksum is looked at before anything is written.
    """
    if not (directory / "CURRENT").exists():
        left_over = [p.name for p in directory.iterdir() if _is_after_creation(p.name)]
        if left_over:
            raise _corrupt(directory, f"CURRENT is missing beside {min(left_over)}")
        return {}, 0
    peers: dict[str, Worth] = {}
    damaged = 0
    try:
        store = Store(directory, read_only=True)
        try:
            if store.is_foreign():
                raise ApplianceError(
                    f"the store at {directory} is not an address book of an appliance",
                    hint="set state.dir to another place",
                )
            schema, found = store.get("metadata", _SCHEMA), store.get("metadata", _NETWORK)
            _check_metadata(directory, network, schema, found)
            if schema is None and any(_is_table(path.name) for path in directory.iterdir()):
                # Opening would delete tables that the store's manifest does not name.
                raise _corrupt(directory, "it has tables but says no version")
            for key, value in store.items("addresses"):
                try:
                    record = decode(key, value)
                except CodecError:
                    damaged += 1
                    continue
                peers[record.peer_id] = worth(record)
        finally:
            store.close()
    except StoreError as error:
        raise _corrupt(directory, str(error)) from None
    return peers, damaged


def _is_table(name: str) -> bool:
    return name.endswith(".sst")


def _is_after_creation(name: str) -> bool:
    # RocksDB writes these only after CURRENT: without it they are not a creation cut short.
    return name.startswith("OPTIONS-") or _is_table(name)


def _check_metadata(
    directory: Path, network: Network, schema: bytes | None, found: bytes | None
) -> None:
    """Both missing: a process was killed while it created the store; nothing is in it yet."""
    if schema is None and found is None:
        return
    if schema is None or not (schema.isdigit() and len(schema) < 10):
        raise _corrupt(directory, "its version cannot be read")
    if int(schema) > SCHEMA_VERSION:
        raise ApplianceError(
            f"the address book {directory} was written by a newer appliance "
            f"(schema {int(schema)}, we know {SCHEMA_VERSION})",
            hint="update the appliance, or set state.dir to another place",
        )
    if found != network.value.encode("ascii"):
        name = (found or b"?").decode("ascii", "replace")
        raise ApplianceError(
            f"the address book {directory} is of the network {name}, not {network.value}",
            hint="give every network its own state.dir",
        )


def _open_for_writing(directory: Path, network: Network) -> Store:
    try:
        store = Store(directory)
        try:
            if store.get("metadata", _SCHEMA) is None:
                marks = {
                    _SCHEMA: str(SCHEMA_VERSION).encode("ascii"),
                    _NETWORK: network.value.encode("ascii"),
                }
                store.write("metadata", marks, sync=True)
        except BaseException:
            store.close()
            raise
    except StoreError as error:
        if error.locked:
            raise _in_use(directory) from None
        raise ApplianceError(
            f"the address book {directory} cannot be opened: {error}",
            hint="is the disk full, or mounted read-only?",
        ) from None
    return store
