"""Circuit v2: which message is legal when, and what a granted reservation is worth."""

from __future__ import annotations

import pytest

from appliance.errors import RemoteProtocolError
from appliance.network import Endpoint
from appliance.reasons import Reason
from appliance.wire.circuit import (
    OK,
    ConnectRequest,
    Granted,
    HopMessage,
    IncomingCircuit,
    Limit,
    ReserveRequest,
    StatusReply,
    StopMessage,
    check_granted,
    expect_circuit,
    expect_request,
    expect_status,
)

GRANTED = Granted(2000, (Endpoint("203.0.113.7", 1),), b"voucher")


@pytest.mark.parametrize("message", [ReserveRequest(), ConnectRequest("12D3Koo")])
def test_a_hop_stream_starts_with_a_request(message: HopMessage) -> None:
    assert expect_request(message) is message
    with pytest.raises(RemoteProtocolError) as caught:
        expect_status(message)
    assert caught.value.reason is Reason.UNEXPECTED_MESSAGE


def test_a_stop_stream_starts_with_a_circuit() -> None:
    message: StopMessage = IncomingCircuit("12D3Koo", Limit(120, 1 << 17))
    assert expect_circuit(message) is message
    with pytest.raises(RemoteProtocolError):
        expect_status(message)


def test_a_status_opens_nothing() -> None:
    status = StatusReply(OK)
    assert expect_status(status) is status
    with pytest.raises(RemoteProtocolError):
        expect_request(status)
    with pytest.raises(RemoteProtocolError):
        expect_circuit(status)


@pytest.mark.parametrize(
    ("status", "name"),
    [(100, "OK"), (200, "RESERVATION_REFUSED"), (201, "RESOURCE_LIMIT_EXCEEDED"),
     (202, "PERMISSION_DENIED"), (203, "CONNECTION_FAILED"), (204, "NO_RESERVATION"),
     (400, "MALFORMED_MESSAGE"), (401, "UNEXPECTED_MESSAGE"), (0, "0"), (999, "999")],
)  # fmt: skip
def test_every_status_has_its_name(status: int, name: str) -> None:
    reply = StatusReply(status)
    assert reply.name == name
    assert reply.ok is (status == 100)


def test_a_reservation_is_worth_its_time_but_not_more_than_we_believe() -> None:
    reply = StatusReply(OK, granted=GRANTED)
    assert check_granted(reply, now=1000.0, max_lifetime=5000) is GRANTED
    cut = check_granted(reply, now=1000.0, max_lifetime=500)
    assert cut == Granted(1500, GRANTED.addresses, GRANTED.voucher)
    huge = StatusReply(OK, granted=Granted(2**64 - 1, (), b""))
    assert check_granted(huge, now=1000.0, max_lifetime=500).expires == 1500


@pytest.mark.parametrize("granted", [None, Granted(999, (), b""), Granted(1000, (), b"")])
def test_an_ok_without_a_valid_reservation_is_malformed(granted: Granted | None) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        check_granted(StatusReply(OK, granted=granted), now=1000.0, max_lifetime=500)
    assert caught.value.reason is Reason.MALFORMED_MESSAGE
