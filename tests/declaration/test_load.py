"""What a good file means: values, defaults, and the examples that we ship."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from appliance.declaration import CapsSpec, load, loads
from appliance.declaration.hardware import HardwareProfile, ProfileOverride
from appliance.declaration.wishes import wishes
from appliance.errors import ApplianceError
from appliance.network import Endpoint, Network
from appliance.sizing import CATALOGUE, Caps, Profile
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
    assert box.identity.key.path == box.state.dir / "identity.key"
    assert set(dataclasses.astuple(box.caps)) == {None}
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
    listen = '["0.0.0.0:4001", "[::]:4001"]'
    external = '[203.0.113.7, "203.0.113.7:80", "2001:db8::7"]'
    body = f"bridge: {{listen: {listen}, external: {external}}}\n"
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
    assert profile.new_connections_per_second == 30


MY_BOX = (
    "apiVersion: appliance/v1\nkind: HardwareProfile\nmetadata: {name: my-box}\n"
    "architecture: riscv64\ncores: 2\nmemory_bytes: 1073741824\nlink_bytes_per_second: 1000000\n"
)


@pytest.mark.parametrize("order", [0, 1])
def test_a_profile_may_be_a_document_of_its_own(order: int) -> None:
    documents = [HEAD + "hardware: {profile: my-box}\n", MY_BOX]
    box = loads("---\n".join(documents[:: -1 if order else 1]))
    profile = box.hardware.profile
    assert not isinstance(profile, str)
    assert (profile.name, profile.architecture, profile.nofile) == ("my-box", "riscv64", 524_288)
    # As if it were written out in place, but for its name.
    written = loads(
        HEAD + "hardware:\n  profile:\n    architecture: riscv64\n    cores: 2\n"
        "    memory_bytes: 1073741824\n    link_bytes_per_second: 1000000\n"
    ).hardware.profile
    assert not isinstance(written, str)
    assert dataclasses.replace(profile, name=written.name) == written


def test_profiles_that_nobody_names_and_empty_documents_do_no_harm() -> None:
    plain = loads(HEAD)
    assert loads(HEAD + "---\n" + MY_BOX) == plain
    assert loads("---\n---\n" + HEAD + "---\n---\n# nothing\n") == plain


def test_single_fields_of_a_profile_may_be_changed() -> None:
    pi = CATALOGUE["raspberry-pi-4-4g"]
    body = "hardware:\n  profile: raspberry-pi-4-4g\n  override: {cores: 2, storage: ssd}\n"
    changed = loads(HEAD + body).hardware.apply(pi)
    assert (changed.cores, changed.storage) == (2, "ssd")
    assert changed.name == "raspberry-pi-4-4g, changed"
    assert changed.description == pi.description
    assert changed.source.startswith(pi.source) and "cores, storage" in changed.source
    kept = {"name", "source", "cores", "storage"}
    for field in dataclasses.fields(pi):
        if field.name not in kept:
            assert getattr(changed, field.name) == getattr(pi, field.name)


@pytest.mark.parametrize(
    "body", ["", "hardware: {override: {}}\n", "hardware: {override: {cores: null}}\n"]
)
def test_a_profile_stays_as_it_is_unless_a_field_is_changed(body: str) -> None:
    pi = CATALOGUE["raspberry-pi-4-4g"]
    assert loads(HEAD + body).hardware.apply(pi) is pi


def test_every_figure_of_a_profile_can_be_changed_and_described() -> None:
    figures = {field.name for field in dataclasses.fields(Profile)} - {
        "name",
        "description",
        "source",
    }
    assert {field.name for field in dataclasses.fields(ProfileOverride)} == figures
    assert {field.name for field in dataclasses.fields(HardwareProfile)} == figures | {"metadata"}


def test_caps_said_outright_reach_the_solver_with_the_field_that_said_them() -> None:
    body = "bridge: {per_relay_inbound: 2}\ncaps: {relay_circuits: 16, inbound_direct: null}\n"
    wished = wishes(loads(HEAD + body))
    assert wished.caps == {"per_relay_inbound": 2, "relay_circuits": 16}
    assert wished.caps_fields == {
        "per_relay_inbound": "bridge.per_relay_inbound",
        "relay_circuits": "caps.relay_circuits",
    }
    assert not wishes(loads(HEAD)).caps


def test_every_cap_that_can_be_said_is_one_of_the_plan() -> None:
    planned = {field.name for field in dataclasses.fields(Caps)}
    assert {field.name for field in dataclasses.fields(CapsSpec)} <= planned


@pytest.mark.parametrize("kind", ["kaspad", "embedded", "remote"])
def test_the_solver_learns_where_the_node_lives(kind: str) -> None:
    body = f"node: {{kind: {kind}, p2p: 192.168.1.20:16111}}\n"
    assert wishes(loads(HEAD + body)).node == kind


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
