"""Many faults in one file: all at once, in the order of the file. `wrong/` has them one by one."""

from __future__ import annotations

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


def places(text: str) -> list[str]:
    """Place and path of each fault."""
    return [" ".join(line.split(": ")[:2]) for line in lines(text)]


def test_every_fault_is_reported_at_once_in_the_order_of_the_file() -> None:
    text = (
        "apiVersion: appliance/v2\nkind: Appliance\nmetadata: {name: box}\nnetwork: maimnet\n"
        "bridge:\n  relay_mode: perhaps\n  drain: 3\n  drain: 4\n  relays: [nonsense]\n"
        "metrics: {listen: 127.0.0.1:16120}\n"
        "nod: {}\n"
        "log: {level: loud}\n"
    )
    assert places(text) == [
        "f.yaml:1:13 apiVersion",
        "f.yaml:4:10 network",
        "f.yaml:6:15 bridge.relay_mode",
        "f.yaml:8:3 bridge.drain",
        "f.yaml:9:12 bridge.relays[0]",
        "f.yaml:11:1 nod",
        "f.yaml:12:14 log.level",
    ]


def test_faults_of_several_documents_say_in_which() -> None:
    profile = "---\napiVersion: appliance/v1\nkind: HardwareProfile\n"
    text = (
        HEAD
        + "network: maimnet\n"
        + profile
        + "metadata: {name: my-box}\ncores: 0\ncores: 1\narchitecture: arm\n"
        + "memory_bytes: 8589934592\nlink_bytes_per_second: 5000000\n"
        + profile
        + "metadata: {name: detect}\nkind: Thing\n"
    )
    assert places(text) == [
        "f.yaml:4:10 network",
        "f.yaml:9:8 HardwareProfile/my-box.cores",
        "f.yaml:10:1 HardwareProfile/my-box.cores",
        "f.yaml:11:15 HardwareProfile/my-box.architecture",
        "f.yaml:15:1 documents[2].architecture",
        "f.yaml:15:1 documents[2].cores",
        "f.yaml:15:1 documents[2].link_bytes_per_second",
        "f.yaml:15:1 documents[2].memory_bytes",
        "f.yaml:17:18 documents[2].metadata.name",
        "f.yaml:18:1 documents[2].kind",
    ]


def test_a_wrong_profile_is_not_blamed_on_the_field_that_names_it() -> None:
    text = HEAD + (
        "hardware: {profile: my-box}\n---\napiVersion: appliance/v1\nkind: HardwareProfile\n"
        "metadata: {name: my-box}\ncores: none\n"
    )
    assert all(place.partition(" ")[2].startswith("HardwareProfile/") for place in places(text))


def test_a_file_of_a_thousand_faults_is_one_line_each() -> None:
    body = "".join(f"field{i}: 1\n" for i in range(1000))
    found = lines(HEAD + body)
    assert len(found) == 1000
    assert all(line.startswith(f"f.yaml:{i + 4}:1: field{i}: ") for i, line in enumerate(found))
