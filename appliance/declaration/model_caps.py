"""Caps that an operator sets himself; the plan computes the others, and refuses what does not fit.

Private inbound peers and those through one relay are `bridge.private_inbound_target` and
`bridge.per_relay_inbound`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from appliance.declaration.kinds import Number, OrNone
from appliance.declaration.settings import Setting

_COMPUTED = "computed from the hardware; `appliance plan` shows how"


def _cap(low: int, high: int, doc: str, unit: str, example: str) -> Setting:
    kind = OrNone(Number(low, high))
    return Setting(kind, doc, default=None, because=_COMPUTED, unit=unit, example=example)


@dataclass(frozen=True, slots=True)
class CapsSpec:
    """Caps set by hand; null: computed. A value that breaks a budget is refused."""

    inbound_direct: Annotated[
        int | None,
        _cap(
            0,
            1024,
            "Peers that the node accepts directly: a part of kaspad's `--maxinpeers`, which also "
            "counts what the bridge brings.",
            "peers",
            "128",
        ),
    ]
    outbound_direct: Annotated[
        int | None,
        _cap(0, 1024, "Peers that the node dials directly: kaspad's `--outpeers`.", "peers", "8"),
    ]
    outbound_private: Annotated[
        int | None,
        _cap(0, 256, "Private peers that are reached at once, each by its slot.", "peers", "8"),
    ]
    unknown_relay_inbound: Annotated[
        int | None,
        _cap(0, 1024, "Private inbound peers whose relay is not known, together.", "peers", "8"),
    ]
    relay_reservations: Annotated[
        int | None,
        _cap(1, 65_536, "Reservations that our relay keeps at once.", "reservations", "128"),
    ]
    relay_circuits: Annotated[
        int | None,
        _cap(1, 65_536, "Circuits that our relay carries at once.", "circuits", "64"),
    ]
    relay_circuits_per_peer: Annotated[
        int | None,
        _cap(1, 65_536, "Of those, how many may begin or end at one peer.", "circuits", "16"),
    ]
    relay_reservations_per_ip: Annotated[
        int | None,
        _cap(1, 65_536, "Reservations from one IP address.", "reservations", "8"),
    ]
    relay_bytes_per_second: Annotated[
        int | None,
        _cap(1024, 10**11, "What all circuits carry together.", "bytes per second", "1250000"),
    ]
    relay_circuit_bytes_per_second: Annotated[
        int | None,
        _cap(1024, 10**11, "What one circuit carries at most.", "bytes per second", "312500"),
    ]
