"""Writes the golden book of version 1, with the program that had that version.

    git archive 0beb608 appliance | tar -x -C /tmp/v1
    cd /tmp/v1 && python …/tests/addresses/golden/make_v1.py v1.tar.gz

The archive holds a closed book of simnet with 40 peers: declared relays, peers that were met, and
gossip; with several addresses, names instead of addresses, IPv6, private networks and failures.
`EXPECTED` in `test_migrations.py` is derived from the same numbers.
"""

from __future__ import annotations

import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

NOW = 1_760_000_000


def peers() -> list[dict[str, Any]]:
    """The fields of each record, as `PeerRecord` takes them."""
    made: list[dict[str, Any]] = []
    for number in range(40):
        ip = f"11.{number}.7.9"
        addresses = [f"/ip4/{ip}/tcp/{16112 + number}"]
        if number % 5 == 0:
            addresses.append(f"/ip6/2a01:4f8::{number + 1:x}/tcp/16112")
        if number % 8 == 0:
            addresses.append(f"/dns4/relay{number}.example/tcp/16112")
        if number % 10 == 9:
            addresses.append(f"/ip4/192.168.7.{number}/tcp/16112")
        made.append(
            {
                "peer_id": f"12D3KooW{number:044d}",
                "addresses": tuple(addresses),
                "relays": ("/ip4/12.0.0.1/tcp/16112/p2p/12D3KooWRelay",) if number % 7 == 3 else (),
                "is_relay": number % 4 == 0,
                "last_seen": NOW + number,
                "last_success": NOW - number if number % 3 == 0 else 0,
                "last_failure": NOW - 5 if number % 6 == 1 else 0,
                "failures": 2 if number % 6 == 1 else 0,
                "source": ("declared", "met", "kaspad", "gossip")[number % 4],
            }
        )
    return made


def main(archive: Path) -> None:
    from appliance.addresses.model import PeerRecord, Source
    from appliance.addresses.store import AddressBook
    from appliance.network import Network

    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch) / "addresses"
        with AddressBook.open(place, Network.SIMNET) as book:
            for fields in peers():
                fields["source"] = Source(fields["source"])
                book.remember(PeerRecord(**fields))
        # What RocksDB needs to open it, without its own log.
        with tarfile.open(archive, "w:gz") as tar:
            for path in sorted(place.iterdir()):
                if not path.name.startswith(("LOG", "LOCK", "owner.lock")):
                    tar.add(path, f"addresses/{path.name}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
