"""A kaspad's database, read from a copy: the source is neither changed nor locked.

Opening RocksDB, even read-only, may write its own log into the directory; a running kaspad may
delete files that a reader wants. So the files are copied first (a few MB; they are only read), and
copied again if the database moved on meanwhile.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from appliance.addresses.kaspad import (
    ADDRESSES,
    BAN_SECONDS,
    BANNED,
    RELAY_SERVICE,
    KaspadAddress,
    UndecodableError,
    address_row,
    ban_row,
)
from appliance.addresses.keys import host_of
from appliance.addresses.model import Added, Origin, RelayClaim, Source
from appliance.addresses.rocks import StoreError, foreign_rows
from appliance.addresses.store import AddressBook
from appliance.errors import ApplianceError
from appliance.network import Network

ATTEMPTS: Final = 5  # to copy a database that is being written
MAX_COPY: Final = 1 << 30  # bytes; a meta database has a few MB
BATCH: Final = 1000
FORGIVEN: Final = 3  # failures after which kaspad itself drops an address


@dataclass(slots=True)
class Imported:
    """What came out of a kaspad's database."""

    source: Path
    layouts: Counter[str] = field(default_factory=Counter)
    undecodable: int = 0
    bans: int = 0
    bans_lapsed: int = 0
    added: int = 0
    known: int = 0
    refused: Counter[str] = field(default_factory=Counter)


def find_meta(directory: Path, network: Network) -> Path:
    """The `meta` database in a kaspad's appdir, or `directory` if it is one itself.

    Raises ApplianceError if there is none, or if its path says another network.
    """
    if (directory / "CURRENT").is_file():
        names = {each.wire_name for each in Network} | {each.value for each in Network}
        said = [part for part in directory.absolute().parts if part in names]
        if said and said[-1] not in (network.wire_name, network.value):
            raise ApplianceError(
                f"{directory} is of the network {said[-1]}, the address book of {network.value}",
                hint="name the database of the same network",
            )
        return directory
    for name in (network.wire_name, network.value):
        found = directory / name / "datadir" / "meta"
        if (found / "CURRENT").is_file():
            return found
    raise ApplianceError(
        f"{directory} has no kaspad database of the network {network.value}",
        hint=f"name kaspad's --appdir, or its {network.wire_name}/datadir/meta",
    )


def import_kaspad(book: AddressBook, meta: Path, now: float) -> Imported:
    """Read the database at `meta` into the book. Raises ApplianceError if it cannot be read.

    What a kaspad claims of relays is as good as gossip; its bans hold for the rest of their day.
    """
    report = Imported(meta)
    origin = Origin(Source.KASPAD, "kaspad")
    with tempfile.TemporaryDirectory(prefix="kaspad-meta-") as scratch:
        copy = _copied(meta, Path(scratch))
        claims: list[RelayClaim] = []
        try:
            for prefix, key, value in foreign_rows(copy, (BANNED, ADDRESSES)):
                if prefix == BANNED:
                    _ban(book, key, value, now, report)
                elif (found := _decoded(key, value, report)) is not None:
                    claims.append(_claim(found))
                if len(claims) == BATCH:
                    _learn(book, claims, origin, now, report)
            _learn(book, claims, origin, now, report)
        except StoreError as error:
            raise ApplianceError(f"the database {meta} cannot be read: {error}") from None
    return report


def _decoded(key: bytes, value: bytes, report: Imported) -> KaspadAddress | None:
    try:
        found = address_row(key, value)
    except UndecodableError:
        report.undecodable += 1
        return None
    report.layouts[found.layout] += 1
    if found.failures > FORGIVEN:
        report.refused["failing"] += 1
        return None
    return found


def _claim(found: KaspadAddress) -> RelayClaim:
    relays = bool(found.services & RELAY_SERVICE)
    return RelayClaim(
        found.address,
        relay_port=found.relay_port if relays else 0,
        capacity=found.relay_capacity,
        ttl=found.relay_ttl_ms // 1000,
        role=found.relay_role,
        peer_id=found.peer_id,
        hint=found.hint,
    )


def _learn(
    book: AddressBook, claims: list[RelayClaim], origin: Origin, now: float, report: Imported
) -> None:
    tally: Added = book.learn_claims(claims, origin, now)
    claims.clear()
    report.added += tally.added
    report.known += tally.known
    for name in ("not_routable", "banned", "over_quota", "crowded_out"):
        if count := getattr(tally, name):
            report.refused[name.replace("_", " ")] += count


def _ban(book: AddressBook, key: bytes, value: bytes, now: float, report: Imported) -> None:
    try:
        octets, since = ban_row(key, value)
    except UndecodableError:
        report.undecodable += 1
        return
    if since + BAN_SECONDS <= now:
        report.bans_lapsed += 1
        return
    book.ban_ip(host_of(octets), min(since, now) + BAN_SECONDS, "banned by kaspad")
    report.bans += 1


def _copied(meta: Path, scratch: Path) -> Path:
    for attempt in range(ATTEMPTS):
        copy = scratch / str(attempt)
        copy.mkdir()
        try:
            before = _state(meta)
            # The manifest first, the log last: what is missing in one is in what comes after it.
            for path in sorted(_files(meta), key=_order):
                shutil.copyfile(path, copy / path.name)
            if _state(meta) == before:
                return copy
        except FileNotFoundError:
            pass  # kaspad compacted: its manifest has changed with it
        except OSError as error:
            raise ApplianceError(
                f"the database {meta} cannot be copied: {error.strerror}",
                hint="run this as the user that kaspad runs as, or as root",
            ) from None
        shutil.rmtree(copy)
    raise ApplianceError(
        f"the database {meta} changed {ATTEMPTS} times while it was copied",
        hint="try again, or stop kaspad for a moment",
    )


def _files(meta: Path) -> Iterator[Path]:
    size = 0
    for path in meta.iterdir():
        if (
            path.name == "CURRENT"
            or path.suffix in (".sst", ".log", ".blob")
            or (path.name.startswith("MANIFEST-"))
        ):
            size += path.stat().st_size
            if size > MAX_COPY:
                raise ApplianceError(f"{meta} is too large for a kaspad's meta database")
            yield path


def _order(path: Path) -> tuple[int, str]:
    if path.name == "CURRENT":
        return 0, ""
    if path.name.startswith("MANIFEST-"):
        return 1, path.name
    return (3 if path.suffix == ".log" else 2), path.name


def _state(meta: Path) -> tuple[bytes, int]:
    """What changes whenever a table comes or goes."""
    current = (meta / "CURRENT").read_bytes()
    name = current.decode("ascii", "replace").strip()
    return current, (meta / Path(name).name).stat().st_size
