"""Combinations that cannot work, and their neighbours that can; `wrong/meaning/` has the rest."""

from __future__ import annotations

import pytest

from appliance.declaration import DeclarationErrors, loads
from appliance.network import Endpoint
from tests.declaration.test_faults import HEAD, PEER_ID, RELAY, lines


def test_nothing_is_said_about_what_leans_on_a_wrong_field() -> None:
    """With the network unknown, its ports are unknown too: no invented collision with 16112."""
    body = "network: mainet\nmetrics: {listen: 127.0.0.1:16112}\n"
    assert [line.split(": ")[1] for line in lines(HEAD + body)] == ["network"]
    # One relay is misspelt: whether the peer has a relay is open.
    body = f"bridge:\n  relays: [nonsense]\n  peers: [{PEER_ID}]\n"
    assert [line.split(": ")[1] for line in lines(HEAD + body)] == ["bridge.relays[0]"]


def test_a_wrong_item_does_not_shift_the_places_of_the_others() -> None:
    body = f"bridge:\n  relays: [{RELAY}]\n  peers:\n    - nobody\n" + f"    - {PEER_ID}\n" * 2
    assert [":".join(line.split(":")[:5]) for line in lines(HEAD + body)] == [
        "f.yaml:7:7: bridge.peers[0]: 'nobody' is not a peer id",
        "f.yaml:9:7: bridge.peers[2]: is the same peer as bridge.peers[0]",
    ]


def test_a_laboratory_may_do_what_the_internet_may_not() -> None:
    body = (
        'bridge:\n  listen: ["127.0.0.1:0"]\n  external: ["127.0.0.1:4001"]\n  relay_mode: on\n'
        "  dial_private: true\n"
    )
    declaration = loads(HEAD + body)
    assert str(declaration.bridge.external[0]) == "127.0.0.1:4001"


def test_both_families_may_share_a_port() -> None:
    loads(HEAD + 'bridge: {listen: ["0.0.0.0:16112", "[::]:16112"]}\n')


def test_a_kaspad_on_another_machine_may_use_any_port() -> None:
    loads(HEAD + "node: {p2p: 192.168.1.20:16112}\n")
    with pytest.raises(DeclarationErrors, match="collide"):
        loads(HEAD + "node: {p2p: 127.0.0.1:16112}\n")


def test_a_kaspad_elsewhere_needs_slots_only_where_it_can_dial_them() -> None:
    head = HEAD + "node: {kind: remote, p2p: 192.168.1.20:16111}\n"
    assert loads(head).node.dial == Endpoint("192.168.1.20", 16111)
    peers = f"  relays: [{RELAY}]\n  peers: [{PEER_ID}]\n"
    assert loads(head + "bridge:\n  slots: 192.168.1.1:16120\n" + peers).bridge.peers
    with pytest.raises(DeclarationErrors, match="cannot dial slots on 127"):
        loads(head + "bridge:\n" + peers)


def test_ports_of_a_kaspad_elsewhere_are_free_here() -> None:
    loads(HEAD + "node: {kind: remote, p2p: 192.168.1.20:9464}\n")


def test_caps_may_be_as_large_as_the_whole() -> None:
    box = loads(
        HEAD + "bridge: {private_inbound_target: 4, per_relay_inbound: 4}\n"
        "caps: {unknown_relay_inbound: 4, relay_circuits: 16, relay_circuits_per_peer: 16}\n"
    )
    assert box.caps.relay_circuits_per_peer == 16
