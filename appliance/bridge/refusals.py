"""`refuse`: one call counts, logs and gives the number to answer with."""

from __future__ import annotations

import logging

from appliance.bridge.telemetry import Telemetry
from appliance.errors import Fault
from appliance.events import emit

_log = logging.getLogger("appliance.bridge")


def refuse(telemetry: Telemetry, subject: str, fault: Fault, *, peer: str | None) -> int:
    """Count and log a refusal of `subject`; the circuit v2 status to answer with.

    `subject` is one of the closed list in `Telemetry.refusals`; `peer` is an authenticated peer
    id or an address, whatever is known of who was refused.
    """
    kind = (subject, fault.reason)
    telemetry.refusals[kind] += 1
    if telemetry.worth_a_line(kind):
        emit(
            _log,
            logging.INFO,
            "refused",
            subject=subject,
            reason=fault.reason.value,
            peer=peer,
            detail=fault.detail,
            count=telemetry.refusals[kind],
        )
    return fault.reason.wire_status
