"""Writes the golden book of version 2.

.venv/bin/python -m tests.addresses.golden.make_v2 tests/addresses/golden/v2.tar.gz
"""

from __future__ import annotations

import sys
import tarfile
import tempfile
from pathlib import Path

from appliance.addresses.keys import synthetic
from appliance.addresses.model import PeerRecord, RelayClaim, RelayRole, Source
from appliance.addresses.store import AddressBook
from appliance.network import Network
from tests.addresses.peers import DAY, NOW, heard_from, key, peer_id, relay_claim, signed


def fill(book: AddressBook) -> None:
    """What the tests look for in the book again."""
    book.add([key(f"{11 + n}.0.0.1") for n in range(30)], heard_from("99.1.1.1"), NOW)
    book.add([key("2a01:4f8::1")], heard_from("99.2.1.1"), NOW)
    book.record_success(key("11.0.0.1"), NOW + 1)
    book.record_failure(key("12.0.0.1"), NOW + 2)
    book.learn_claims([relay_claim(key("13.0.0.1"), capacity=7)], heard_from("99.3.1.1"), NOW)
    book.learn_signed(signed(1, key("14.0.0.1", 16112)), heard_from("99.4.1.1"), NOW)
    book.confirm_relay(key("13.0.0.1"), peer_id(2), NOW + 3)
    private = RelayClaim(
        synthetic(peer_id(3)),
        role=RelayRole.PRIVATE,
        peer_id=peer_id(3),
        hint=f"/ip4/14.0.0.1/tcp/16112/p2p/{peer_id(1)}",
    )
    book.learn_claims([private], heard_from("99.5.1.1"), NOW)
    declared = PeerRecord(
        peer_id(4), ("/ip4/10.0.0.9/tcp/16112",), (), True, NOW, source=Source.DECLARED
    )
    book.remember(declared)
    book.ban_ip("15.0.0.1", NOW + DAY, "lies")
    book.ban_peer(peer_id(5), NOW + DAY)


def main(archive: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch) / "addresses"
        with AddressBook.open(place, Network.SIMNET) as book:
            fill(book)
        with tarfile.open(archive, "w:gz") as tar:
            for path in sorted(place.iterdir()):
                if not path.name.startswith(("LOG", "LOCK", "owner.lock")):
                    tar.add(path, f"addresses/{path.name}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
