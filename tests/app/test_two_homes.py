"""Two appliances and a relay, each from its own file: the product's one job, on loopback."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from tests.app.processes import Running, declaration, free_port, peer_id, running, written

HTTP2_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""The client's preface and empty SETTINGS (RFC 9113, 3.4)."""
SETTINGS = 4


@dataclass
class Street:
    """A relay, and home B that is reachable through it."""

    directory: Path
    relay: Running
    b: Running
    b_id: str
    way: str

    def home_a(self, name: str = "a", **sections: Any) -> dict[str, Any]:
        """A home with a slot that leads to B."""
        bridge = {
            "relays": [self.way],
            "peers": [f"{self.way}/p2p-circuit/p2p/{self.b_id}"],
            "slots": "127.0.0.1:0",
            **sections.pop("bridge", {}),
        }
        return declaration(self.directory, name, bridge=bridge, **sections)


@pytest.fixture
def street(tmp_path: Path) -> Iterator[Street]:
    with ExitStack() as stack:
        relay = declaration(tmp_path, "relay", bridge={"relay_mode": "on"})
        relay_id = peer_id(relay)
        relay_process = stack.enter_context(running(written(tmp_path, relay)))
        host, port = relay_process.wait("ready")["listen"][0].split(":")
        way = f"/ip4/{host}/tcp/{port}/p2p/{relay_id}"
        b = declaration(tmp_path, "b", bridge={"relays": [way]})
        b_id = peer_id(b)
        process = stack.enter_context(running(written(tmp_path, b)))
        process.wait("reservation_made")
        yield Street(tmp_path, relay_process, process, b_id, way)


def served_by(where: str) -> bool:
    """Whether a Kaspa node answers there: HTTP/2 SETTINGS come back."""
    host, _, port = where.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=5) as client:
        client.sendall(HTTP2_HELLO)
        return greeted(client)


def greeted(client: socket.socket) -> bool:
    client.settimeout(20)
    frame = b""
    while len(frame) < 9 and (part := client.recv(9 - len(frame))):
        frame += part
    return len(frame) == 9 and frame[3] == SETTINGS


def test_two_nodes_shake_hands_through_a_slot_and_outlive_the_relay(street: Street) -> None:
    relay, b = street.relay, street.b
    with running(written(street.directory, street.home_a())) as a:
        at_a = a.wait("kaspa_handshake", direction="outbound")
        at_b = b.wait("kaspa_handshake", direction="inbound")
        assert ip_address(at_b["remote"].split(":")[0]) in ip_network("127.64.0.0/10")

        status = a.status()
        [stream] = status["outbound"]
        assert (stream["peer"], stream["path"]) == (street.b_id, "direct")
        [slot] = [slot for slot in status["slots"] if slot["origin"] == "declared"]
        assert (slot["state"], slot["failure"]) == ("open", None)
        assert slot["slot"] == at_a["remote"] == stream["slot"]
        assert status["punch"]["succeeded"] == 1
        inbound = b.status()["inbound"]
        assert inbound["private"]["used"] == 1
        assert [usage["used"] for usage in inbound["per_relay"].values()] == [1]
        assert 0 < a.wait("direct_first_byte")["time_to_direct_ms"] < 10_000
        assert a.wait("kaspa_first_byte", path="direct")["direction"] == "outbound"
        assert b.wait("kaspa_first_byte")["direction"] == "inbound"

        # The bridge loses its relay: nodes and their connection do not notice.
        relay.kill()
        failed = b.wait("reservation_failed")
        status = b.status()
        assert [entry["state"] for entry in status["reservations"]] != ["active"]
        assert failed["reason"] in {fault["name"] for fault in status["faults"]}
        for home in (a, b):
            assert served_by(home.wait("kaspa_listening")["address"])
        assert not a.events("kaspa_disconnected") and not b.events("kaspa_disconnected")

        # A stops in time although a stream is open, and its peer is told.
        started = time.monotonic()
        assert a.end() == 0
        assert time.monotonic() - started < 5
        b.wait("kaspa_disconnected", within=5)
    assert b.end() == 0
    assert "Traceback" not in a.errors + b.errors


def test_a_stop_waits_for_kaspad_and_a_second_signal_does_not(street: Street) -> None:
    """kaspad does not know that the bridge is about to stop: its streams get the drain time."""
    port = free_port()
    document = street.home_a(
        bridge={"slots": f"127.0.0.1:{port}", "drain": 60},
        node={"kind": "kaspad", "p2p": f"127.0.0.1:{free_port()}"},
    )
    with running(written(street.directory, document)) as a:
        with socket.create_connection(("127.0.0.1", port), timeout=20) as kaspad:
            kaspad.sendall(HTTP2_HELLO)
            assert greeted(kaspad)
            a.process.send_signal(signal.SIGTERM)
            a.wait("stopping")
            time.sleep(1)
            assert a.process.poll() is None
            # The stream still works, and no new one is taken.
            kaspad.sendall(bytes([0, 0, 8, 6, 0, 0, 0, 0, 0]) + b"ping-now")
            assert kaspad.recv(4096)
            assert a.end(signal.SIGINT, within=3) == 0
        assert not (street.directory / "a.state" / "control.sock").exists()
        [closed] = a.events("kaspa_stream_closed")
        assert closed["reason"] == "drain-deadline"
    assert "Traceback" not in a.errors
