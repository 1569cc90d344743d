"""Machines and wishes that nobody sells or asks for, for property tests."""

from __future__ import annotations

import dataclasses
from typing import Any

from hypothesis import strategies as st

from appliance.sizing import Infeasible, Plan, Profile, Wishes, plan
from appliance.units import GIB, MIB

OPENING = (
    "inbound_private",
    "outbound_private",
    "outbound_direct",
    "inbound_direct",
    "relay_reservations",
    "relay_circuits",
)
SAYABLE = (
    *OPENING,
    "per_relay_inbound",
    "unknown_relay_inbound",
    "relay_circuits_per_peer",
    "relay_reservations_per_ip",
    "relay_bytes_per_second",
    "relay_circuit_bytes_per_second",
)
"""What a declaration may say outright."""


def between(low: int, high: int) -> st.SearchStrategy[int]:
    """As likely small as large: magnitudes first."""
    return st.integers(low, min(high, 4 * low)) | st.integers(low, high)


profiles = st.builds(
    Profile,
    name=st.just("any"),
    description=st.just("any"),
    source=st.just("drawn"),
    architecture=st.sampled_from(["x86_64", "aarch64", "riscv64"]),
    cores=st.integers(1, 256),
    memory_bytes=between(256 * MIB, 1024 * GIB),
    nofile=between(1024, 10_000_000),
    link_bytes_per_second=between(10_000, 2**37),
    conntrack_max=between(256, 2**30),
    new_connections_per_second=between(1, 10_000),
    storage=st.just("ssd"),
)
"""256 MB to 1 TB, 1 to 256 cores, 1,024 to 10 million open files."""

impossible_profiles = st.builds(
    dataclasses.replace,
    profiles,
    memory_bytes=st.integers(1, 512 * MIB),
    nofile=st.integers(1, 2048),
    conntrack_max=st.integers(1, 2048),
    link_bytes_per_second=st.integers(1, 100_000),
    new_connections_per_second=st.integers(1, 3),
)
"""Machines at the edge and below."""


@st.composite
def _wishes(draw: st.DrawFn) -> Wishes:
    caps = draw(
        st.dictionaries(
            st.sampled_from(SAYABLE),
            st.integers(0, 40) | st.integers(0, 2**20),
            max_size=draw(st.sampled_from([0, 1, 1, 2, 4])),
        )
    )
    return Wishes(
        relay=draw(st.booleans()),
        node=draw(st.sampled_from(["kaspad", "embedded", "remote"])),
        peers=draw(st.sampled_from([0, 0, 1, 8]) | st.integers(0, 256)),
        relays=draw(st.integers(0, 64)),
        listeners=draw(st.integers(1, 16)),
        dials=draw(st.sampled_from([0, 0, 4]) | st.integers(0, 256)),
        as_table=draw(st.booleans()),
        caps=caps,
        caps_fields={name: field_of(name) for name in caps},
    )


wishes = _wishes()
modest_wishes = st.builds(
    lambda asked, caps: dataclasses.replace(
        asked,
        node="remote",
        peers=min(asked.peers, 8),
        dials=0,
        relays=min(asked.relays, 4),
        caps=caps,
        caps_fields={name: field_of(name) for name in caps},
    ),
    _wishes(),
    st.dictionaries(st.sampled_from(SAYABLE[:3]), st.integers(8, 12), max_size=2),
)
"""Of those that most machines can grant."""


def field_of(cap: str) -> str:
    """Where a declaration says it."""
    return {
        "inbound_private": "bridge.private_inbound_target",
        "per_relay_inbound": "bridge.per_relay_inbound",
    }.get(cap, f"caps.{cap}")


def saying(asked: Wishes, **caps: int) -> Wishes:
    """`asked` with these caps said outright."""
    merged = {**asked.caps, **caps}
    fields = {name: field_of(name) for name in merged}
    return dataclasses.replace(asked, caps=merged, caps_fields=fields)


def attempt(profile: Profile, asked: Wishes) -> Plan | Infeasible:
    """The plan, or why there is none."""
    try:
        return plan(profile, asked)
    except Infeasible as verdict:
        return verdict


def caps_of(found: Plan) -> dict[str, int]:
    """The caps by name."""
    caps: dict[str, Any] = dataclasses.asdict(found.caps)
    return caps
