"""What a good file means: values, defaults, and the examples that we ship."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.declaration import load, loads
from appliance.errors import ApplianceError
from appliance.network import Endpoint, Network
from appliance.sizing import CATALOGUE
from tests.declaration.test_faults import HEAD, PEER_ID, RELAY, RELAY_ID

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "schemas" / "examples").glob("*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_example_is_good(path: Path) -> None:
    assert load(path).name == path.stem


def test_there_is_a_minimal_a_full_and_the_readme_s_example() -> None:
    assert {"minimal.yaml", "full.yaml", "home-pi.yaml", "public-relay.yaml"} <= {
        path.name for path in EXAMPLES
    }


def test_the_minimal_example_harms_nobody_and_needs_no_root() -> None:
    minimal = load(ROOT / "schemas" / "examples" / "minimal.yaml")
    assert minimal.network is Network.SIMNET
    assert minimal.node.kind == "embedded"
    assert not minimal.bridge.relays
    assert not minimal.node.addpeer
    assert not minimal.state.dir.is_absolute()
    assert minimal.metrics.listen is not None
    assert minimal.metrics.listen.port > 1023


def test_everything_but_the_name_has_a_default() -> None:
    box = loads(HEAD, environ={"HOME": "/home/me"})
    assert box.name == "box"
    assert box.network is Network.MAINNET
    assert box.hardware.profile == "detect"
    assert (box.node.kind, str(box.node.p2p)) == ("kaspad", "127.0.0.1:16111")
    assert [str(endpoint) for endpoint in box.bridge.listen] == ["0.0.0.0:16112"]
    assert str(box.bridge.slots) == "127.0.0.1:16120"
    assert (box.bridge.relay_mode, box.bridge.direct_deadline) == ("auto", 6.0)
    assert (box.bridge.private_inbound_target, box.bridge.per_relay_inbound) == (None, None)
    assert box.bridge.relay.reservation_duration == 3600
    assert (box.bridge.relay.circuit_duration, box.bridge.relay.circuit_bytes) == (120, 131072)
    assert (box.bridge.drain, box.bridge.dial_private) == (3.0, False)
    assert box.state.dir == Path("/home/me/.local/state/appliance/box")
    assert box.control.socket == box.state.dir / "control.sock"
    assert box.control.group is None
    assert str(box.metrics.listen) == "127.0.0.1:9464"
    assert (box.log.level, box.log.format) == ("info", "auto")


@pytest.mark.parametrize(
    ("network", "node", "listen", "slots"),
    [
        ("mainnet", 16111, 16112, 16120),
        ("testnet-10", 16211, 16212, 16220),
        ("simnet", 16511, 16512, 16520),
        ("devnet", 16611, 16612, 16620),
    ],
)
def test_ports_follow_the_network(network: str, node: int, listen: int, slots: int) -> None:
    box = loads(HEAD + f"network: {network}\n")
    assert (box.node.p2p.port, box.bridge.listen[0].port, box.bridge.slots.port) == (
        node,
        listen,
        slots,
    )


def test_systemd_says_where_the_state_is() -> None:
    box = loads(HEAD, environ={"STATE_DIRECTORY": "/var/lib/appliance:/var/lib/second"})
    assert box.state.dir == Path("/var/lib/appliance")
    assert box.control.socket == Path("/var/lib/appliance/control.sock")


def test_tilde_is_the_home_directory_and_relative_paths_stay() -> None:
    box = loads(HEAD + "state: {dir: ~/box}\n", environ={"HOME": "/home/me"})
    assert box.state.dir == Path("/home/me/box")
    assert loads(HEAD + "state: {dir: .state/box}\n").state.dir == Path(".state/box")


def test_relays_and_peers_are_typed() -> None:
    body = (
        f"bridge:\n  relays: [{RELAY}]\n  peers: [{PEER_ID}, {RELAY}/p2p-circuit/p2p/{PEER_ID}]\n"
    )
    with pytest.raises(ApplianceError, match="is the same peer"):
        loads(HEAD + body)
    body = f"bridge:\n  relays: [{RELAY}]\n  peers: [{RELAY}/p2p-circuit/p2p/{PEER_ID}]\n"
    bridge = loads(HEAD + body).bridge
    assert bridge.relays[0].endpoint == Endpoint("198.51.100.20", 16112)
    assert bridge.relays[0].peer_id == RELAY_ID
    assert bridge.peers[0].peer_id == PEER_ID
    assert bridge.peers[0].via == bridge.relays[0]
    assert str(bridge.peers[0]) == f"{RELAY}/p2p-circuit/p2p/{PEER_ID}"


def test_external_addresses_take_the_listen_port_unless_they_name_one() -> None:
    body = 'bridge: {listen: ["0.0.0.0:4001", "[::]:4001"], external: [203.0.113.7, "203.0.113.7:80", "2001:db8::7"]}\n'  # noqa: E501
    assert [str(endpoint) for endpoint in loads(HEAD + body).bridge.external] == [
        "203.0.113.7:4001",
        "203.0.113.7:80",
        "[2001:db8::7]:4001",
    ]


def test_metrics_can_be_off_as_a_plain_word() -> None:
    assert loads(HEAD + "metrics: {listen: off}\n").metrics.listen is None


def test_an_empty_section_or_list_is_its_default() -> None:
    box = loads(HEAD + "bridge:\n  relays:\n  listen:\nlog:\n")
    assert box == loads(HEAD)


def test_profiles_come_from_the_catalogue_or_are_written_out() -> None:
    box = loads(HEAD + "hardware: {profile: x86-small}\n")
    assert box.hardware.profile == CATALOGUE["x86-small"]
    body = (
        "hardware:\n  profile:\n    architecture: riscv64\n    cores: 2\n"
        "    memory_bytes: 1073741824\n    link_bytes_per_second: 1000000\n    nofile: 1024\n"
    )
    profile = loads(HEAD + body).hardware.profile
    assert not isinstance(profile, str)
    assert (profile.architecture, profile.cores, profile.nofile) == ("riscv64", 2, 1024)
    assert profile.conntrack_max == 16384


def test_a_byte_order_mark_and_windows_line_ends_are_fine() -> None:
    assert loads(b"\xef\xbb\xbf" + HEAD.replace("\n", "\r\n").encode()).name == "box"


def test_the_bridge_dials_an_embedded_node_on_all_addresses_by_loopback() -> None:
    box = loads(HEAD + "node: {kind: embedded, p2p: 0.0.0.0:16111}\n")
    assert str(box.node.dial) == "127.0.0.1:16111"
    box = loads(HEAD + 'node: {kind: embedded, p2p: "[::]:16111"}\n')
    assert str(box.node.dial) == "[::1]:16111"


def test_what_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ApplianceError, match=r"none\.yaml: there is no such file"):
        load(tmp_path / "none.yaml")
    with pytest.raises(ApplianceError, match="is a directory, not a declaration"):
        load(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(ApplianceError, match="cannot be read: Not a directory"):
        load(tmp_path / "file" / "below.yaml")
