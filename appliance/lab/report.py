"""The laboratory for people: events as sentences, and what came of it as a small picture."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from appliance.lab.scenarios import Outcome, Scenario
from appliance.units import human_bytes

Fields = dict[str, Any]


def _ms(value: object) -> str:
    return f"{value:.0f} ms" if isinstance(value, int | float) else "? ms"


# Only what moves the story on; everything else is in --json and in the logs.
_SENTENCES: Final[dict[str, Callable[[Fields], str]]] = {
    "map_built": lambda f: f"{f.get('hosts')} hosts and routers stand; makes identities",
    "declared": lambda _: "starts an appliance from its own YAML file on each",
    "ready": lambda f: f"appliance is up, peer …{str(f.get('peer_id'))[-8:]}",
    "reservation_made": lambda f: f"keeps a reservation at {f.get('address')}",
    "relay_kept": lambda f: f"knows of a relay at {f.get('relay')}",
    "slot_assigned": lambda f: f"knows of peer …{str(f.get('peer'))[-8:]} behind {f.get('relay')}",
    "slot_listening": lambda f: f"offers its node a slot at {f.get('slot')}",
    "relayed_connection": lambda f: (
        "reaches another home through a relay"
        if f.get("direction") == "outbound"
        else "is reached by another home through a relay"
    ),
    "punch_started": lambda _: "starts to punch a hole",
    "punch_succeeded": lambda f: f"has punched through both NATs in {_ms(f.get('took_ms'))}",
    "punch_failed": lambda f: f"could not punch: {f.get('reason')}",
    "direct_connection": lambda f: f"is connected with {f.get('address')}",
    "slot_unreachable": lambda f: f"cannot reach its peer yet: {f.get('reason')}",
    "refused": lambda f: f"refuses: {f.get('reason')}",
    "kaspa_stream": lambda f: (
        f"{'opens' if f.get('direction') == 'outbound' else 'takes'} the Kaspa stream, "
        f"{f.get('path')}"
    ),
    "kaspa_stream_closed": lambda f: f"Kaspa stream closed: {f.get('reason')}",
    "kaspa_listening": lambda f: f"Kaspa node listens on {f.get('address')}",
    "kaspa_handshake": lambda f: f"handshake ready with {f.get('user_agent')}",
    "kaspa_addresses": lambda f: f"got {f.get('count')} addresses",
    "kaspa_disconnected": lambda f: f"lost its peer: {f.get('reason')}",
    "lab_payload": lambda f: (
        f"received {human_bytes(int(f.get('bytes', 0)))}, "
        f"{'intact' if f.get('intact') else 'NOT intact'}"
    ),
}


def opening(scenario: Scenario, delay_ms: float) -> str:
    """The first lines of a run."""
    return f"{scenario.name}: {scenario.summary}\n{scenario.setting()}; {delay_ms:g} ms each way\n"


def line(message: Fields) -> str | None:
    """One event as a line, or None when it is not part of the story."""
    sentence = _SENTENCES.get(message["event"])
    who = str(message["who"])
    # What a relay refuses a home, the home tells better; of many relays only that they are there.
    hidden = who == "relay" and message["event"] == "refused"
    if sentence is None or hidden or (who.startswith("relay-") and message["event"] != "ready"):
        return None
    return f"{message['at_ms'] / 1000:7.2f} s  {_name(who):<7} {sentence(message)}"


def _name(who: str) -> str:
    kind, _, which = who.partition("-")
    return f"{kind} {which.upper()}".rstrip()


def picture(result: Fields) -> str:
    """The way that the bytes took."""
    if meetings := result.get("meetings"):
        return "\n  ".join(_found(result["reservations"], meetings))
    middle = {
        "direct": "══ punched TCP ══",
        "relayed": "── relay ──",
        None: "─✗─",
    }.get(result["path"], "─?─")
    return f"node A ─► slot ─► appliance A {middle} appliance B ─► node B"


def _found(reservations: Fields, meetings: list[Fields]) -> list[str]:
    kept = [
        f"{_name(home)} keeps reservations at {', '.join(map(_name, relays))}"
        for home, relays in reservations.items()
    ]
    return kept + [
        f"node {one['dialler'][-1].upper()} ─► slot ─► {_name(one['dialler'])} "
        f"══ punched TCP ══ {_name(one['dialled'])} ─► node {one['dialled'][-1].upper()}, "
        f"brought together by {_name(str(one['relay']))}"
        for one in meetings
    ]


def closing(scenario: Scenario, result: Fields) -> str:
    """The last lines of a run: what came of it, or what went wrong and where to look."""
    if not result["passed"]:
        lines = ["", f"FAILED: {result['reason']}"]
        if tail := result["log_tails"].get(result["faulty"]):
            lines += ["", f"the last lines of {result['faulty']}:"]
            lines += [f"  {text}" for text in tail[-15:]]
        lines += ["", "--keep-logs DIR leaves every declaration and log in DIR"]
        return "\n".join(lines)
    if scenario.outcome is Outcome.REFUSED:
        what = f"refused early and clearly: {result['refused']}"
    elif "found_after_ms" in result:
        what = f"everything found {result['found_after_ms'] / 1000:.1f} s after the first start"
    else:
        what = (
            f"handshake {result['handshake']}, {human_bytes(result['bytes'])} each way intact, "
            f"path {result['path']}"
        )
        if result["time_to_direct_ms"] is not None:
            what += f" {_ms(result['time_to_direct_ms'])} after the relayed connection"
    return f"\n  {picture(result)}\n\npassed: {what}"


def run_line(number: int, total: int, result: Fields) -> str:
    """One line for one of many runs."""
    verdict = "passed" if result["passed"] else f"FAILED: {result['reason']}"
    return (
        f"run {number:>2}/{total}: {verdict}, path {result['path']}, "
        f"direct after {_ms(result['time_to_direct_ms'])}, punch {_ms(result['punch_ms'])}"
    ) + (f", all found after {_ms(result['found_after_ms'])}" if "found_after_ms" in result else "")


def runs_closing(summary: Fields) -> str:
    """The last line of many runs."""
    text = f"\n{summary['runs_passed']} of {summary['runs_total']} passed"
    if summary["median_time_to_direct_ms"] is not None:
        text += (
            f"; medians: direct after {_ms(summary['median_time_to_direct_ms'])}, "
            f"punch {_ms(summary['median_punch_ms'])}"
        )
    if summary["median_found_after_ms"] is not None:
        text += f", all found after {_ms(summary['median_found_after_ms'])}"
    return text
