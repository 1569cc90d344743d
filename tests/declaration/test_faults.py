"""Every way to get a file wrong that we know of, and the exact line that its author reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.declaration import DeclarationErrors, loads

HEAD = "apiVersion: appliance/v1\nkind: Appliance\nmetadata: {name: box}\n"
RELAY_ID = "12D3KooWPLttQvztS48b8FKqHMqcajDACcTqaKgnuYfq4FiekR4X"
PEER_ID = "12D3KooWLd3KhPiHnmmKuy1BmebriKPGRgMFzGWXAEc22gGGsXVy"
RELAY = f"/ip4/198.51.100.20/tcp/16112/p2p/{RELAY_ID}"


def lines(text: str | bytes) -> list[str]:
    with pytest.raises(DeclarationErrors) as caught:
        loads(text, file="f.yaml", environ={"HOME": "/home/me"})
    return caught.value.message.splitlines()


# Below the head, the first line is line 4.
FIELD_FAULTS = {
    "unknown word": (
        "bridge:\n  relay_mode: sometimes",
        "f.yaml:5:15: bridge.relay_mode: 'sometimes' is not one of auto, on, off",
    ),
    "unknown field": (
        "bridge:\n  relay_mod: on",
        "f.yaml:5:3: bridge.relay_mod: unknown field; did you mean 'relay_mode'?",
    ),
    "unknown field far from all": (
        "log: {colour: red}",
        "f.yaml:4:7: log.colour: unknown field (known here: level, format)",
    ),
    "unknown section": (
        "bridges: {}",
        "f.yaml:4:1: bridges: unknown field; did you mean 'bridge'?",
    ),
    "wrong type, list for text": (
        "network: [mainnet]",
        "f.yaml:4:10: network: a list is not one of mainnet, testnet-10, simnet, devnet",
    ),
    "wrong type, text for list": (
        "bridge:\n  listen: 0.0.0.0:16112",
        "f.yaml:5:11: bridge.listen: '0.0.0.0:16112' is not a list",
    ),
    "wrong type, text for section": (
        "bridge: yes",
        "f.yaml:4:9: bridge: 'yes' is not a mapping of fields",
    ),
    "quoted number": (
        'bridge: {drain: "3"}',
        "f.yaml:4:17: bridge.drain: '3' is text, not a number; take the quotes away",
    ),
    "not a number": (
        "bridge: {drain: soon}",
        "f.yaml:4:17: bridge.drain: 'soon' is not a number from 0 to 300",
    ),
    "fraction for a whole number": (
        "bridge: {private_inbound_target: 8.5}",
        "f.yaml:4:34: bridge.private_inbound_target: '8.5' is not a whole number from 0 to 1024",
    ),
    "number out of range": (
        "bridge: {direct_deadline: -1}",
        "f.yaml:4:27: bridge.direct_deadline: '-1' is not a number from 0 to 300",
    ),
    "infinity": (
        "bridge: {drain: .inf}",
        "f.yaml:4:17: bridge.drain: '.inf' is not a number from 0 to 300",
    ),
    "yes for true": (
        "bridge: {dial_private: yes}",
        "f.yaml:4:24: bridge.dial_private: 'yes' is not true or false",
    ),
    "null where nothing is computed": (
        "bridge: {drain: null}",
        "f.yaml:4:17: bridge.drain: 'null' is not a number from 0 to 300",
    ),
    "empty list": (
        "bridge: {listen: []}",
        "f.yaml:4:18: bridge.listen: an empty list; at least one entry is needed",
    ),
    "unknown profile": (
        "hardware: {profile: raspberry-pi-4-4gb}",
        "f.yaml:4:21: hardware.profile: 'raspberry-pi-4-4gb' is no known profile; "
        "did you mean 'raspberry-pi-4-4g'?",
    ),
    "profile with a hole": (
        "hardware:\n  profile: {architecture: aarch64, cores: 4, memory_bytes: 4294967296}",
        "f.yaml:5:12: hardware.profile.link_bytes_per_second: is missing",
    ),
    "profile out of range": (
        "hardware:\n  profile:\n    architecture: aarch64\n    cores: 0\n"
        "    memory_bytes: 4294967296\n    link_bytes_per_second: 5000000",
        "f.yaml:7:12: hardware.profile.cores: '0' is not a whole number from 1 to 1024",
    ),
    "host name for an IP": (
        "node: {p2p: localhost:16111}",
        "f.yaml:4:13: node.p2p: 'localhost:16111' is not IP:PORT "
        "('localhost' is not an IP address)",
    ),
    "no port": (
        "metrics: {listen: 127.0.0.1}",
        "f.yaml:4:19: metrics.listen: '127.0.0.1' has no port",
    ),
    "port too large": (
        "metrics: {listen: 127.0.0.1:70000}",
        "f.yaml:4:19: metrics.listen: '127.0.0.1:70000' is not IP:PORT "
        "('70000' is not a port (0 to 65535))",
    ),
    "relay without peer id": (
        "bridge:\n  relays:\n    - /ip4/198.51.100.20/tcp/16112",
        "f.yaml:6:7: bridge.relays[0]: '/ip4/198.51.100.20/tcp/16112' has no /p2p/PEERID: "
        "a relay is known by its peer id",
    ),
    "relay over UDP": (
        f"bridge:\n  relays: [/ip4/198.51.100.20/udp/1/quic-v1/p2p/{RELAY_ID}]",
        f"f.yaml:5:12: bridge.relays[0]: '/ip4/198.51.100.20/udp/1/quic-v1/p2p/{RELAY_ID}' "
        "has no /tcp/PORT after the IP address",
    ),
    "relay that must never be dialled": (
        f"bridge:\n  relays: [/ip4/240.1.2.3/tcp/16112/p2p/{RELAY_ID}]",
        f"f.yaml:5:12: bridge.relays[0]: '/ip4/240.1.2.3/tcp/16112/p2p/{RELAY_ID}' "
        "has '240.1.2.3', which cannot be dialled",
    ),
    "peer id with a letter that base58 lacks": (
        "bridge:\n  peers: [12D3KooW0LttQvztS48b8FKqHMqcajDACcTqaKgnuYfq4FiekR4X]",
        "f.yaml:5:11: bridge.peers[0]: '12D3KooW0LttQvztS48b8FKqHMqcajDACcTqaKgnuYfq4FiekR4X' "
        "is not a peer id: '0' is not a base58 character",
    ),
    "peer id cut short": (
        f"bridge:\n  relays: [{RELAY[:-1]}]",
        f"f.yaml:5:12: bridge.relays[0]: '{RELAY[:-1]}' "
        "is not a peer id: it holds no key and no SHA-256 of one",
    ),
    "bad group name": (
        "control: {group: Staff!}",
        "f.yaml:4:18: control.group: 'Staff!' is not the name of a group",
    ),
    "number for text": (
        "control: {group: 1000}",
        "f.yaml:4:18: control.group: '1000' is a number, not text; put it in quotes",
    ),
    "duplicate key": (
        "network: mainnet\nnetwork: simnet",
        "f.yaml:5:1: network: is already given on line 4",
    ),
    "duplicate key below": (
        "bridge:\n  drain: 1\n  drain: 2",
        "f.yaml:6:3: bridge.drain: is already given on line 5",
    ),
}


@pytest.mark.parametrize("name", FIELD_FAULTS)
def test_a_wrong_field_is_named_with_its_place(name: str) -> None:
    body, expected = FIELD_FAULTS[name]
    assert lines(HEAD + body + "\n") == [expected]


DOCUMENT_FAULTS: dict[str, tuple[str | bytes, list[str]]] = {
    "empty": (
        "",
        ["f.yaml:1:1: the file is empty; a declaration begins with apiVersion and kind"],
    ),
    "only a comment": (
        "# nothing\n",
        ["f.yaml:1:1: the file is empty; a declaration begins with apiVersion and kind"],
    ),
    "a list": ("- a\n", ["f.yaml:1:1: a list is not a mapping of fields"]),
    "a word": ("hello", ["f.yaml:1:1: 'hello' is not a mapping of fields"]),
    "tab": (
        "apiVersion: appliance/v1\nmetadata:\n\tname: box\n",
        [
            "f.yaml:3:1: not valid YAML: while scanning for the next token found character '\\t' "
            "that cannot start any token"
        ],
    ),
    "open bracket": (
        HEAD + "bridge: {listen: [\n",
        [
            "f.yaml:5:1: not valid YAML: while parsing a flow node expected the node content, but "
            "found '<stream end>'"
        ],
    ),
    "not UTF-8": (
        b"apiVersion: appliance/v1\nkind: \xff\n",
        ["f.yaml:2:7: byte 0xff is not UTF-8 text"],
    ),
    "control character": (
        HEAD + "network: main\x07net\n",
        ["f.yaml:4:14: character 7 is not allowed in YAML"],
    ),
    "two documents": (
        HEAD + "---\n" + HEAD,
        ["f.yaml:4:1: a second document begins here; one file holds one"],
    ),
    "unknown kind": (
        HEAD.replace("Appliance", "Applience"),
        ["f.yaml:2:7: kind: 'Applience' is not Appliance"],
    ),
    "unknown version": (
        HEAD.replace("/v1", "/v7"),
        ["f.yaml:1:13: apiVersion: 'appliance/v7' is not appliance/v1"],
    ),
    "no envelope": (
        "metadata: {name: box}\n",
        [
            "f.yaml:1:1: apiVersion: is missing; write 'apiVersion: appliance/v1'",
            "f.yaml:1:1: kind: is missing; write 'kind: Appliance'",
        ],
    ),
    "no name": (
        HEAD.replace("{name: box}", "{}"),
        ["f.yaml:3:11: metadata.name: is missing"],
    ),
    "no metadata": (
        "apiVersion: appliance/v1\nkind: Appliance\n",
        ["f.yaml:1:1: metadata: is missing"],
    ),
    "a name that is no host name": (
        HEAD.replace("box", "My Box"),
        [
            "f.yaml:3:18: metadata.name: 'My Box' is not a name of 1 to 63 lower-case letters, "
            "digits and inner dashes"
        ],
    ),
    "alias": (
        HEAD + "bridge: &all {drain: 1}\n",
        ["f.yaml:4:9: anchor &all is not supported; write values out"],
    ),
    "tag": (
        HEAD + "network: !!python/name:os.system x\n",
        ["f.yaml:4:10: tag 'tag:yaml.org,2002:python/name:os.system' is not supported"],
    ),
    "a list as a key": (
        HEAD + "? [a]\n: b\n",
        ["f.yaml:4:3: a list cannot be the name of a field"],
    ),
}


@pytest.mark.parametrize("name", DOCUMENT_FAULTS)
def test_a_wrong_document_is_one_clear_sentence(name: str) -> None:
    text, expected = DOCUMENT_FAULTS[name]
    assert lines(text) == expected


def test_every_fault_is_reported_at_once_in_the_order_of_the_file() -> None:
    text = (
        "apiVersion: appliance/v2\nkind: Appliance\nmetadata: {name: box}\nnetwork: maimnet\n"
        "bridge:\n  relay_mode: perhaps\n  drain: 3\n  drain: 4\n  relays: [nonsense]\n"
        "metrics: {listen: 127.0.0.1:16120}\n"
        "nod: {}\n"
        "log: {level: loud}\n"
    )
    assert [line.split(": ")[0] + " " + line.split(": ")[1] for line in lines(text)] == [
        "f.yaml:1:13 apiVersion",
        "f.yaml:4:10 network",
        "f.yaml:6:15 bridge.relay_mode",
        "f.yaml:8:3 bridge.drain",
        "f.yaml:9:12 bridge.relays[0]",
        "f.yaml:11:1 nod",
        "f.yaml:12:14 log.level",
    ]


def test_an_alias_bomb_and_other_giants_are_refused_quickly() -> None:
    bomb = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"
    assert lines(bomb) == ["f.yaml:1:4: anchor &a is not supported; write values out"]
    assert lines("x" * (1024 * 1024 + 1)) == ["f.yaml:1:1: the file is larger than 1 MiB"]
    assert lines("[" * 100_000) == ["f.yaml:1:17: nested deeper than 16 levels"]
    many = lines("a: [" + "1, " * 200_000 + "]")
    assert many[0].endswith("more than 20000 values in one file")


def test_a_file_of_a_thousand_faults_is_one_line_each(tmp_path: Path) -> None:
    body = "".join(f"field{i}: 1\n" for i in range(1000))
    found = lines(HEAD + body)
    assert len(found) == 1000
    assert all(line.startswith(f"f.yaml:{i + 4}:1: field{i}: ") for i, line in enumerate(found))
