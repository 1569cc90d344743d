"""The flags of `run`: what each overrides, and how a wrong one is named."""

from __future__ import annotations

import argparse

import pytest

from appliance.declaration import Declaration, loads
from appliance.declaration.flags import add_run_flags, apply_run_flags
from appliance.declaration.wishes import wishes
from appliance.errors import ApplianceError
from tests.declaration.test_faults import HEAD

KASPAD = loads(HEAD)
EMBEDDED = loads(HEAD + "node: {kind: embedded, addpeer: [203.0.113.1:16111]}\n")


def run(declaration: Declaration, *flags: str) -> Declaration:
    parser = argparse.ArgumentParser(prog="appliance run")
    add_run_flags(parser)
    return apply_run_flags(declaration, parser.parse_args(flags))


def test_no_flags_change_nothing() -> None:
    assert run(KASPAD) == KASPAD


def test_the_relay_flags() -> None:
    changed = run(
        KASPAD,
        "--libp2p-relay-mode=on",
        "--libp2p-relay-port=4001",
        "--libp2p-private-inbound-target=16",
        "--libp2p-relay-inbound-cap=2",
        "--libp2p-relay-inbound-unknown-cap=3",
    )
    assert changed.bridge.relay_mode == "on"
    assert [str(endpoint) for endpoint in changed.bridge.listen] == ["0.0.0.0:4001"]
    assert changed.bridge.private_inbound_target == 16
    assert changed.bridge.per_relay_inbound == 2
    assert changed.caps.unknown_relay_inbound == 3
    assert wishes(changed).caps == {
        "inbound_private": 16,
        "per_relay_inbound": 2,
        "unknown_relay_inbound": 3,
    }


def test_external_addresses_replace_the_declared_ones_and_follow_the_port() -> None:
    declared = loads(HEAD + "bridge: {external: [203.0.113.7]}\n")
    changed = run(
        declared,
        "--externalip=203.0.113.8",
        "--externalip=203.0.113.9:80",
        "--libp2p-relay-port=4001",
    )
    assert list(map(str, changed.bridge.external)) == ["203.0.113.8:4001", "203.0.113.9:80"]


def test_listen_is_where_the_node_listens() -> None:
    changed = run(EMBEDDED, "--listen=198.51.100.4:16111")
    assert str(changed.node.p2p) == "198.51.100.4:16111"
    assert str(run(EMBEDDED, "--listen=0.0.0.0").node.p2p) == "0.0.0.0:16111"
    # A kaspad that listens everywhere is dialled by loopback.
    assert str(run(KASPAD, "--listen=0.0.0.0:17000").node.p2p) == "127.0.0.1:17000"


def test_listen_is_where_a_remote_kaspad_is_found() -> None:
    remote = loads(HEAD + "node: {kind: remote, p2p: 192.168.1.20:16111}\n")
    assert str(run(remote, "--listen=192.168.1.21").node.p2p) == "192.168.1.21:16111"
    with pytest.raises(ApplianceError, match=r"^--listen: 127\.0\.0\.1:16111 is no other machine"):
        run(remote, "--listen=0.0.0.0")


def test_connect_and_addpeer_go_to_the_embedded_node() -> None:
    added = run(
        EMBEDDED, "--addpeer=203.0.113.2", "--addpeer=203.0.113.3:1", "--addpeer=203.0.113.2"
    )
    assert list(map(str, added.node.addpeer)) == [
        "203.0.113.1:16111",
        "203.0.113.2:16111",
        "203.0.113.3:1",
    ]
    only = run(EMBEDDED, "--connect=203.0.113.2", "--connect=[2001:db8::1]:5")
    assert list(map(str, only.node.connect)) == ["203.0.113.2:16111", "[2001:db8::1]:5"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--addpeer=203.0.113.2"],
            "--addpeer: only the embedded node takes it; give kaspad itself "
            "--addpeer=203.0.113.2:16111",
        ),
        (
            ["--connect=203.0.113.2:5"],
            "--connect: only the embedded node takes it; give kaspad itself "
            "--connect=203.0.113.2:5",
        ),
        (
            ["--libp2p-relay-port=16111"],
            "--libp2p-relay-port: the bridge on 0.0.0.0:16111 (bridge.listen[0]) and the node on "
            "127.0.0.1:16111 (node.p2p) collide",
        ),
        (
            ["--libp2p-private-inbound-target=2", "--libp2p-relay-inbound-cap=3"],
            "--libp2p-relay-inbound-cap: 3 through one relay is more than the 2 of them all",
        ),
        (
            ["--libp2p-private-inbound-target=2", "--libp2p-relay-inbound-unknown-cap=3"],
            "--libp2p-relay-inbound-unknown-cap: 3 by unknown relays is more than the 2 of them "
            "all",
        ),
        (
            ["--externalip=10.0.0.1"],
            "--externalip: the internet cannot reach 10.0.0.1, a private address; "
            "bridge.dial_private allows it for a laboratory",
        ),
        (
            ["--listen=127.0.0.1:9464"],
            "--listen: metrics on 127.0.0.1:9464 (metrics.listen) and the node on 127.0.0.1:9464 "
            "(node.p2p) collide",
        ),
    ],
)
def test_an_impossible_flag_is_named(flags: list[str], message: str) -> None:
    with pytest.raises(ApplianceError) as caught:
        run(KASPAD, *flags)
    assert caught.value.message == message


def test_relay_mode_on_for_a_loopback_listener_names_the_flag() -> None:
    lab = loads(HEAD + 'bridge: {listen: ["127.0.0.1:16112"]}\n')
    with pytest.raises(ApplianceError, match=r"^--libp2p-relay-mode: 'on' is impossible"):
        run(lab, "--libp2p-relay-mode=on")


@pytest.mark.parametrize(
    ("flag", "says"),
    [
        ("--libp2p-relay-mode=maybe", "argument --libp2p-relay-mode: invalid choice: 'maybe'"),
        ("--libp2p-relay-port=0", "argument --libp2p-relay-port: '0' is not a whole number from 1"),
        ("--libp2p-relay-port=many", "argument --libp2p-relay-port: 'many' is not a whole number"),
        ("--libp2p-private-inbound-target=-1", "argument --libp2p-private-inbound-target: '-1'"),
        ("--externalip=home.example", "argument --externalip: 'home.example' is not an IP address"),
        ("--addpeer=1.2.3.4:0", "argument --addpeer: '1.2.3.4:0' has port 0"),
    ],
)
def test_an_unreadable_flag_is_wrong_usage(
    flag: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        run(KASPAD, flag)
    assert caught.value.code == 2
    assert says in capsys.readouterr().err
