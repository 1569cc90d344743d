"""Files whose every field is well formed, but which cannot work."""

from __future__ import annotations

import pytest

from appliance.declaration import DeclarationErrors, loads
from tests.declaration.test_faults import HEAD, PEER_ID, RELAY, RELAY_ID, lines

OTHER_ID = "12D3KooWRpSM6kNDHh1XRn6FKRxkjUW94nskVm17RpNsEyvZe54X"

IMPOSSIBLE = {
    "relay on loopback": (
        'bridge:\n  listen: ["127.0.0.1:16112"]\n  relay_mode: on',
        "f.yaml:6:15: bridge.relay_mode: 'on' is impossible while bridge.listen is loopback only "
        "(127.0.0.1:16112); bridge.dial_private allows it for a laboratory",
    ),
    "bridge on the node's port": (
        'bridge:\n  listen: ["0.0.0.0:16111"]',
        "f.yaml:5:12: bridge.listen[0]: the bridge on 0.0.0.0:16111 (bridge.listen[0]) and "
        "the node on 127.0.0.1:16111 (node.p2p) collide",
    ),
    "metrics on the bridge's default port": (
        "metrics: {listen: 127.0.0.1:16112}",
        "f.yaml:4:19: metrics.listen: metrics on 127.0.0.1:16112 (metrics.listen) and the "
        "bridge on 0.0.0.0:16112 (bridge.listen[0]) collide",
    ),
    "metrics on the second slot": (
        f"bridge:\n  relays: [{RELAY}]\n  peers: [{PEER_ID}, {OTHER_ID}]\n"
        "metrics: {listen: 127.0.0.1:16121}",
        "f.yaml:7:19: metrics.listen: slot 1 on 127.0.0.1:16121 (bridge.slots) and metrics "
        "on 127.0.0.1:16121 (metrics.listen) collide",
    ),
    "twice the same listener": (
        'bridge:\n  listen: ["0.0.0.0:5000", "127.0.0.1:5000"]',
        "f.yaml:5:28: bridge.listen[1]: the bridge on 127.0.0.1:5000 (bridge.listen[1]) and "
        "the bridge on 0.0.0.0:5000 (bridge.listen[0]) collide",
    ),
    "slots past the last port": (
        f"bridge:\n  relays: [{RELAY}]\n  slots: 127.0.0.1:65535\n  peers: [{PEER_ID}, {OTHER_ID}]",
        "f.yaml:6:10: bridge.slots: 2 slots from port 65535 on run past port 65535",
    ),
    "slots open to strangers": (
        "bridge: {slots: 0.0.0.0:16120}",
        "f.yaml:4:17: bridge.slots: 0.0.0.0 would open the slots to strangers; "
        "use a loopback address",
    ),
    "slot ports that kaspad cannot know": (
        f"bridge:\n  relays: [{RELAY}]\n  slots: 127.0.0.1:0\n  peers: [{PEER_ID}]",
        "f.yaml:6:10: bridge.slots: port 0 leaves the slots' ports open, but kaspad must be told "
        "them by --addpeer",
    ),
    "addpeer with kaspad": (
        "node: {kind: kaspad, addpeer: [203.0.113.9:16111]}",
        "f.yaml:4:31: node.addpeer: only the embedded node takes it; give kaspad itself "
        "--addpeer=203.0.113.9:16111",
    ),
    "connect with kaspad": (
        "node: {connect: [203.0.113.9:16111]}",
        "f.yaml:4:17: node.connect: only the embedded node takes it; give kaspad itself "
        "--connect=203.0.113.9:16111",
    ),
    "kaspad nowhere": (
        "node: {p2p: 0.0.0.0:16111}",
        "f.yaml:4:13: node.p2p: 0.0.0.0:16111 cannot be dialled",
    ),
    "a peer and no relay": (
        f"bridge:\n  peers: [{PEER_ID}]",
        "f.yaml:5:11: bridge.peers[0]: no relay to reach it through: add one to bridge.relays, or "
        "write RELAY/p2p-circuit/p2p/PEERID",
    ),
    "a peer that is the only relay": (
        f"bridge:\n  relays: [{RELAY}]\n  peers: [{RELAY_ID}]",
        "f.yaml:6:11: bridge.peers[0]: is itself the only relay in bridge.relays",
    ),
    "a peer through itself": (
        f"bridge:\n  peers: [{RELAY}/p2p-circuit/p2p/{RELAY_ID}]",
        f"f.yaml:5:11: bridge.peers[0]: '{RELAY}/p2p-circuit/p2p/{RELAY_ID}' reaches a peer "
        "through itself",
    ),
    "the same peer twice": (
        f"bridge:\n  relays: [{RELAY}]\n  peers:\n    - {PEER_ID}\n"
        f"    - {RELAY}/p2p-circuit/p2p/{PEER_ID}",
        "f.yaml:8:7: bridge.peers[1]: is the same peer as bridge.peers[0]",
    ),
    "two owners of one address": (
        f"bridge:\n  relays:\n    - {RELAY}\n    - {RELAY.replace(RELAY_ID, PEER_ID)}",
        "f.yaml:7:7: bridge.relays[1]: 198.51.100.20:16112 already belongs to another peer id, "
        "bridge.relays[0]",
    ),
    "a private external address": (
        "bridge: {external: [192.168.1.5]}",
        "f.yaml:4:21: bridge.external[0]: the internet cannot reach 192.168.1.5, a private "
        "address; bridge.dial_private allows it for a laboratory",
    ),
    "a carrier's shared address": (
        "bridge: {external: [100.64.1.5]}",
        "f.yaml:4:21: bridge.external[0]: the internet cannot reach 100.64.1.5, a private "
        "address; bridge.dial_private allows it for a laboratory",
    ),
    "a synthetic external address": (
        "bridge: {external: [241.0.0.1]}",
        "f.yaml:4:21: bridge.external[0]: nobody can reach 241.0.0.1",
    ),
    "IPv6 outside, IPv4 inside": (
        'bridge: {external: ["2001:db8::7"]}',
        "f.yaml:4:21: bridge.external[0]: 2001:db8::7 is IPv6, but no address of bridge.listen is",
    ),
    "external port of an open listen port": (
        'bridge: {listen: ["0.0.0.0:0"], external: [203.0.113.7]}',
        "f.yaml:4:44: bridge.external[0]: needs a port, since bridge.listen leaves its own open "
        "(port 0)",
    ),
    "more through one relay than in all": (
        "bridge: {private_inbound_target: 4, per_relay_inbound: 5}",
        "f.yaml:4:56: bridge.per_relay_inbound: 5 through one relay is more than the 4 of them all",
    ),
    "a socket path too long for the kernel": (
        f"control: {{socket: /{'a' * 107}}}",
        "f.yaml:4:19: control.socket: 108 bytes; a Unix socket's path has at most 107",
    ),
    "a state directory too deep for its socket": (
        f"state: {{dir: /{'a' * 100}}}",
        "f.yaml:4:14: state.dir: 114 bytes; a Unix socket's path has at most 107",
    ),
    "a socket where the state is": (
        "state: {dir: /srv/box}\ncontrol: {socket: /srv/box}",
        "f.yaml:5:19: control.socket: /srv/box is a directory (state.dir)",
    ),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_an_impossible_combination_is_named_where_it_is_written(name: str) -> None:
    body, expected = IMPOSSIBLE[name]
    assert lines(HEAD + body + "\n") == [expected]


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
