"""What the homes' routers do with packets: nftables rulesets, one per kind of router.

Every kind masquerades the LAN behind its WAN address and lets nothing in that nobody inside asked
for. They differ in what makes hole punching easy, hard or impossible.
"""

from __future__ import annotations

from dataclasses import dataclass

LAN_INTERFACE = "lan0"
WAN_INTERFACE = "wan0"


@dataclass(frozen=True, slots=True)
class Router:
    """A kind of home router."""

    # Linux keeps the source port where it is free, so the same mapping serves every destination.
    # Otherwise each destination sees another, random one: a "symmetric" NAT; punching cannot work.
    keeps_port: bool = True
    # Answer an unexpected SYN with RST instead of silence: a punch then has to be better timed.
    answers_reset: bool = False

    def describe(self) -> str:
        """A few words for people."""
        ports = "keeps ports" if self.keeps_port else "random ports"
        return f"{ports}, {'resets' if self.answers_reset else 'drops'} strangers"

    def ruleset(self) -> str:
        """The text for `nft -f -`."""
        masquerade = "masquerade" if self.keeps_port else "masquerade fully-random"
        stranger = (
            "counter meta l4proto tcp reject with tcp reset"
            if self.answers_reset
            else "counter drop"
        )
        return f"""
table ip home {{
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        oifname "{WAN_INTERFACE}" {masquerade}
    }}
    chain forward {{
        type filter hook forward priority filter; policy drop;
        ct state invalid drop
        ct state established,related accept
        iifname "{LAN_INTERFACE}" oifname "{WAN_INTERFACE}" ct state new accept
    }}
    chain input {{
        type filter hook input priority filter; policy drop;
        ct state established,related accept
        iifname "{LAN_INTERFACE}" accept
        iifname "{WAN_INTERFACE}" {stranger}
    }}
}}
"""


DROPS = Router()
RESETS = Router(answers_reset=True)
SYMMETRIC = Router(keeps_port=False)
