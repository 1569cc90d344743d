"""An appliance whose file names neither a relay nor a peer: its address book knows of them."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from appliance.addresses.keys import pack, synthetic
from appliance.addresses.model import Origin, RelayClaim, RelayRole, Source
from appliance.addresses.store import AddressBook
from appliance.network import Endpoint, Network
from tests.app.processes import Running, declaration, peer_id, running, written

GOSSIP = Origin(Source.GOSSIP, "203.0.113.9")


def told(state: Path, claims: list[RelayClaim]) -> None:
    """As if gossip had told it, before it starts."""
    with AddressBook.open(state / "addresses", Network.SIMNET, allow_private=True) as book:
        book.learn_claims(claims, GOSSIP, time.time())
        assert book.counts()["entries"] == len(claims)


def private_home(directory: Path, name: str) -> dict[str, Any]:
    return declaration(directory, name, bridge={"slots": "127.0.0.1:0"})


def relay_at(process: Running) -> Endpoint:
    return Endpoint.parse(process.wait("ready")["listen"][0])


def test_relays_and_peers_are_found_in_the_book(tmp_path: Path) -> None:
    with ExitStack() as stack:
        relay_file = declaration(tmp_path, "relay", bridge={"relay_mode": "on"})
        relay_id = peer_id(relay_file)
        relay = stack.enter_context(running(written(tmp_path, relay_file)))
        at = relay_at(relay)
        # As relay-capable kaspads gossip: the relay's port beside the node's, and no peer id.
        claim = RelayClaim(
            pack(Endpoint(at.host, at.port - 1)), relay_port=at.port, role=RelayRole.PUBLIC
        )
        b_file = private_home(tmp_path, "b")
        b_id = peer_id(b_file)
        told(tmp_path / "b.state", [claim])
        b = stack.enter_context(running(written(tmp_path, b_file)))
        assert b.wait("reservation_made")["relay"] == relay_id
        [reserved] = b.status()["reservations"]
        assert (reserved["relay"], reserved["origin"]) == (relay_id, "book")

        hint = RelayClaim(
            synthetic(b_id), role=RelayRole.PRIVATE, peer_id=b_id, hint=f"{at.host}:{at.port}"
        )
        a_file = private_home(tmp_path, "a")
        peer_id(a_file)
        told(tmp_path / "a.state", [hint])
        a = stack.enter_context(running(written(tmp_path, a_file)))
        a.wait("kaspa_handshake", direction="outbound")
        b.wait("kaspa_handshake", direction="inbound")
        status = a.status()
        [stream] = status["outbound"]
        assert (stream["peer"], stream["path"]) == (b_id, "direct")
        [slot] = [slot for slot in status["slots"] if slot["peer"]]
        assert (slot["peer"], slot["origin"], slot["state"]) == (b_id, "book", "open")
        assert slot["relay"] == str(at)
        vacant = [slot for slot in status["slots"] if not slot["peer"]]
        assert len(vacant) == 7
        assert {slot["state"] for slot in vacant} == {"vacant"}

        # What the reservation proved stays in the book.
        assert b.end() == 0 and a.end() == 0
        assert "Traceback" not in a.errors + b.errors
        with AddressBook.open(tmp_path / "b.state" / "addresses", Network.SIMNET) as book:
            proven = book.capability(claim.address, time.time())
            assert proven is not None and proven.confirmed


def test_with_discovery_off_nothing_but_the_file_counts(tmp_path: Path) -> None:
    file = private_home(tmp_path, "alone") | {"discovery": {"enabled": False}}
    peer_id(file)
    claim = RelayClaim(pack(Endpoint("127.0.0.1", 1)), relay_port=2, role=RelayRole.PUBLIC)
    told(tmp_path / "alone.state", [claim])
    with running(written(tmp_path, file)) as alone:
        time.sleep(1)
        status = alone.status()
        assert status["slots"] == status["reservations"] == []
        assert not alone.events("relay_kept")
