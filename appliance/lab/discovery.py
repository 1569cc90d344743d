"""Homes and relays that know one public peer and nobody else: they find the rest by gossip."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Final

from appliance.lab import declarations
from appliance.lab.findings import Findings, bytes_each_way
from appliance.lab.journal import Journal, ScenarioFailed
from appliance.lab.routers import DROPS
from appliance.lab.scenarios import Discovery
from appliance.lab.stage import START, Stage
from appliance.lab.topology import Home, Topology, built

RELAY_IPS: Final = ("192.31.196.10", "192.52.193.10", "192.175.48.10", "192.52.193.40")
"""The first is the known peer's. An address book takes nobody's word for documentation addresses;
these blocks are globally reachable and hold no ordinary hosts (IANA special-purpose registry: RFC
7535, 7450, 7534). There are three of them, so two relays share one, as may happen anywhere."""
HOME_ROUTER_IPS: Final = ("203.0.113.21", "203.0.113.77", "192.0.2.33", "198.51.100.88")
_HOME_IP: Final = "192.168.1.10"


class DiscoveryStory:
    """The known peer is there first; then all the others start at once."""

    def __init__(self, scenario: Discovery) -> None:
        self._scenario = scenario
        self._publics = {f"relay-{n + 1}": ip for n, ip in enumerate(RELAY_IPS[: scenario.relays])}
        self._homes = {
            f"home-{letter}": Home(_HOME_IP, ip, DROPS)
            for letter, ip in zip("abcdefgh"[: scenario.homes], HOME_ROUTER_IPS, strict=True)
        }
        self._known = next(iter(self._publics))
        self._peer_ids: dict[str, str] = {}

    def build(self, delay_ms: float) -> AbstractContextManager[Topology]:
        """Public relays, and homes with the same address in LANs of their own."""
        return built(self._publics, self._homes, delay_ms)

    def about(self, who: str, journal: Journal) -> dict[str, Any]:
        """What it is, and what its node calls itself."""
        role = "appliance, relay" if who in self._publics else "appliance"
        return {"role": f"{role}, embedded node", "user_agent": None}

    async def perform(self, stage: Stage) -> None:
        """Raises ScenarioFailed."""
        await stage.identities(*self._publics, *self._homes)
        self._peer_ids = stage.peer_ids
        self._declare(stage)
        journal = stage.journal
        journal.note("declared")
        journal.note("first_start")
        mark = stage.start(self._known)
        await journal.wait_for(self._known, "ready", within=START, after=mark)
        for who in stage.actors:
            if who != self._known:
                stage.start(who)
        await self._all_found(journal)
        journal.note("all_found")

    def _declare(self, stage: Stage) -> None:
        known = declarations.relay_multiaddr(
            stage.peer_ids[self._known], self._publics[self._known]
        )
        for who in (*self._publics, *self._homes):
            text = declarations.knowing_one_peer(
                who,
                stage.state(who),
                stage.log_level,
                peer=None if who == self._known else known,
                external=self._publics.get(who),
            )
            for name, peer_id in stage.peer_ids.items():
                if peer_id in text and name != self._known:
                    raise ScenarioFailed(f"the file of {who} names {name}")
            stage.declare(who, text)

    async def _all_found(self, journal: Journal) -> None:
        found, taken = self._nothing_found(), 0

        def everything() -> bool:
            nonlocal taken
            for event in journal.events[taken:]:
                found.take(event)
            taken = journal.mark
            return self._missing(found) is None

        begun = journal.find("lab", "first_start")
        assert begun is not None
        passed = (journal.now_ms() - begun.at_ms) / 1000
        left = max(0.0, self._scenario.deadline - passed)
        if not await journal.wait_until(everything, within=left):
            who, what = self._missing(found) or ("lab", "too late")
            raise ScenarioFailed(f"{what} {self._scenario.deadline:g} s after the first start", who)

    def _nothing_found(self) -> Findings:
        return Findings.of(self._peer_ids, self._homes)

    def _missing(self, found: Findings) -> tuple[str, str] | None:
        """Who lacks something, and what."""
        wanted = self._scenario.reservations
        if short := found.short_of(wanted):
            holds = len(found.held[short[0]])
            return short[0], f"{short[0]} held {holds} reservations, not {wanted},"
        if alone := found.alone():
            return alone[0], f"the node of {alone[0]} had no direct connection to another home's"
        return None

    # --- what came of it

    def summarise(
        self, journal: Journal, end: int, failure: ScenarioFailed | None
    ) -> dict[str, Any]:
        """The fields of the result; bytes are counted when the streams are closed at the end."""
        found = self._nothing_found()
        for event in journal.events[:end]:
            found.take(event)
        missing = self._missing(found)
        reason = failure.reason if failure else (missing[1] if missing else None)
        faulty = failure.who if failure else (missing[0] if missing else None)
        first = found.meetings[0] if found.meetings else None
        begun, done = journal.find("lab", "first_start"), journal.find("lab", "all_found")
        punch = next((one for one in journal.events if one.name == "punch_succeeded"), None)
        alone = found.alone()
        return {
            "passed": reason is None,
            "reason": reason,
            "faulty": faulty,
            "path": "direct" if first else None,
            "time_to_direct_ms": first.time_to_direct_ms if first else None,
            "punch_ms": punch.fields.get("took_ms") if punch else None,
            "handshake": f"not with {', '.join(alone)}" if alone else "ready",
            "bytes": bytes_each_way(journal.events[end:], self._homes),
            "found_after_ms": round(done.at_ms - begun.at_ms, 1) if begun and done else None,
            "reservations": {home: sorted(relays) for home, relays in found.held.items()},
            "meetings": [meeting.as_json() for meeting in found.meetings],
            "addresses": {
                home: max(
                    (one.addresses for one in found.lines.values() if one.home == home), default=0
                )
                for home in self._homes
            },
        }
