"""What homes have found by themselves, from the events of all: relays that hold them, and peers."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from appliance.lab.journal import Event


@dataclass(slots=True)
class Line:
    """A Kaspa stream as one home sees it; `local` is how its node knows the other one."""

    home: str
    peer: str
    outbound: bool
    path: str
    local: str
    ready: bool = False
    addresses: int = 0
    at_ms: float = 0.0  # when the last thing happened

    @property
    def complete(self) -> bool:
        """Direct, `ready` went both ways, and addresses came."""
        return self.path == "direct" and self.ready and self.addresses > 0


@dataclass(frozen=True, slots=True)
class Meeting:
    """Two homes whose nodes talk, and the relay that brought them together."""

    dialler: str
    dialled: str
    at_ms: float
    relay: str | None
    time_to_direct_ms: float | None

    def as_json(self) -> dict[str, Any]:
        """The shape in `lab run --json`."""
        return {
            "dialler": self.dialler,
            "dialled": self.dialled,
            "at_ms": self.at_ms,
            "relay": self.relay,
            "time_to_direct_ms": self.time_to_direct_ms,
        }


@dataclass(slots=True)
class Findings:
    """Takes events in their order. Whoever has an entry in `held` is watched: the homes."""

    names: Mapping[str, str]  # peer id → name
    held: dict[str, set[str]]
    """Home → the relays at which it holds a reservation now."""
    meetings: list[Meeting] = field(default_factory=list)
    lines: dict[tuple[str, str], Line] = field(default_factory=dict)
    _at: dict[str, str] = field(default_factory=dict)  # a relay's endpoint → its name
    _relays: dict[tuple[str, str], str] = field(default_factory=dict)
    _direct_after: dict[tuple[str, str], float] = field(default_factory=dict)

    @classmethod
    def of(cls, peer_ids: Mapping[str, str], homes: Iterable[str]) -> Findings:
        """Nothing yet, of appliances with these peer ids (name → id)."""
        return cls({peer: name for name, peer in peer_ids.items()}, {home: set() for home in homes})

    def take(self, event: Event) -> None:
        """What one event changes."""
        if event.who not in self.held:
            return
        fields = event.fields
        match event.name:
            case "reservation_made":
                relay = self._name(fields["relay"])
                self._at[str(fields.get("address"))] = relay
                self.held[event.who].add(relay)
            case "reservation_failed":
                self.held[event.who].discard(self._name(fields["relay"]))
            case "relay_dropped":
                self.held[event.who].discard(self._at.get(str(fields["relay"]), ""))
            case "relayed_connection":
                pair = event.who, self._name(fields["peer"])
                self._relays[pair] = self._name(fields["relay"])
            case "direct_first_byte":
                pair = event.who, self._name(fields["peer"])
                self._direct_after[pair] = float(fields["time_to_direct_ms"])
            case "kaspa_stream":
                self._stream(event)
            case "kaspa_stream_closed":
                peer = self._name(fields["peer"])
                for key, line in list(self.lines.items()):
                    if (line.home, line.peer) == (event.who, peer):
                        del self.lines[key]
            case "kaspa_handshake" | "kaspa_addresses":
                self._talk(event)

    def alone(self) -> list[str]:
        """Homes whose node talks directly with no other home's."""
        met = {one for meeting in self.meetings for one in (meeting.dialler, meeting.dialled)}
        return [home for home in self.held if home not in met]

    def short_of(self, wanted: int) -> list[str]:
        """Homes that hold fewer reservations."""
        return [home for home, relays in self.held.items() if len(relays) < wanted]

    def _name(self, peer: object) -> str:
        return self.names.get(str(peer), str(peer))

    def _stream(self, event: Event) -> None:
        fields = event.fields
        line = Line(
            event.who,
            self._name(fields["peer"]),
            fields["direction"] == "outbound",
            str(fields["path"]),
            str(fields["local"]),
        )
        self.lines[line.home, line.local] = line

    def _talk(self, event: Event) -> None:
        line = self.lines.get((event.who, str(event.fields.get("remote"))))
        if line is None:
            return  # a node that only came to ask
        line.at_ms = event.at_ms
        if event.name == "kaspa_handshake":
            line.ready = True
        else:
            line.addresses = max(line.addresses, int(event.fields.get("count", 0)))
        if line.complete:
            self._meet(line)

    def _meet(self, one: Line) -> None:
        for other in self.lines.values():
            across = (other.home, other.peer, other.outbound) == (
                one.peer,
                one.home,
                not one.outbound,
            )
            if across and other.complete:
                ours, theirs = (one, other) if one.outbound else (other, one)
                pair = ours.home, theirs.home
                if all((meeting.dialler, meeting.dialled) != pair for meeting in self.meetings):
                    relay = self._relays.get(pair) or self._relays.get(pair[::-1])
                    after = self._direct_after.get(pair)
                    self.meetings.append(Meeting(*pair, one.at_ms, relay, after))


def bytes_each_way(events: Iterable[Event], homes: Collection[str]) -> int:
    """What the direct streams of the homes carried in both directions, all together; those that
    the end met while they began have carried nothing."""
    return sum(
        min(int(event.fields["bytes_in"]), int(event.fields["bytes_out"]))
        for event in events
        if event.name == "kaspa_stream_closed"
        and event.who in homes
        and event.fields["path"] == "direct"
    )
