"""The kinds of value that are addresses: endpoints, relays, peers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from appliance.declaration.addresses import PEER_ID_PATTERN, NodePeer, PrivatePeer, RelayAddress
from appliance.declaration.kinds import Kind, Reading, Schema
from appliance.declaration.nodes import Node, Scalar, quote
from appliance.network import Endpoint


class Parsed(Kind):
    """Text that a function parses; its ValueError ends the sentence that `'text'` begins."""

    def __init__(self, noun: str, pattern: str, parse: Callable[[str], Any]) -> None:
        self.noun, self._pattern, self._parse = noun, pattern, parse

    def read(self, node: Node, path: str, reading: Reading) -> Any:
        if not isinstance(node, Scalar) or node.tag == "null":
            return self.bad(node, path, reading)
        try:
            return self._parse(node.text)
        except ValueError as error:
            return reading.wrong(node.mark, path, f"{quote(node.text)} {error}")

    def schema(self) -> Schema:
        return {"type": "string", "pattern": f"^(?:{self._pattern})$"}


IP4 = r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}"
IP6 = r"[0-9a-fA-F:]{2,39}(?:[0-9.]{7,15})?"
_RELAY = rf"/(?:ip4/{IP4}|ip6/{IP6})/tcp/[0-9]{{1,5}}/p2p/{PEER_ID_PATTERN}"


def endpoint_kind() -> Kind:
    """`ip:port` or `[ip6]:port`."""
    pattern = rf"(?:{IP4}|\[{IP6}\]):[0-9]{{1,5}}"
    return Parsed("IP:PORT", pattern, parse_endpoint)


def external_kind() -> Kind:
    """An IP with or without a port; without, the port is None until the listen port is known."""
    pattern = rf"{IP4}(?::[0-9]{{1,5}})?|{IP6}|\[{IP6}\](?::[0-9]{{1,5}})?"
    return Parsed("an IP or IP:PORT", pattern, parse_external)


def relay_kind() -> Kind:
    return Parsed("a relay's multiaddr", _RELAY, RelayAddress.parse)


def peer_kind() -> Kind:
    pattern = rf"{PEER_ID_PATTERN}|{_RELAY}/p2p-circuit/p2p/{PEER_ID_PATTERN}"
    return Parsed("a peer id, or RELAY/p2p-circuit/p2p/PEERID", pattern, PrivatePeer.parse)


def node_peer_kind() -> Kind:
    """A Kaspa listener, `ip:port`, or a libp2p one, `/ip4|ip6/IP/tcp/PORT/p2p/PEERID`."""
    pattern = rf"(?:{IP4}|\[{IP6}\]):[0-9]{{1,5}}|{_RELAY}"
    return Parsed("IP:PORT, or a multiaddr with /p2p/PEERID", pattern, parse_node_peer)


def parse_node_peer(text: str) -> NodePeer:
    """Raises ValueError."""
    return RelayAddress.parse(text) if text.startswith("/") else parse_endpoint(text)


def parse_endpoint(text: str, default_port: int | None = None) -> Endpoint:
    """`Endpoint.parse` with errors that continue a sentence begun with the quoted text."""
    try:
        endpoint = Endpoint.parse(text, default_port=default_port)
    except ValueError as error:
        detail = str(error)
        whole = repr(text)
        detail = detail.removeprefix(f"{whole} ") if detail.startswith(whole) else f"({detail})"
        if detail.startswith("("):
            raise ValueError(f"is not IP:PORT {detail}") from None
        raise ValueError(detail) from None
    if "%" in endpoint.host:
        raise ValueError("is not IP:PORT (a zone like %eth0 is not supported)")
    return endpoint


def parse_external(text: str) -> tuple[str, int | None]:
    """Host and port, or None for the port when the text has none."""
    endpoint = parse_endpoint(text, default_port=0)
    has_port = text.count(":") == 1 or (text.startswith("[") and not text.endswith("]"))
    if has_port and endpoint.port == 0:
        raise ValueError("has port 0, which nobody can dial")
    return endpoint.host, endpoint.port if has_port else None
