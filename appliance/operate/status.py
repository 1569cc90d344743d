"""What `appliance status` says: the document `appliance.status/v1`, and its form for people.

The dataclasses are the document: field names are JSON names. Add fields with a default; rename or
drop none. The composition root fills them; nothing here asks the machine anything.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import UnionType
from typing import Any, Final, get_args, get_origin, get_type_hints

SCHEMA: Final = "appliance.status/v1"


@dataclass(frozen=True, slots=True)
class Usage:
    """How much of a cap is taken."""

    used: int = 0
    cap: int = 0


@dataclass(frozen=True, slots=True)
class RoleStatus:
    """Whether we serve as a relay (public) or need one (private), and why we think so."""

    mode: str  # as declared: auto, on, off
    effective: str  # public or private
    since: float  # Unix seconds
    evidence: tuple[str, ...] = ()  # plain sentences


@dataclass(frozen=True, slots=True)
class RelayStatus:
    """Our own relay service."""

    running: bool = False
    port: int = 0  # 0: none
    reservations: Usage = Usage()
    circuits: Usage = Usage()
    bytes_total: int = 0  # carried in circuits, both ways, since the start


@dataclass(frozen=True, slots=True)
class ReservationStatus:
    """A reservation of ours at somebody's relay."""

    relay: str  # peer id, text form
    state: str  # asking, active, renewing, failed
    address: str | None = None  # multiaddr that we dial
    since: float | None = None  # Unix seconds
    expires: float | None = None  # Unix seconds
    limit_s: int | None = None  # of one circuit; None: no limit announced
    limit_bytes: int | None = None  # of one circuit and direction; None: no limit announced
    failure: str | None = None  # reason code of the last failed attempt
    origin: str = "declared"  # who named the relay: declared or book


@dataclass(frozen=True, slots=True)
class InboundStatus:
    """Kaspa streams that others opened to us, against their caps."""

    direct: Usage = Usage()
    private: Usage = Usage()
    per_relay: Mapping[str, Usage] = field(default_factory=dict)  # by relay's peer id
    unknown_relay: Usage = Usage()


@dataclass(frozen=True, slots=True)
class OutboundStatus:
    """A Kaspa stream that we opened."""

    peer: str
    path: str  # direct or relayed
    relay: str | None  # peer id, when relayed
    since_s: float
    slot: str | None = None  # ip:port that the node dialled
    bytes_in: int = 0
    bytes_out: int = 0


@dataclass(frozen=True, slots=True)
class SlotStatus:
    """A local port behind which a private peer stands."""

    slot: str  # ip:port
    peer: str  # empty while it is vacant
    state: str  # idle, connecting, open, waiting, vacant
    failure: str | None = None  # reason code of the last failure, or why it is vacant
    origin: str = "declared"  # who says whom it reaches: declared or book
    relay: str | None = None  # through which the peer was met, ip:port


@dataclass(frozen=True, slots=True)
class PunchStatus:
    """Hole punches since the start."""

    attempts: int = 0
    succeeded: int = 0
    failed: int = 0
    by_cause: Mapping[str, int] = field(default_factory=dict)  # failures by reason code


@dataclass(frozen=True, slots=True)
class DiscoveryStatus:
    """What the search for relays and private peers has found, and how busy it was."""

    known: int = 0  # addresses in the book
    relays: int = 0
    private: int = 0  # peers without a dialable address
    asked: int = 0  # exchanges that we began
    answered: int = 0  # of those
    served: int = 0  # exchanges of others


@dataclass(frozen=True, slots=True)
class FdStatus:
    """File descriptors of the daemon."""

    used: int = 0
    limit: int = 0


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """The Kaspa node beside us."""

    kind: str  # kaspad or embedded
    p2p: str  # ip:port
    reachable: bool | None = None  # None: not tried yet


@dataclass(frozen=True, slots=True)
class FaultStatus:
    """Something that needs a look: its kind, how often, and when last."""

    name: str  # stable: a reason code or an event's name
    count: int
    last: float | None = None  # Unix seconds
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Status:
    """The whole answer of the control command `status`."""

    name: str
    version: str
    network: str
    uptime_s: float
    peer_id: str
    role: RoleStatus
    node: NodeStatus
    listen: tuple[str, ...] = ()
    external: tuple[str, ...] = ()
    relay: RelayStatus = RelayStatus()
    reservations: tuple[ReservationStatus, ...] = ()
    inbound: InboundStatus = InboundStatus()
    outbound: tuple[OutboundStatus, ...] = ()
    slots: tuple[SlotStatus, ...] = ()
    discovery: DiscoveryStatus | None = None  # None: the declaration switched it off
    punch: PunchStatus = PunchStatus()
    fds: FdStatus = FdStatus()
    faults: tuple[FaultStatus, ...] = ()
    schema: str = SCHEMA

    def as_dict(self) -> dict[str, object]:
        """Plain values, ready for `json.dumps`; `schema` comes first."""
        fields = _plain(self)
        assert isinstance(fields, dict)
        return {"schema": fields.pop("schema"), **fields}

    def to_json(self) -> str:
        """The document as one indented JSON text without a newline at its end."""
        return json.dumps(self.as_dict(), indent=2)


def _plain(value: object) -> object:
    # Not dataclasses.asdict: that deep-copies, and cannot copy a read-only mapping.
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return value


def parse(document: Mapping[str, object]) -> Status:
    """The inverse of `as_dict`, for clients; fields that we do not know are ignored.

    Raises ValueError if it is no status document of this version, or a field has a wrong shape.
    """
    if document.get("schema") != SCHEMA:
        raise ValueError(f"schema is {document.get('schema')!r}, not {SCHEMA!r}")
    status = _typed(Status, document, "status")
    assert isinstance(status, Status)
    return status


def _typed(kind: Any, value: object, where: str) -> object:
    """`value` of a JSON document as `kind`: a dataclass, tuple, mapping, optional or scalar."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is UnionType:
        return None if value is None else _typed(arguments[0], value, where)
    if origin is tuple and isinstance(value, (list, tuple)):
        return tuple(_typed(arguments[0], item, where) for item in value)
    if origin is Mapping and isinstance(value, Mapping):
        return {str(k): _typed(arguments[1], v, f"{where}.{k}") for k, v in value.items()}
    if dataclasses.is_dataclass(kind) and isinstance(kind, type) and isinstance(value, Mapping):
        hints = get_type_hints(kind)
        known = {
            f.name: _typed(hints[f.name], value[f.name], f"{where}.{f.name}")
            for f in dataclasses.fields(kind)
            if f.name in value
        }
        try:
            return kind(**known)
        except TypeError as error:
            raise ValueError(f"{where}: {error}") from None
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(kind, type) and isinstance(value, kind):
        return value
    raise ValueError(f"{where}: {type(value).__name__} where {kind} is due")
