"""Are we public or private? The answer, the evidence for it, and where we are reachable."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from appliance.network import Endpoint
from appliance.policy.reach import is_routable

Mode = Literal["auto", "on", "off"]


@dataclass(frozen=True, slots=True)
class Role:
    """`effective` decides whether the relay service runs; `evidence` says why, for people.

    `reachable` are the addresses to announce: declared ones, then routable ones that we hold.
    """

    mode: Mode
    effective: Literal["public", "private"]
    evidence: str
    reachable: tuple[Endpoint, ...] = ()

    @property
    def is_public(self) -> bool:
        return self.effective == "public"


def decide_role(
    mode: Mode,
    *,
    external: Iterable[Endpoint],
    listen: Iterable[Endpoint],
    interfaces: Iterable[str],
    node: Endpoint | None = None,
) -> Role:
    """As the plan's phase 7: a declared external address, or a routable one that we listen on,
    makes `auto` public.

    `interfaces` are the machine's own addresses; they count where we listen on all of them.
    `node` is where the Kaspa node listens: a routable address there is evidence too.
    """
    declared, listening = tuple(external), tuple(listen)
    held = tuple(_held(listening, interfaces))
    reachable = tuple(dict.fromkeys((*declared, *held)))
    if mode != "auto":
        effective: Literal["public", "private"] = "public" if mode == "on" else "private"
        return Role(mode, effective, f"relay_mode is {mode}", reachable)
    if declared:
        evidence = f"the external address {declared[0]} is declared"
    elif held:
        evidence = f"this machine holds the routable address {held[0].host}"
    elif node is not None and is_routable(node):
        evidence = f"the node listens on the routable address {node}"
    else:
        return Role(mode, "private", "no routable address is declared or held", reachable)
    return Role(mode, "public", evidence, reachable)


def _held(listening: tuple[Endpoint, ...], interfaces: Iterable[str]) -> Iterable[Endpoint]:
    for endpoint in listening:
        if is_routable(endpoint):
            yield endpoint
    for host in interfaces:
        everywhere = "::" if ":" in host else "0.0.0.0"
        for endpoint in listening:
            candidate = Endpoint(host, endpoint.port)
            if endpoint.host == everywhere and is_routable(candidate):
                yield candidate
