"""Which addresses are dialled, which are evidence of being public, and the role that follows."""

from __future__ import annotations

import pytest

from appliance.network import Endpoint
from appliance.policy.reach import (
    MAX_CANDIDATES,
    dialable,
    is_dialable,
    is_private,
    is_routable,
)
from appliance.policy.role import Mode, decide_role

PUBLIC = ["1.1.1.1", "11.0.0.1", "172.15.255.255", "172.32.0.1", "100.63.255.255", "100.128.0.1",
          "192.0.1.1", "192.169.0.1", "198.17.255.255", "198.20.0.1", "223.255.255.255",
          "2606:4700::1111", "2001:4860::8888", "2a00::1", "::ffff:1.1.1.1"]  # fmt: skip
DOCUMENTATION = ["192.0.2.7", "198.51.100.7", "203.0.113.7", "2001:db8::7", "3fff::1"]
PRIVATE = ["10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1",
           "100.127.255.255", "169.254.1.1", "127.0.0.1", "127.64.3.2", "192.0.0.4", "198.18.0.1",
           "198.19.255.255", "::1", "fc00::1", "fd12::1", "fe80::1", "fec0::1",
           "::ffff:10.0.0.1", "::ffff:127.0.0.1"]  # fmt: skip
NEVER = ["0.0.0.0", "0.1.2.3", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
         "192.88.99.1", "::", "ff02::1", "100::1", "64:ff9b::101:101", "64:ff9b:1::1", "2002::1",
         "2001::1", "2001:20::1", "5f00::1", "::ffff:0.0.0.0", "::ffff:240.1.2.3"]  # fmt: skip


@pytest.mark.parametrize("host", PUBLIC + DOCUMENTATION)
def test_what_is_dialled_anyway(host: str) -> None:
    endpoint = Endpoint(host, 16112)
    assert not is_private(host)
    assert is_dialable(endpoint, allow_private=False)
    assert is_dialable(endpoint, allow_private=True)
    assert is_routable(endpoint) is (host in PUBLIC)


@pytest.mark.parametrize("host", PRIVATE)
def test_what_is_dialled_only_where_it_is_allowed(host: str) -> None:
    endpoint = Endpoint(host, 16112)
    assert is_private(host)
    assert not is_dialable(endpoint, allow_private=False)
    assert is_dialable(endpoint, allow_private=True)
    assert not is_routable(endpoint)


@pytest.mark.parametrize("host", NEVER)
def test_what_is_never_dialled(host: str) -> None:
    endpoint = Endpoint(host, 16112)
    assert not is_dialable(endpoint, allow_private=True)
    assert not is_routable(endpoint)


def test_port_zero_is_no_port() -> None:
    assert not is_dialable(Endpoint("1.1.1.1", 0), allow_private=True)


def test_candidates_are_distinct_ours_left_out_in_order_and_few() -> None:
    many = [Endpoint("1.1.1.1", port) for port in range(1, 30)]
    own = [many[2]]
    got = dialable([*many[:5], *many, Endpoint("0.0.0.0", 5)], allow_private=False, own=own)
    assert got == (*many[:2], *many[3 : MAX_CANDIDATES + 1])
    assert dialable([], allow_private=True) == ()
    mixed = [Endpoint("10.0.0.1", 1), Endpoint("1.1.1.1", 1)]
    assert dialable(mixed, allow_private=False) == (mixed[1],)
    assert dialable(mixed, allow_private=True) == tuple(mixed)


# --- role

EVERYWHERE = (Endpoint("0.0.0.0", 16112), Endpoint("::", 16113))
HELD4, HELD6 = "1.2.3.4", "2a00::4"


@pytest.mark.parametrize(
    ("listen", "interfaces", "external", "node", "effective", "reachable"),
    [
        (EVERYWHERE, ["192.168.1.9"], [], None, "private", []),
        (EVERYWHERE, ["192.168.1.9", HELD4], [], None, "public", ["1.2.3.4:16112"]),
        (EVERYWHERE, [HELD6], [], None, "public", ["[2a00::4]:16113"]),
        # An IPv4 wildcard does not listen on IPv6 addresses, and the other way round.
        (EVERYWHERE[:1], [HELD6], [], None, "private", []),
        (EVERYWHERE[1:], [HELD4], [], None, "private", []),
        # Behind 464XLAT every machine holds one of these.
        (EVERYWHERE, ["192.0.0.4"], [], None, "private", []),
        # Held, but we listen elsewhere.
        ((Endpoint("192.168.1.9", 1),), [HELD4], [], None, "private", []),
        ((Endpoint(HELD4, 7),), [], [], None, "public", ["1.2.3.4:7"]),
        (EVERYWHERE, [], ["203.0.113.7:9"], None, "public", ["203.0.113.7:9"]),
        (EVERYWHERE, [HELD4], ["1.2.3.4:16112"], None, "public", ["1.2.3.4:16112"]),
        (EVERYWHERE, [], [], HELD4, "public", []),
        (EVERYWHERE, [], [], "127.0.0.1", "private", []),
    ],
)
def test_auto_follows_the_evidence(
    listen: tuple[Endpoint, ...],
    interfaces: list[str],
    external: list[str],
    node: str | None,
    effective: str,
    reachable: list[str],
) -> None:
    role = decide_role(
        "auto",
        external=map(Endpoint.parse, external),
        listen=listen,
        interfaces=interfaces,
        node=None if node is None else Endpoint(node, 16111),
    )
    assert role.effective == effective and role.is_public is (effective == "public")
    assert [str(endpoint) for endpoint in role.reachable] == reachable
    assert role.evidence


@pytest.mark.parametrize(("mode", "public"), [("on", True), ("off", False)])
def test_on_and_off_do_not_ask(mode: Mode, public: bool) -> None:
    for interfaces in ([], [HELD4]):
        role = decide_role(mode, external=[], listen=EVERYWHERE, interfaces=interfaces)
        assert role.is_public is public and role.evidence == f"relay_mode is {mode}"
        assert bool(role.reachable) is bool(interfaces), "what we announce is another question"
